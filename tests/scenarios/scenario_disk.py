"""What a node of a scenario keeps: its log on a disk that completes late, and its database."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass, field

from hiqlite.engine.model import Append, HardStateWrite, Identity, LogReset, Membership, Repair, TermRun, Truncate

Write = HardStateWrite | Truncate | LogReset | Append | Repair


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry and what it says; no two proposals say the same."""

    term: int
    text: str
    membership: Membership | None = None


@dataclass(slots=True)
class Stored:
    """Hard state and log. `membership` was in force at the base."""

    membership: Membership
    term: int = 0
    vote: Identity | None = None
    base_index: int = 0
    base_term: int = 0
    entries: list[Entry] = field(default_factory=list)

    @property
    def last_index(self) -> int:
        return self.base_index + len(self.entries)

    def entry(self, index: int) -> Entry | None:
        """The entry at an index that lies in the log."""
        return self.entries[index - self.base_index - 1] if self.base_index < index <= self.last_index else None

    def holds(self, index: int, entry: Entry) -> bool:
        """Whether the entry is here, or is gone behind the base, where everything is applied."""
        return index <= self.base_index or self.entry(index) == entry

    def membership_at(self, index: int) -> Membership:
        """The configuration in force at an index of the log."""
        upto = self.entries[: max(index - self.base_index, 0)]
        return next((entry.membership for entry in reversed(upto) if entry.membership), self.membership)

    def runs(self) -> tuple[TermRun, ...]:
        """The trail of terms."""
        runs: list[TermRun] = []
        for index, entry in enumerate(self.entries, self.base_index + 1):
            first = runs.pop().first if runs and runs[-1].term == entry.term else index
            runs.append(TermRun(entry.term, first, index))
        return tuple(runs)

    def take(self, write: Write, entries: list[Entry], membership: Membership | None) -> None:
        """Do what the engine asked for."""
        if isinstance(write, HardStateWrite):
            self.term, self.vote = write.term, write.vote
        elif isinstance(write, Truncate):
            del self.entries[write.last_kept - self.base_index :]
        elif isinstance(write, LogReset):
            assert membership is not None, "an image says its members"
            self.base_index, self.base_term, self.membership = write.base_index, write.base_term, membership
            self.entries = []
        else:
            assert write.first <= self.last_index + 1, "a log has no gap"
            place = write.first - self.base_index - 1
            if isinstance(write, Append):
                assert place == len(self.entries), "an append goes behind the log"
            self.entries[place : place + len(entries)] = entries

    def purge(self, index: int) -> None:
        """Entries up to an index are gone."""
        self.membership = self.membership_at(index)
        gone = self.entries[index - self.base_index - 1]
        del self.entries[: index - self.base_index]
        self.base_index, self.base_term = index, gone.term


class Disk:
    """`written` is what the process sees, `durable` what a loss of power leaves; writes complete in order."""

    def __init__(self, stored: Stored) -> None:
        self.durable = stored
        self.written = copy.deepcopy(stored)
        self.waiting: deque[tuple[Write, list[Entry], Membership | None]] = deque()
        self.io = 0
        self.places: dict[int, int] = {}  # index -> io sequence of the write that put an entry there last
        self.held = False

    def write(self, write: Write, entries: list[Entry], membership: Membership | None = None) -> None:
        """Take a write; it becomes durable when `sync` says so."""
        assert write.io_sequence == self.io + 1, "io sequences ascend by one"
        self.io += 1
        self.written.take(write, entries, membership)
        if isinstance(write, Append | Repair):
            self.places.update(dict.fromkeys(range(write.first, write.last + 1), self.io))
        self.waiting.append((write, entries, membership))

    def io_of(self, index: int) -> int:
        """Which write put the entry there that stands there now; 0: it was there at the start."""
        return self.places.get(index, 0)

    def sync(self, upto: int) -> None:
        """Everything up to an io sequence is durable."""
        while self.waiting and self.waiting[0][0].io_sequence <= upto:
            self.durable.take(*self.waiting.popleft())

    def restart(self) -> Disk:
        """The disk as the next life of the process finds it."""
        return Disk(copy.deepcopy(self.durable))

    def purge(self, index: int) -> None:
        """Entries up to an index, all durable, are gone."""
        self.written.purge(index)
        self.durable.purge(index)
