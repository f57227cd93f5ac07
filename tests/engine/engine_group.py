"""Engines side by side in one test: instant disks and links, a clock turned by hand."""

from __future__ import annotations

from hiqlite.config import RaftSettings
from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    Message,
    Ready,
    Restored,
    TermRun,
    VoteReply,
)
from hiqlite.engine.raft import Raft

MS = 1_000_000
SECOND = 1000 * MS
START = 5 * SECOND


def identities(count: int) -> list[Identity]:
    return [Identity(number, 10 + number) for number in range(1, count + 1)]


def fresh(members: Membership, **known: object) -> Restored:
    values: dict[str, object] = {"term": 0, "vote": None, "membership": members}
    values.update(known)
    return Restored(**values)  # type: ignore[arg-type]


def log_of(*runs: tuple[int, int, int]) -> tuple[TermRun, ...]:
    return tuple(TermRun(*run) for run in runs)


class Alone:
    """One engine whose peers are played by the test."""

    def __init__(self, restored: Restored, number: int = 1, settings: RaftSettings | None = None, link: bool = True):
        self.now = START
        self.own = next(one for one in restored.membership.voters + restored.membership.learners if one.id == number)
        self.raft = Raft(self.own, settings or RaftSettings(), restored, self.now, 7)
        self.done = restored.io_sequence
        self.readies: list[Ready] = []
        for peer in restored.membership.voters + restored.membership.learners:
            if link and peer.id != number:
                self.raft.peer_connected(peer.id, 1, self.now)

    def take(self) -> list[Ready]:
        """Every Ready until there is none; the disk stands still."""
        taken = []
        while self.raft.has_ready():
            taken.append(self.raft.ready())
            self.note(taken[-1])
        return taken

    def note(self, ready: Ready) -> None:
        self.readies.append(ready)
        for write in (ready.hard_state, ready.truncate, ready.reset, *ready.appends, *ready.repairs):
            if write is not None:
                assert write.io_sequence == self.done + 1, "io sequences ascend by one"
                self.done = write.io_sequence

    def sync(self) -> list[Ready]:
        """The disk catches up until nothing more happens."""
        taken = self.take()
        while self.raft.state.outbox.synced_io < self.done:
            self.raft.log_progress(self.done, self.done, self.now)
            taken += self.take()
        return taken

    def receive(self, message: Message) -> None:
        self.raft.receive(message, self.now)

    def wait(self, span_ns: int) -> None:
        """Time passes; every deadline in it is judged."""
        end = self.now + span_ns
        while self.raft.next_deadline() <= end:
            self.now = max(self.now + 1, self.raft.next_deadline())
            self.raft.tick(self.now)
        self.now = end


def messages(readies: list[Ready], kind: type) -> list[Message]:
    return [send.message for ready in readies for send in ready.sends if isinstance(send.message, kind)]


def lead(restored: Restored, settings: RaftSettings | None = None) -> Alone:
    """Node 1, elected by every other voter; the entry that opens its term is durable nowhere but here."""
    return elect(Alone(restored, 1, settings))


def elect(node: Alone) -> Alone:
    """The same with a node that is there already."""
    node.wait(400 * MS)
    node.sync()
    members = node.raft.membership
    voters = [one for one in members.voters + members.outgoing if one.id != node.own.id]
    for pre in (True, False):
        for voter in voters:
            if not node.raft.leads:
                node.receive(VoteReply(node.raft.term + pre, voter, pre, True))
        node.sync()
    assert node.raft.leads
    return node


def accept(node: Alone, *peers: Identity, match: int = 0) -> list[Ready]:
    """These peers acknowledge everything that was sent to them, or up to `match`; what the leader does then."""
    for peer in peers:
        known = node.raft.progress(peer.id)
        assert known is not None
        index = match or node.raft.last_index
        node.receive(AppendReply(node.raft.term, peer, True, index, 0, 0, known.epoch, known.sequence))
    return node.sync()


def refuse(node: Alone, peer: Identity, hint: tuple[int, int]) -> list[Ready]:
    """This peer refuses the last request sent to it and names an entry that it holds."""
    known = node.raft.progress(peer.id)
    assert known is not None
    node.receive(AppendReply(node.raft.term, peer, False, 0, *hint, known.epoch, known.sequence))
    return node.sync()


def append(
    term: int, sender: Identity, previous: tuple[int, int], *runs: tuple[int, int, int], commit: int = 0,
    sequence: int = 1, memberships: tuple[Membership, ...] = (),
) -> AppendRequest:
    """An AppendRequest in session 1; runs are (term, first, last)."""
    last = runs[-1][2] if runs else previous[0]
    return AppendRequest(
        term, sender, previous[0], previous[1], commit, last, log_of(*runs), 1, sequence, memberships
    )


class Group:
    """Several engines whose messages arrive at once and whose disks are instant."""

    def __init__(self, count: int, learners: int = 0, settings: RaftSettings | None = None):
        all_members = identities(count + learners)
        self.membership = Membership(0, tuple(all_members[:count]), tuple(all_members[count:]))
        self.nodes = {one.id: Alone(fresh(self.membership), one.id, settings) for one in all_members}
        self.applied: dict[int, int] = dict.fromkeys(self.nodes, 0)
        self.cut: set[int] = set()
        self.reads: dict[int, int] = {}

    def settle(self) -> None:
        """Deliver and write until nothing is left to do."""
        busy = True
        while busy:
            busy = False
            for node in self.nodes.values():
                for ready in node.sync():
                    busy = True
                    assert not ready.fatal, ready.fatal
                    for read in ready.reads:
                        self.reads[read.token] = read.read_index
                    if ready.apply:
                        assert ready.apply[0] == self.applied[node.own.id] + 1
                        self.applied[node.own.id] = ready.apply[1]
                        node.raft.applied(ready.apply[1])
                    for fetch in ready.fetches:
                        last = min(fetch.first + 9, node.raft.last_index)
                        node.raft.entries_fetched(fetch.peer_id, fetch.first, last, 1000, node.now)
                    for send in ready.sends:
                        if send.peer_id not in self.cut and node.own.id not in self.cut:
                            self.nodes[send.peer_id].receive(send.message)

    def wait(self, span_ns: int, step_ns: int = 10 * MS) -> None:
        self.settle()
        for _ in range(span_ns // step_ns):
            for node in self.nodes.values():
                node.now += step_ns
                if node.raft.next_deadline() <= node.now:
                    node.raft.tick(node.now)
            self.settle()

    def leader(self) -> Alone:
        leaders = [node for node in self.nodes.values() if node.raft.leads and node.own.id not in self.cut]
        assert leaders, [(node.raft.role, node.raft.term) for node in self.nodes.values()]
        return max(leaders, key=lambda node: node.raft.term)
