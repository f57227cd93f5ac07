"""One node of a scenario: the real engine, and the runtime's part of its contract done at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from hiqlite.config import RaftSettings
from hiqlite.engine.model import (
    Append,
    AppendKind,
    AppendRequest,
    Identity,
    Membership,
    Message,
    Ready,
    RepairReply,
    Restored,
    Role,
)
from hiqlite.engine.raft import Raft

from .scenario_disk import Disk, Entry
from .scenario_words import name, span, told_members, told_role

SETTINGS = RaftSettings()


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message on its way, and the entries that travel beside it."""

    source: Identity
    target: int
    message: Message
    entries: tuple[Entry, ...] = ()


@dataclass(slots=True)
class Image:
    """A database as of (index, term), in which `membership` was in force."""

    index: int
    term: int
    membership: Membership
    applied: list[Entry] = field(default_factory=list)


class Surroundings(Protocol):
    """What a node needs of the scenario around it."""

    now: int

    def tell(self, kind: str, text: str) -> None: ...
    def post(self, node: Node, parcel: Parcel) -> None: ...
    def seen(self, node: Node) -> None: ...
    def confirmed(self, node: Node, token: int, read_index: int) -> None: ...


class Node:
    """The engine with its disk and its database; `database` holds what was applied, from index 1 on."""

    def __init__(
        self, world: Surroundings, own: Identity, disk: Disk, database: list[Entry], faulty: tuple[tuple[int, int], ...]
    ) -> None:
        self.world = world
        self.own = own
        self.disk = disk
        self.database = database
        self.dead = False
        self.wrote = disk.io  # up to which io sequence the disk said that it wrote
        self.received: dict[int, Entry] = {}
        self.proposed: dict[int, Entry] = {}
        self.install: Image | None = None
        self.image_sent: dict[int, Image] = {}
        kept = disk.durable
        base_term = database[-1].term if database else 0
        restored = Restored(
            kept.term, kept.vote, kept.membership, kept.runs(), kept.base_index, kept.base_term,
            len(database), base_term, disk.io, faulty,
            memberships=tuple(entry.membership for entry in kept.entries if entry.membership),
        )  # fmt: skip
        self.raft = Raft(own, SETTINGS, restored, world.now, own.incarnation)
        self.known_role: tuple[Role, int, int] = (self.raft.role, self.raft.term, 0)
        self.known_commit = self.raft.commit_index
        self.known_membership = self.raft.membership
        if self.raft.base_index != kept.base_index:  # the engine begins an empty log there, and so does the runtime
            for stored in (disk.written, disk.durable):
                stored.membership = stored.membership_at(stored.last_index)
                stored.base_index, stored.base_term, stored.entries = self.raft.base_index, base_term, []

    def entry(self, index: int) -> Entry:
        entry = self.disk.written.entry(index)
        assert entry is not None, f"node {name(self.own)} has no entry {index}"
        return entry

    def deliver(self, parcel: Parcel) -> None:
        """Step a message; its entries are at hand until the engine said what to do with them."""
        message = parcel.message
        first = 0
        if isinstance(message, AppendRequest):
            first = message.previous_index + 1
        elif isinstance(message, RepairReply):
            first = message.first
        self.received = dict(enumerate(parcel.entries, first))
        self.raft.receive(message, self.world.now)

    def pump(self) -> bool:
        """Do what the engine asks for until it asks for nothing; whether it did."""
        busy = False
        while not self.dead:
            if self.raft.has_ready():
                busy = True
                self.perform(self.raft.ready())
            elif self.disk.waiting and not self.disk.held:
                self.sync(self.disk.io)
            else:
                break
        return busy

    def sync(self, upto: int) -> None:
        """The disk reports everything up to an io sequence as durable."""
        self.disk.sync(upto)
        self.report(upto, upto)

    def report(self, wrote: int, synced: int) -> None:
        """The disk says how far it is."""
        self.wrote = max(self.wrote, wrote)
        self.raft.log_progress(self.wrote, synced, self.world.now)

    def perform(self, ready: Ready) -> None:
        """The fields of a Ready, in their order."""
        if ready.fatal:
            self.dead = True
            self.world.tell("event", f"{name(self.own)} stops: {ready.fatal}")
            return
        before = self.disk.io
        self._write(ready)
        self._tell_changes(ready)
        for send in ready.sends:
            self.world.post(self, Parcel(self.own, send.peer_id, send.message, self._beside(send.message)))
        if self.disk.io > before and not self.disk.held:  # written, not durable
            self.report(self.disk.io, self.raft.state.outbox.synced_io)
        for fetch in ready.fetches:
            last = min(fetch.first + 9, self.disk.written.last_index)
            self.raft.entries_fetched(fetch.peer_id, fetch.first, last, 1000, self.world.now)
        if ready.apply:
            self._apply(*ready.apply)
        for read in ready.reads:
            self.world.tell("event", f"{name(self.own)} may answer read {read.token} at {read.read_index}")
            self.world.confirmed(self, read.token, read.read_index)
        for token in ready.failed_reads:
            self.world.tell("event", f"{name(self.own)} fails read {token}")
        if ready.lost_from:
            self.world.tell("event", f"{name(self.own)} cannot tell what became of {ready.lost_from} and on")
        for image in ready.images:
            resumed = f", going on with {image.resume_index}" if image.resume_index else ""
            self.world.tell("event", f"{name(self.own)} wants node {image.peer_id} to have an image{resumed}")
        self.world.seen(self)

    def _write(self, ready: Ready) -> None:
        own, tell = name(self.own), self.world.tell
        if ready.hard_state:
            self.disk.write(ready.hard_state, [])
            vote = name(ready.hard_state.vote) if ready.hard_state.vote else "nobody"
            tell("disk", f"{own} writes term {ready.hard_state.term}, vote for {vote} (io {self.disk.io})")
        if ready.truncate:
            self.disk.write(ready.truncate, [])
            tell("event", f"{own} cuts its log behind {ready.truncate.last_kept} (io {self.disk.io})")
        if ready.reset:
            assert self.install is not None, "only an image makes a log begin anew"
            self.disk.write(ready.reset, [], self.install.membership)
            tell("event", f"{own} begins an empty log behind {ready.reset.base_index}/{ready.reset.base_term}")
        for append in ready.appends:
            self.disk.write(append, [self._made(append, index) for index in range(append.first, append.last + 1)])
            tell("disk", f"{own} writes {span(append.first, append.last)}/{append.term} (io {self.disk.io})")
        for repair in ready.repairs:
            self.disk.write(repair, [self.received[index] for index in range(repair.first, repair.last + 1)])
            tell("event", f"{own} repairs {span(repair.first, repair.last)}")

    def _made(self, append: Append, index: int) -> Entry:
        """The entry at an index of an append, from where its bytes are."""
        if append.kind is AppendKind.RECEIVED:
            entry = self.received[index]
        elif append.kind is AppendKind.PROPOSED:
            entry = self.proposed.pop(index)
        elif append.kind is AppendKind.NOOP:
            entry = Entry(append.term, f"no-op of {name(self.own)} in term {append.term}")
        else:
            assert append.membership is not None and append.membership.index == index
            entry = Entry(append.term, told_members(append.membership), append.membership)
        assert entry.term == self.raft.term_at(index), "bytes and trail say the same term"
        return entry

    def _beside(self, message: Message) -> tuple[Entry, ...]:
        if isinstance(message, AppendRequest):
            return tuple(self.entry(index) for index in range(message.previous_index + 1, message.last_index + 1))
        if isinstance(message, RepairReply):
            return tuple(self.entry(index) for index in range(message.first, message.last + 1))
        return ()

    def _apply(self, first: int, last: int) -> None:
        assert first == len(self.database) + 1, "applied in order"
        assert max(self.disk.io_of(index) for index in range(first, last + 1)) <= self.wrote, "applied before written"
        self.database += [self.entry(index) for index in range(first, last + 1)]
        self.raft.applied(last)
        self.world.tell("apply", f"{name(self.own)} applies {span(first, last)}")

    def _tell_changes(self, ready: Ready) -> None:
        raft, own, tell = self.raft, name(self.own), self.world.tell
        role = (raft.role, raft.term, raft.leader_id)
        if role != self.known_role:
            self.known_role = role
            tell("event", f"{own} is {told_role(raft.role, raft.leader_id)} in term {raft.term}")
        if ready.membership and ready.membership != self.known_membership:
            self.known_membership = ready.membership
            tell("event", f"{own} goes by {told_members(ready.membership)} (of {ready.membership.index})")
        if raft.commit_index > self.known_commit:
            self.known_commit = raft.commit_index
            tell("event", f"{own} knows {raft.commit_index} committed")

    def image(self) -> Image:
        """The database as it is now."""
        index = len(self.database)
        term = self.database[-1].term if self.database else 0
        return Image(index, term, self.disk.written.membership_at(index), list(self.database))


def told_state(node: Node) -> str:
    """One line: role, term, vote, log, commit, applied."""
    raft, log = node.raft, node.disk.written
    vote = f" vote {name(raft.vote)}" if raft.vote else ""
    runs = " ".join(f"{span(run.first, run.last)}/{run.term}" for run in log.runs()) or "empty"
    base = f" behind {log.base_index}/{log.base_term}" if log.base_index else ""
    faulty = "".join(f" faulty {span(*one)}" for one in raft.faulty)
    return (
        f"{name(node.own)}: {'stopped, ' if node.dead else ''}{told_role(raft.role, raft.leader_id)}, "
        f"term {raft.term}{vote}, log {runs}{base}{faulty}, commit {raft.commit_index}, applied {len(node.database)}"
    )
