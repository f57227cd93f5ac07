"""Members change one step at a time, and everybody acts by the newest configuration in its log.

Raft thesis 4.1 to 4.3; consensus.md rule 6. Each configuration shares a set of voters with the one before it, so any
majority of the one meets one of the other.
"""

from __future__ import annotations

from typing import Any

from tests.sim.voters import voter_sets

from .base import Invariant


class Members(Invariant):
    name = "one change at a time, by the newest configuration"

    def changing(self, node: Any, membership: Any, term: int) -> None:
        """A leader appends a configuration: `node.values` still ends before it.

        It may have resigned in the same turn, when the entry was made and not yet handed out.
        """
        before = self.expected(node)
        commit = node.raft.commit_index
        if before.index > commit:
            self.fail(f"node {node.id} appends {membership}, {before} is not committed, {commit} is")
        if before.joint and (membership.joint or membership.voters != before.voters):
            self.fail(f"node {node.id} leaves {before} by {membership}")
        if membership.joint and membership.outgoing != before.voters:
            self.fail(f"node {node.id} goes from {before} to {membership}")
        if not {frozenset(one) for one in voter_sets(before)} & {frozenset(one) for one in voter_sets(membership)}:
            self.fail(f"{before} and {membership} share no set of voters")
        if commit < node.state.opened_index:
            self.fail(f"node {node.id} changes members before an entry of term {node.raft.term} is committed")
        if self.leaders.get(term) != node.id:
            self.fail(f"node {node.id} changes members in term {term} and does not lead it")

    def stepped(self, node: Any) -> None:
        memberships = self.cluster.memberships
        if not memberships or node.state.outbox.writes or node.state.faulty:
            return
        used, log = node.state.config.membership, node.state.log
        seen = self.seen.get(node.id)
        key = (node.life, log.last_index, log.last_term, used)
        if seen != key:
            self.seen[node.id] = key
            if node.config != used:
                self.fail(f"node {node.id} acts by {used}, its runtime was told {node.config}")
            if not node.receiver.installing and used.index < len(node.values) and used != self.expected(node):
                self.fail(f"node {node.id} acts by {used}, its log says {self.expected(node)}")

    def led(self, node: Any) -> None:
        """A leader that left leads until that is committed, and no longer (thesis 4.2.2)."""
        used = node.state.config.membership
        if used.index == 0 or used.joint or node.identity in used.voters or node.raft.transfer_id:
            return
        if not node.batch and used.index <= node.raft.commit_index and node.raft.opened:
            self.fail(f"node {node.id} leads on, though {used} is committed")

    def expected(self, node: Any) -> Any:
        """The newest of those in the log; the metadata may know a committed one that the log lost."""
        newest, recorded = node.newest_membership(), node.database.recorded
        return newest if newest.index > recorded.index else recorded

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.seen: dict[int, Any] = {}
        self.leaders: dict[int, int] = {}  # by term

    def became_leader(self, node: Any) -> None:
        """Who leads knows every configuration that is committed."""
        self.leaders[node.raft.term] = node.id
        newest = self.cluster.membership_in(self.truth.values, self.cluster.membership)
        if node.raft.membership.index < newest.index and self.truth.terms[newest.index] < node.raft.term:
            self.fail(f"node {node.id} leads term {node.raft.term} by {node.raft.membership}, committed is {newest}")
