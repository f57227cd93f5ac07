"""What may be seen of a node from outside: for the runtime's decisions, for metrics, for tests.

Must not change anything. Invariant: every value is that after the last input; none waits for `ready()`.
"""

from __future__ import annotations

from .membership import Configuration
from .model import Change, Identity, Membership, Role
from .progress import Progress
from .reconfiguration import refusal
from .snapshot import highest_purgeable
from .state import State


class Views:
    """The face of `Raft` that only shows."""

    def __init__(self, state: State) -> None:
        self.state: State = state

    def progress(self, peer_id: int) -> Progress | None:
        """What is known of a peer, for metrics; never to be changed."""
        return self.state.peers_by_id.get(peer_id)

    @property
    def identity(self) -> Identity:
        return self.state.own

    @property
    def role(self) -> Role:
        return self.state.role

    @property
    def leads(self) -> bool:
        return self.state.leads

    @property
    def term(self) -> int:
        return self.state.term

    @property
    def vote(self) -> Identity | None:
        return self.state.vote

    @property
    def leader_id(self) -> int:
        """Who leads the term as far as this node knows, 0: nobody."""
        return self.state.leader_id

    @property
    def last_index(self) -> int:
        return self.state.log.last_index

    @property
    def last_term(self) -> int:
        return self.state.log.last_term

    @property
    def commit_index(self) -> int:
        return self.state.commit_index

    @property
    def applied_index(self) -> int:
        return self.state.applied_index

    @property
    def written_index(self) -> int:
        return self.state.outbox.written_index

    @property
    def synced_index(self) -> int:
        return self.state.outbox.synced_index

    @property
    def uncommitted_bytes(self) -> int:
        """Size of the own proposals that wait for commit."""
        return self.state.uncommitted_bytes

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`, the base included; -1 outside. An image names that of its last entry."""
        return self.state.log.term_at(index)

    @property
    def opened(self) -> bool:
        """Whether this node leads and its term's first entry is committed: reads are answered from now on."""
        return self.state.leads and self.state.commit_index >= self.state.opened_index

    @property
    def membership(self) -> Membership:
        config: Configuration = self.state.config
        return config.membership

    def memberships_of(self, first: int, last: int) -> tuple[Membership, ...]:
        """The configurations among the entries `[first, last]`, ascending."""
        return self.state.memberships_of(first, last)

    def membership_at(self, index: int) -> Membership:
        """The configuration in force at `index`, from the log's base on: what an image of the database at that index
        carries, and what is stored beside a log that is purged up to there."""
        found: Membership = self.state.history[0]
        for membership in self.state.history:
            if membership.index <= index:
                found = membership
        return found

    def incarnation_of(self, node_id: int) -> int:
        """In which incarnation a peer stands in the configuration; 0 when it does not."""
        peer = self.state.peers_by_id.get(node_id)
        return peer.identity.incarnation if peer is not None else 0

    def needs_image(self, index: int) -> bool:
        """Whether an image at `index` would bring this node anything."""
        state = self.state
        if state.leads:
            return False
        return state.unconfirmed or bool(state.faulty) or index > state.commit_index

    @property
    def needed_from(self) -> int:
        """The lowest entry that a connected peer of this leader lacks; beyond the log when there is none."""
        lowest = self.state.log.last_index + 1
        if self.state.leads:
            for peer in self.state.peers:
                if peer.connected and not peer.needs_image:
                    lowest = min(lowest, peer.match_index + 1)
        return lowest

    def change_refusal(self, change: Change) -> str:
        """Why the members cannot be changed so now, empty if they can. Raises UsageError if they never can."""
        return refusal(self.state, change)

    @property
    def transfer_id(self) -> int:
        """To whom this leader is handing over, 0: to nobody. No proposals are taken meanwhile."""
        return self.state.transfer_id

    @property
    def base_index(self) -> int:
        """The entry before the first one of the log."""
        return self.state.log.base_index

    @property
    def purge_limit(self) -> int:
        """Up to where the log may be purged: applied here, and no running install needs it."""
        return highest_purgeable(self.state)

    @property
    def faulty(self) -> tuple[tuple[int, int], ...]:
        """Closed ranges of damaged entries that no peer has given back yet."""
        return tuple(self.state.faulty)
