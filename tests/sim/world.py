"""Virtual time: a heap of events, one random source, one event log. Nothing else in the simulator knows a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from random import Random
from typing import Any

START_NS = 1_000_000_000


class Violation(AssertionError):
    """A broken invariant: its name and what was seen."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant


class PricePaid(Exception):
    """A loss of power took what a weak mode of `log_sync` had promised, and a committed entry hung by it."""


class World:
    """The clock and the events to come. Equal seeds give equal runs."""

    def __init__(self, random: Random, keep_log: bool) -> None:
        self.random = random
        self.chance = random.random
        self.now_ns = START_NS
        self.events = 0
        self.heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.number = 0
        self.keep_log = keep_log
        self.log: deque[str] = deque(maxlen=4000)

    def after(self, delay_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call later; events of one moment happen in the order in which they were asked for."""
        self.number += 1
        heappush(self.heap, (self.now_ns + delay_ns, self.number, call, arguments))

    def below(self, limit: int) -> int:
        """A number in `[0, limit)`."""
        return int(self.chance() * limit)

    @contextmanager
    def chance_of(self, seed: int) -> Iterator[None]:
        """Chance comes from a source of its own for a while."""
        usual = self.chance
        self.chance = Random(seed).random
        try:
            yield
        finally:
            self.chance = usual

    def note(self, text: str) -> None:
        if self.keep_log:
            self.log.append(f"{(self.now_ns - START_NS) / 1e6:10.3f} ms  {text}")

    def run_until(self, end_ns: int) -> None:
        """Step every event up to `end_ns`."""
        heap = self.heap
        while heap and heap[0][0] <= end_ns:
            self.now_ns, _, call, arguments = heappop(heap)
            self.events += 1
            call(*arguments)
        self.now_ns = end_ns
