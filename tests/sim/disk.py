"""A simulated log: writes complete late and in order, a flush makes them durable, a power loss forgets the rest.

Keeps what the engine asked to be written as plain lists, so that invariants can look at what is really durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hiqlite.engine.model import Identity, Restored, TermRun

from .profile import Profile
from .world import World

Operation = tuple[int, str, Any, Any, Any]


class Disk:
    """The durable part of one incarnation; it outlives the process."""

    def __init__(self, world: World, profile: Profile) -> None:
        self.world = world
        self.profile = profile
        self.term = 0
        self.vote: Identity | None = None
        self.base = 0  # entries up to here are in the database only
        self.terms: list[int] = [0]  # durable terms by index; below the base they are those of the database
        self.values: list[int] = [0]
        self.faulty: set[int] = set()  # entries whose payload is damaged
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
        self.trap: Callable[[int, str], bool] | None = None  # a nemesis that waits for a completion
        self.owner = 0
        self.on_progress: Callable[[], None] = lambda: None

    def push(self, operation: Operation) -> None:
        """Accept a write; it reaches the disk by and by."""
        if operation[0] != self.io_sequence + 1:
            raise AssertionError(f"io sequence {operation[0]} after {self.io_sequence}")
        self.io_sequence = operation[0]
        if operation[1] == "cut":
            self.written_last = min(self.written_last, operation[2])
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
        elif self.profile.disk_stall and world.chance() < self.profile.disk_stall:
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
        for operation in self.pending:  # cuts that are still to come limit what counts as written
            if operation[0] > io and operation[1] == "cut":
                self.written_last = min(self.written_last, operation[2])
        if self.trap is not None and self._trapped("written"):
            return
        self.on_progress()

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
        else:
            self.term, self.vote = first, second

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

    def restore(self, membership: Any, applied: int, truth_terms: list[int], truth_values: list[int]) -> Restored:
        """What recovery finds; a database ahead of the log becomes the base of an empty log (semantics.md 3)."""
        last = len(self.terms) - 1
        base, base_term = self.base, self.terms[self.base]
        runs: list[TermRun] = []
        index = self.base + 1
        while index <= last:
            term = self.terms[index]
            end = index
            while end < last and self.terms[end + 1] == term:
                end += 1
            runs.append(TermRun(term, index, end))
            index = end + 1
        faulty = tuple((index, index) for index in sorted(self.faulty))
        if applied > last:
            self.faulty.clear()
            faulty = ()
            self.base = last = applied
            self.terms = truth_terms[: applied + 1]
            self.values = truth_values[: applied + 1]
        self.written_io = self.synced_io = self.io_sequence
        self.written_last = last
        return Restored(
            term=self.term,
            vote=self.vote,
            membership=membership,
            runs=tuple(runs),
            base_index=base,
            base_term=base_term,
            applied_index=applied,
            applied_term=self.terms[applied],
            io_sequence=self.io_sequence,
            faulty=faulty,
        )
