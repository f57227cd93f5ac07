"""One node of the fuzzed group: an engine, a log in memory that completes late, and a database of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hiqlite.engine.model import (
    AppendKind,
    AppendRequest,
    Identity,
    LogReset,
    Membership,
    Ready,
    Repair,
    RepairReply,
    Restored,
    TermRun,
    Truncate,
)
from hiqlite.engine.raft import Raft

if TYPE_CHECKING:
    from tests.engine.fuzz_group import FuzzGroup

Entry = tuple[int, Any]  # (term, value); a Membership is the value of a membership entry
LOST_TERM = -1


@dataclass
class Trail:
    """Entries behind a base."""

    base: int = 0
    base_term: int = 0
    entries: list[Entry] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.base + len(self.entries)

    def at(self, index: int) -> Entry:
        return self.entries[index - self.base - 1]

    def term(self, index: int) -> int:
        return self.base_term if index == self.base else self.at(index)[0]

    def part(self, first: int, last: int) -> list[Entry]:
        assert first > self.base and last <= self.last, (first, last, self.base, self.last)
        return self.entries[first - self.base - 1 : last - self.base]

    def cut(self, last_kept: int) -> None:
        del self.entries[max(last_kept - self.base, 0) :]

    def reset(self, base: int, term: int) -> None:
        self.base, self.base_term, self.entries = base, term, []

    def compact(self, index: int) -> None:
        term = self.term(index)
        del self.entries[: index - self.base]
        self.base, self.base_term = index, term

    def put(self, first: int, entries: list[Entry]) -> None:
        at = first - self.base - 1
        self.entries[at : at + len(entries)] = entries

    def runs(self) -> tuple[TermRun, ...]:
        found: list[TermRun] = []
        for index in range(self.base + 1, self.last + 1):
            term = self.at(index)[0]
            if found and found[-1].term == term:
                found[-1] = TermRun(term, found[-1].first, index)
            else:
                found.append(TermRun(term, index, index))
        return tuple(found)

    def copy(self) -> Trail:
        return Trail(self.base, self.base_term, list(self.entries))


class Member:
    """A process and its disk; survives crashes as the disk does."""

    def __init__(self, group: FuzzGroup, identity: Identity, membership: Membership) -> None:
        self.group = group
        self.identity = identity
        self.id = identity.id
        self.disk = Trail()
        self.term, self.vote = 0, None
        self.stored = membership  # in force at the disk's base
        self.database: list[Any] = [None]  # applied values by index; an image replaces it
        self.database_terms: list[int] = [0]
        self.lost: list[tuple[int, int, bool]] = []  # damaged on disk: (first, last, term lost too)
        self.io = 0
        self.up = False
        self.life = 0

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        assert not self.up
        self.up = True
        self.life += 1
        applied = len(self.database) - 1
        runs, unknown = self.recovered()
        self.raft = Raft(
            self.identity,
            self.group.settings,
            Restored(
                self.term, self.vote, self.stored, runs, self.disk.base, self.disk.base_term, applied,
                self.database_terms[applied], self.io, tuple((a, b) for a, b, lost in self.lost if not lost), unknown,
                tuple(value for _, value in self.disk.entries if isinstance(value, Membership)),
            ),
            self.group.now,
            self.group.random.getrandbits(40),
        )  # fmt: skip
        self.memory = self.disk.copy()
        lost = any(first <= applied <= last for first, last, _ in self.lost)
        other = applied <= self.disk.last and not lost and self.disk.term(applied) != self.database_terms[-1]
        if applied > self.disk.last or other:
            self.memory.reset(applied, self.database_terms[applied])
            self.disk = self.memory.copy()
            self.lost = []
        self.pending: list[Any] = []
        self.written = self.synced = self.io
        self.body: list[Entry] = []
        self.body_first = 0
        self.was_leader = False
        self.installing = 0
        self.commit_seen = applied
        self.raft.window_starts_at(self.raft.last_index + 1)

    def recovered(self) -> tuple[tuple[TermRun, ...], tuple[tuple[int, int], ...]]:
        """The trail as a recovery sees it: where a term is lost, the highest it can have been."""
        seen = self.disk.copy()
        unknown = tuple((first, last) for first, last, lost in self.lost if lost)
        for first, last in unknown:
            bound = seen.term(last + 1) if last < seen.last else self.term
            seen.put(first, [(bound, None)] * (last - first + 1))
        return seen.runs(), unknown

    def crash(self, power_loss: bool) -> None:
        self.up = False
        kept = self.group.random.randint(0, len(self.pending)) if power_loss else len(self.pending)
        for operation in self.pending[:kept]:
            if power_loss or operation[0] <= self.written:
                self.make_durable(operation)
        self.io = self.raft.state.outbox.io_sequence
        if power_loss:  # the database was made durable up to what the log has synced, and no further
            low = max(self.disk.base, min(len(self.database) - 1, self.disk.last))
            del self.database[low + 1 :], self.database_terms[low + 1 :]
        self.pending = []

    # ------------------------------------------------------------------ disk

    def make_durable(self, operation: Any) -> None:
        _, write, extra = operation
        if isinstance(write, Truncate):
            self.disk.cut(write.last_kept)
            self.lost = [one for one in self.lost if one[1] <= write.last_kept]
        elif isinstance(write, LogReset):
            self.disk.reset(write.base_index, write.base_term)
            self.stored = extra
            self.lost = []
        elif isinstance(write, Repair):
            purged = max(self.disk.base + 1 - write.first, 0)  # since it was asked for
            self.disk.put(write.first + purged, extra[purged:])
            self.lost = self.group.without(self.lost, write.first, write.last)
        elif hasattr(write, "vote"):
            self.term, self.vote = write.term, write.vote
        else:
            assert write.first == self.disk.last + 1, "the log has no gap"
            self.disk.put(write.first, extra)

    def advance_disk(self, write: int, sync: int) -> None:
        """So many operations are written, so many of those are synced."""
        random_write = [operation[0] for operation in self.pending][:write]
        if random_write:
            self.written = max(self.written, random_write[-1])
        done = [operation for operation in self.pending[:sync] if operation[0] <= self.written]
        for operation in done:
            self.make_durable(operation)
            self.synced = operation[0]
        del self.pending[: len(done)]
        self.raft.log_progress(self.written, self.synced, self.group.now)
        self.turn()

    # ------------------------------------------------------------------ the crank

    def turn(self) -> None:
        while self.raft.has_ready():
            self.do(self.raft.ready())
        self.body = []
        self.group.checks.stepped(self)

    def do(self, ready: Ready) -> None:
        group = self.group
        assert not ready.fatal, (self.identity, ready.fatal)
        assert not (ready.truncate and ready.reset)
        if ready.hard_state:
            self.pending.append((ready.hard_state.io_sequence, ready.hard_state, None))
        if ready.truncate:
            self.memory.cut(ready.truncate.last_kept)
            self.pending.append((ready.truncate.io_sequence, ready.truncate, None))
        if ready.reset:
            self.memory.reset(ready.reset.base_index, ready.reset.base_term)
            self.pending.append((ready.reset.io_sequence, ready.reset, self.image_membership))
        for append in ready.appends:
            if append.kind is AppendKind.NOOP:
                self.memory.put(append.first, [(append.term, 0)])
            elif append.kind is AppendKind.MEMBERSHIP:
                assert append.membership is not None and append.membership.index == append.first
                group.checks.changed(self)
                self.memory.put(append.first, [(append.term, append.membership)])
            elif append.kind is AppendKind.RECEIVED:
                self.memory.put(append.first, self.taken(append.first, append.last))
            entries = self.memory.part(append.first, append.last)
            assert entries[-1][0] == append.term
            group.checks.wrote(self, append.first, entries)
            self.pending.append((append.io_sequence, append, entries))
        for repair in ready.repairs:
            entries = self.taken(repair.first, repair.last)
            self.memory.put(repair.first, entries)
            group.checks.wrote(self, repair.first, entries)
            self.pending.append((repair.io_sequence, repair, entries))
        group.checks.committed(self)
        for send in ready.sends:
            body: list[Entry] = []
            if isinstance(send.message, AppendRequest):
                body = self.memory.part(send.message.previous_index + 1, send.message.last_index)
            elif isinstance(send.message, RepairReply):
                if send.message.first <= self.memory.base:
                    continue  # it waited for a hard state, and was purged meanwhile
                body = self.memory.part(send.message.first, send.message.last)
            group.send(self, send.peer_id, send.message, body)
        for fetch in ready.fetches:
            group.later(self, "fetch", fetch)
        for image in ready.images:
            group.later(self, "image", image)
        if ready.apply:
            first, last = ready.apply
            assert first == len(self.database), "applied in order, once"
            for entry in self.memory.part(first, last):
                self.database.append(entry[1])
                self.database_terms.append(entry[0])
            group.checks.applied(self, first, last)
            self.raft.applied(last)

    def taken(self, first: int, last: int) -> list[Entry]:
        at = first - self.body_first
        entries = self.body[at : at + last - first + 1]
        assert at >= 0 and len(entries) == last - first + 1, "the bytes came with the message"
        return entries
