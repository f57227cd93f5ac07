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
        self.other = Random()  # for a while, see `chance_of`
        self.heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.number = 0  # of calls that were asked for
        self.keep_log = keep_log
        self.log: deque[str] = deque(maxlen=4000)

    def after(self, delay_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """Call later; events of one moment happen in the order in which they were asked for."""
        number = self.number = self.number + 1
        heappush(self.heap, (self.now_ns + delay_ns, number, call, arguments))

    @property
    def events(self) -> int:
        """How many happened: of all that were asked for, those that wait no more."""
        return self.number - len(self.heap)

    def below(self, limit: int) -> int:
        """A number in `[0, limit)`."""
        return int(self.chance() * limit)

    @contextmanager
    def chance_of(self, seed: int) -> Iterator[None]:
        """Chance comes from a source of its own for a while."""
        usual = self.chance
        self.other.seed(seed)
        self.chance = self.other.random
        try:
            yield
        finally:
            self.chance = usual

    def note(self, text: str) -> None:
        if self.keep_log:
            self.log.append(f"{(self.now_ns - START_NS) / 1e6:10.3f} ms  {text}")

    def run_until(self, end_ns: int) -> None:
        """Step every event up to `end_ns`."""
        heap, pop = self.heap, heappop
        while heap:
            event = pop(heap)
            at_ns, _, call, arguments = event
            if at_ns > end_ns:
                heappush(heap, event)  # to its place: no two have one time and one number
                break
            self.now_ns = at_ns
            call(*arguments)
        self.now_ns = end_ns
