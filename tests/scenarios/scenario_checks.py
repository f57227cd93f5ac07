"""What holds in every scenario, whatever it tells: looked at while it runs, from all disks and databases at once.

The witness sees everything and knows no rule of the engine, only what Raft promises. A broken promise is an error of
the run; it is never a part of the expected text, so `--rewrite` cannot write it down.
"""

from __future__ import annotations

from hiqlite.engine.model import AppendReply, Identity, Membership, VoteReply

from .scenario_disk import Entry
from .scenario_node import Node, Parcel
from .scenario_words import name


class Witness:
    """Remembers leaders, votes, entries and commits of the whole scenario."""

    def __init__(self) -> None:
        self.leaders: dict[int, Identity] = {}
        self.votes: dict[tuple[Identity, int], int] = {}
        self.entries: dict[tuple[int, int], tuple[Entry, int]] = {}  # (index, term) -> entry, term before it
        self.committed: dict[int, Entry] = {}
        self.highest: dict[Identity, tuple[int, int]] = {}
        self.asked: dict[tuple[Identity, int], int] = {}

    # ------------------------------------------------------------------ as it happens

    def posted(self, node: Node, parcel: Parcel) -> None:
        """Nothing is promised before it is durable; one vote per term (figure 2: "Respond to RPCs")."""
        message, durable = parcel.message, node.disk.durable
        assert message.sender == node.own, "everybody speaks for himself"
        assert message.term <= durable.term + _ahead(parcel), f"{name(node.own)} speaks in a term that it may forget"
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            assert durable.vote and (durable.term, durable.vote.id) == (message.term, parcel.target), "vote not durable"
            known = self.votes.setdefault((node.own, message.term), parcel.target)
            assert known == parcel.target, f"{name(node.own)} voted twice in term {message.term}"
        if isinstance(message, AppendReply) and message.accepted:
            assert message.match_index <= durable.last_index, f"{name(node.own)} promised more than is durable"

    def seen(self, node: Node, everybody: list[Node]) -> None:
        """A node did something: look at its role, its log and what it takes for committed."""
        raft, log = node.raft, node.disk.written
        if raft.leads:  # election safety (5.2)
            assert self.leaders.setdefault(raft.term, node.own) == node.own, f"two leaders in term {raft.term}"
            self.leader_is_complete(node)
        before = self.highest.get(node.own, (0, 0))
        assert raft.term >= before[0] and raft.commit_index >= before[1], f"{name(node.own)} went back"
        self.highest[node.own] = (raft.term, raft.commit_index)
        self.logs_match(node)
        for index in range(max(before[1], log.base_index) + 1, min(raft.commit_index, log.last_index) + 1):
            entry = node.entry(index)
            if index not in self.committed:
                _durable_on_quorums(index, entry, raft.membership, everybody)
            assert self.committed.setdefault(index, entry) == entry, f"two entries committed at {index}"
        self.databases_agree(node)

    def read_asked(self, node: Node, token: int) -> None:
        """What a read asked for now must see at least."""
        assert (node.own, token) not in self.asked, f"two reads of {name(node.own)} share token {token}"
        self.asked[node.own, token] = max(self.committed, default=0)

    def read_confirmed(self, node: Node, token: int, read_index: int) -> None:
        """Linearizable (section 8): it sees whatever was committed anywhere when it was asked for."""
        assert read_index >= self.asked.pop((node.own, token)), f"{name(node.own)} would answer a stale read"

    def restarted(self, node: Node) -> None:
        """A process began: what was durable survived; what it knew committed need not have."""
        self.highest[node.own] = (node.disk.durable.term, 0)
        self.asked = {known: least for known, least in self.asked.items() if known[0] != node.own}
        for index, entry in enumerate(node.database, 1):
            assert self.committed.setdefault(index, entry) == entry, f"two entries committed at {index}"

    # ------------------------------------------------------------------ properties (figure 3)

    def leader_is_complete(self, node: Node) -> None:
        """Leader completeness (5.4.3): whoever leads the highest term holds all that is committed."""
        if node.raft.term == max(self.leaders):
            for index, entry in self.committed.items():
                assert node.disk.written.holds(index, entry), f"leader {name(node.own)} lacks the committed {index}"

    def logs_match(self, node: Node) -> None:
        """Log matching (5.3): index and term name one entry, with one entry before it."""
        log = node.disk.written
        before = log.base_term
        for index, entry in enumerate(log.entries, log.base_index + 1):
            known = self.entries.setdefault((index, entry.term), (entry, before))
            assert known == (entry, before), f"two logs differ before or at {index}, term {entry.term}"
            before = entry.term

    def databases_agree(self, node: Node) -> None:
        """State machine safety (5.4.3): one entry per index, and only what is committed and written here."""
        raft = node.raft
        assert raft.base_index <= len(node.database) <= raft.last_index, "purge <= applied <= last"
        assert len(node.database) <= raft.commit_index <= raft.last_index, "applied <= commit <= last"
        for index, entry in enumerate(node.database, 1):
            assert self.committed.get(index, entry) == entry, f"{name(node.own)} applied something else at {index}"

    def at_rest(self, everybody: list[Node]) -> None:
        """Nothing waits to be handed out: what an engine takes for durable is durable, as that very entry."""
        for node in everybody:
            if node.dead:
                continue
            self.seen(node, everybody)
            raft, durable = node.raft, node.disk.durable
            assert raft.synced_index <= raft.written_index <= raft.last_index, "synced <= written <= last"
            for index in range(raft.base_index + 1, raft.synced_index + 1):
                assert durable.entry(index) == node.entry(index), f"{name(node.own)} takes {index} for durable"


def _ahead(parcel: Parcel) -> int:
    """A pre-vote and its answer speak of a term that nobody is in."""
    return 2**62 if getattr(parcel.message, "pre", False) else 0


def _durable_on_quorums(index: int, entry: Entry, membership: Membership, everybody: list[Node]) -> None:
    """A committed entry is durable on a majority of each set of voters."""
    holders = {node.own for node in everybody if node.disk.durable.holds(index, entry)}
    for voters in filter(None, (membership.voters, membership.outgoing)):
        held = [one for one in voters if one in holders]
        assert 2 * len(held) > len(voters), f"{index} is committed and durable only on {[name(one) for one in held]}"
