"""A simulated log: writes complete late and in order, a flush makes them durable, a power loss forgets the rest.

Keeps what the engine asked to be written as plain lists, so that invariants can look at what is really durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from hiqlite.engine.model import Membership, Restored, TermRun

from .content import Content, Operation
from .database import Database
from .profile import Profile
from .world import World


class Disk(Content):
    """The durable part of one incarnation; it outlives the process."""

    def __init__(self, world: World, profile: Profile, owner: int) -> None:
        super().__init__()
        self.world = world
        self.profile = profile
        self.forgot: set[tuple[int, int]] = set()  # (index, term) that were promised on its word and are gone
        self.lost = ""  # why nothing of it can be trusted any more
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
        self.full = False  # no room ahead: new work is to be refused
        self.no_room = False  # nor for what was taken already: it waits
        self.held_up = False  # a batch does
        self.failing = ""  # what fails next, of "written" and "synced"
        self.failure = ""  # why nothing is written any more, as the log reports it
        self.failed_io = 0  # what failed may be on disk up to here
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
        if self.no_room:
            self.held_up = True
            return
        delay = 1 + int(world.chance() * self.profile.disk_ns)
        if world.now_ns < self.stalled_until_ns:
            delay += self.stalled_until_ns - world.now_ns
        elif self.profile.disk_stall and not self.calm and world.chance() < self.profile.disk_stall:
            delay += world.below(1_500_000_000)
        world.after(delay // 3, self._written, self.life, self.io_sequence)
        if world.now_ns < self.slow_sync_until_ns:
            delay += world.below(self.slow_sync_until_ns - world.now_ns)
        world.after(delay, self._synced, self.life, self.io_sequence)

    def fill(self, wait: bool) -> None:
        """No space ahead; `wait`: what was taken already has none either. It is no failure: all goes on with room."""
        self.full, self.no_room = True, wait
        self.world.note(f"the disk of node {self.owner} is full{', writes wait' if wait else ''}")
        self.on_progress()

    def make_room(self) -> None:
        if self.full:
            self.full = self.no_room = False
            self.world.note(f"the disk of node {self.owner} has room again")
            if self.held_up:
                self.held_up = False
                self._begin()
            self.on_progress()

    def _fails(self, moment: str, io: int) -> bool:
        """Whether the log has failed, now or before: nothing of that write is told as done, nothing is tried again."""
        if not self.failure and moment == self.failing:
            self.failure, self.failed_io = f"its log failed, {io} is not {moment}", io
            self.on_progress()
        return self.failure != ""

    def _written(self, life: int, io: int) -> None:
        if life != self.life or (self.failing and self._fails("written", io)):
            return
        self.written_io = io
        for operation in self.pending:  # cuts that are still to come limit what counts as written
            kind = operation[1]
            if kind == "append":
                if operation[0] <= io:
                    self.written_last = operation[2] + len(operation[3]) - 1
            elif kind == "cut":
                self.written_last = min(self.written_last, operation[2])
            elif kind == "reset":
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
            self.apply(self.pending.popleft())

    def _trapped(self, moment: str) -> bool:
        trap = self.trap
        if trap is None or self.world.chance() < 0.7:
            return False
        self.trap = None
        return trap(self.owner, moment)

    def _synced(self, life: int, io: int) -> None:
        if life != self.life or (self.failing and self._fails("synced", io)):
            return
        while self.pending and self.pending[0][0] <= io:
            self.apply(self.pending.popleft())
        self.synced_io = io
        if self.trap is not None and self._trapped("synced"):
            return
        self.busy = False
        self.waiting_since_ns = 0
        if self.pending:
            self._begin()
        self.on_progress()

    def damage(self, indexes: Iterable[int], deep: bool) -> None:
        """These entries cannot be read any more; `deep`: even their terms are lost."""
        self.faulty.update(indexes)
        if deep:
            self.unknown.update(indexes)
        self.world.note(f"entries {sorted(self.faulty)} of node {self.owner} are damaged, unknown {self.unknown}")

    def crash(self, power_loss: bool) -> None:
        """The process is gone. What was handed to the kernel survives a kill; a power loss keeps a prefix of it.

        So does a failure: what became of a write or a flush that failed nobody knows.
        """
        reached = max(self.written_io, self.failed_io)
        kept = [operation for operation in self.pending if operation[0] <= reached]
        if power_loss or self.failure:
            kept = kept[: self.world.below(len(kept) + 1)]
        for operation in kept:
            self.apply(operation)
        self.pending.clear()
        self.end()

    def end(self) -> None:
        """Nothing is under way any more; what the log reported went with its process."""
        self.busy = self.held_up = False
        self.failing = self.failure = ""
        self.waiting_since_ns = self.failed_io = 0
        self.life += 1

    def restore(self, database: Database, memberships: dict[int, Membership]) -> Restored:
        """What recovery finds; a database ahead of the log becomes the base of an empty log (semantics.md 3).

        So does one whose entry the log does not hold: an image was installed, and the log's end not yet durable.
        """
        restored = self.told(database, memberships)
        if self.lacks(database):
            self.begin_behind(database.applied, database.terms, database.values)
        self.go_on()
        return restored

    def go_on(self) -> None:
        """A process begins to write."""
        self.written_io = self.synced_io = self.io_sequence
        self.written_last = len(self.terms) - 1

    def lacks(self, database: Database) -> bool:
        """Whether the log does not hold what is applied."""
        last, applied = len(self.terms) - 1, database.applied
        other = self.base < applied <= last and applied not in self.unknown
        return applied > last or (other and self.terms[applied] != database.terms[applied])

    def told(self, database: Database, memberships: dict[int, Membership]) -> Restored:
        """What the engine is told of this log."""
        applied = database.applied
        entries = enumerate(self.values[self.base + 1 :], start=self.base + 1)
        held = [memberships[value] for index, value in entries if value in memberships and index not in self.faulty]
        unknown = _ranges(self.unknown)
        return Restored(
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
