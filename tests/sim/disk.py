"""A simulated log: writes complete late and in order, a flush makes them durable, a power loss forgets the rest.

Keeps what the engine asked to be written as plain lists, so that invariants can look at what is really durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from hiqlite.engine.model import Identity, Membership, Restored, TermRun

from .database import Database
from .profile import Profile
from .world import World

Operation = tuple[int, str, Any, Any, Any]


class Disk:
    """The durable part of one incarnation; it outlives the process."""

    def __init__(self, world: World, profile: Profile, owner: int) -> None:
        self.world = world
        self.profile = profile
        self.term = 0
        self.vote: Identity | None = None
        self.votes: dict[int, Identity | None] = {}  # by term, as last durable in it
        self.base = 0  # entries up to here are purged: they are in the database only
        self.terms: list[int] = [0]  # durable terms by index; up to the base they are kept for the invariants alone
        self.values: list[int] = [0]
        self.faulty: set[int] = set()  # entries that are damaged; the lists still tell what they were
        self.unknown: set[int] = set()  # those of them whose term is lost as well
        self.io_sequence = 0
        self.pending: deque[Operation] = deque()
        self.written_io = 0
        self.synced_io = 0
        self.written_last = 0  # highest index in a contiguous written log
        self.busy = False
        self.waiting_since_ns = 0  # since when work waits without any progress
        self.life = 0
        self.stalled_until_ns = 0
        self.slow_sync_until_ns = 0  # what is written becomes durable only then
        self.calm = False  # no stalls of its own any more
        self.trap: Callable[[int, str], bool] | None = None  # a nemesis that waits for a completion
        self.owner = owner
        self.on_progress: Callable[[], None] = lambda: None

    def push(self, operation: Operation) -> None:
        """Accept a write; it reaches the disk by and by."""
        if operation[0] != self.io_sequence + 1:
            raise AssertionError(f"io sequence {operation[0]} after {self.io_sequence}")
        self.io_sequence = operation[0]
        if operation[1] == "cut":
            self.written_last = min(self.written_last, operation[2])
        elif operation[1] == "reset":
            self.written_last = operation[2]
        self.pending.append(operation)
        if not self.busy:
            self._begin()

    def _begin(self) -> None:
        world = self.world
        self.busy = True
        self.waiting_since_ns = world.now_ns
        delay = 1 + world.below(self.profile.disk_ns)
        if world.now_ns < self.stalled_until_ns:
            delay += self.stalled_until_ns - world.now_ns
        elif self.profile.disk_stall and not self.calm and world.chance() < self.profile.disk_stall:
            delay += world.below(1_500_000_000)
        world.after(delay // 3, self._written, self.life, self.io_sequence)
        if world.now_ns < self.slow_sync_until_ns:
            delay += world.below(self.slow_sync_until_ns - world.now_ns)
        world.after(delay, self._synced, self.life, self.io_sequence)

    def _written(self, life: int, io: int) -> None:
        if life != self.life:
            return
        self.written_io = io
        for operation in self.pending:
            if operation[0] > io:
                break
            if operation[1] == "append":
                self.written_last = operation[2] + len(operation[3]) - 1
            elif operation[1] == "cut":
                self.written_last = min(self.written_last, operation[2])
            elif operation[1] == "reset":
                self.written_last = operation[2]
        for operation in self.pending:  # cuts that are still to come limit what counts as written
            if operation[0] > io and operation[1] == "cut":
                self.written_last = min(self.written_last, operation[2])
            elif operation[0] > io and operation[1] == "reset":
                self.written_last = operation[2]
        if self.profile.weak_sync:
            self._promise_on_its_word()
        if self.trap is not None and self._trapped("written"):
            return
        self.on_progress()

    def _promise_on_its_word(self) -> None:
        """`log_sync` is weak: what is written counts as durable, but never a term or a vote (docs/durability.md).

        Nothing but a loss of power takes it, and that is more than these modes promise to bear together with others.
        """
        while self.pending and self.pending[0][0] <= self.written_io and self.pending[0][1] != "state":
            self.synced_io = self.pending[0][0]
            self._make_durable(self.pending.popleft())

    def _trapped(self, moment: str) -> bool:
        trap = self.trap
        if trap is None or self.world.chance() < 0.7:
            return False
        self.trap = None
        return trap(self.owner, moment)

    def _synced(self, life: int, io: int) -> None:
        if life != self.life:
            return
        while self.pending and self.pending[0][0] <= io:
            self._make_durable(self.pending.popleft())
        self.synced_io = io
        if self.trap is not None and self._trapped("synced"):
            return
        self.busy = False
        self.waiting_since_ns = 0
        if self.pending:
            self._begin()
        self.on_progress()

    def _make_durable(self, operation: Operation) -> None:
        _, kind, first, second, third = operation
        if kind == "append":
            if first != len(self.terms):
                raise AssertionError(f"append at {first}, the log ends at {len(self.terms) - 1}")
            self.terms.extend(second)
            self.values.extend(third)
        elif kind == "cut":
            del self.terms[first + 1 :]
            del self.values[first + 1 :]
            self.faulty = {index for index in self.faulty if index <= first}
            self.unknown &= self.faulty
        elif kind == "reset":
            self.begin_behind(first, second, third)
        elif kind == "repair":
            last = first + len(second) - 1
            self.terms[first : last + 1] = second
            self.values[first : last + 1] = third
            self.faulty -= set(range(first, last + 1))
            self.unknown &= self.faulty
        else:
            self.term, self.vote = first, second
            self.votes[first] = second

    def begin_behind(self, index: int, terms: list[int], values: list[int]) -> None:
        """An empty log behind a database that holds everything up to `index`."""
        self.base = index
        self.terms, self.values = list(terms[: index + 1]), list(values[: index + 1])
        self.faulty.clear()
        self.unknown.clear()

    def damage(self, indexes: Iterable[int], deep: bool) -> None:
        """These entries cannot be read any more; `deep`: even their terms are lost."""
        self.faulty.update(indexes)
        if deep:
            self.unknown.update(indexes)
        self.world.note(f"entries {sorted(self.faulty)} of node {self.owner} are damaged, unknown {self.unknown}")

    def purge(self, index: int) -> None:
        """Forget entries up to `index`; never waited for."""
        self.base = index
        self.faulty = {one for one in self.faulty if one > index}
        self.unknown &= self.faulty

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is durable here."""
        return index < len(self.terms) and self.terms[index] == term

    def crash(self, power_loss: bool) -> None:
        """The process is gone. What was handed to the kernel survives a kill; a power loss keeps a prefix of it."""
        kept = [operation for operation in self.pending if operation[0] <= self.written_io]
        if power_loss:
            kept = kept[: self.world.below(len(kept) + 1)]
        for operation in kept:
            self._make_durable(operation)
        self.pending.clear()
        self.busy = False
        self.waiting_since_ns = 0
        self.life += 1

    def restore(self, database: Database, memberships: dict[int, Membership]) -> Restored:
        """What recovery finds; a database ahead of the log becomes the base of an empty log (semantics.md 3).

        So does one whose entry the log does not hold: an image was installed, and the log's end not yet durable.
        """
        last, applied = len(self.terms) - 1, database.applied
        entries = enumerate(self.values[self.base + 1 :], start=self.base + 1)
        held = [memberships[value] for index, value in entries if value in memberships and index not in self.faulty]
        unknown = _ranges(self.unknown)
        restored = Restored(
            term=self.term,
            vote=self.vote,
            membership=database.recorded,
            runs=_runs(self._terms_as_found(unknown), self.base),
            base_index=self.base,
            base_term=self.terms[self.base],
            applied_index=applied,
            applied_term=database.terms[applied],
            io_sequence=self.io_sequence,
            faulty=_ranges(self.faulty - self.unknown),
            unknown=unknown,
            memberships=tuple(one for one in held if one.index > database.recorded.index),
        )
        other = self.base < applied <= last and applied not in self.unknown
        if applied > last or (other and self.terms[applied] != database.terms[applied]):
            self.begin_behind(applied, database.terms, database.values)
        self.written_io = self.synced_io = self.io_sequence
        self.written_last = len(self.terms) - 1
        return restored

    def _terms_as_found(self, unknown: tuple[tuple[int, int], ...]) -> list[int]:
        """Where a term is lost, the highest that it can have been: that of the next record, or the hard state's."""
        if not unknown:
            return self.terms
        terms = list(self.terms)
        for low, high in reversed(unknown):
            bound = terms[high + 1] if high + 1 < len(terms) else self.term
            terms[low : high + 1] = [bound] * (high + 1 - low)
        return terms


def _runs(terms: list[int], base: int) -> tuple[TermRun, ...]:
    runs: list[TermRun] = []
    index, last = base + 1, len(terms) - 1
    while index <= last:
        term = terms[index]
        end = index
        while end < last and terms[end + 1] == term:
            end += 1
        runs.append(TermRun(term, index, end))
        index = end + 1
    return tuple(runs)


def _ranges(indexes: set[int]) -> tuple[tuple[int, int], ...]:
    """Closed ranges, ascending and as long as possible."""
    found: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if found and found[-1][1] + 1 == index:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return tuple(found)
