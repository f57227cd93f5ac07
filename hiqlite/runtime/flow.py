"""How many writes a leader's group took, and how long they needed from the log's end to the state machine.

One note per batch, not per write: about a microsecond of each. Must not know what a write is.
Invariant: what waits is no more than the batches that wait for their commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hiqlite.observe import Histogram


class Flow:
    """Of one group of one node. `now` gives seconds of a clock that never goes back."""

    __slots__ = ("_latency_us", "_now", "_waiting", "batches", "entries", "size_bytes")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._latency_us = Histogram()
        self._waiting: deque[tuple[int, int, float]] = deque()  # (last index, entries, since when), oldest first
        self.entries = 0
        self.batches = 0
        self.size_bytes = 0

    def proposed(self, first: int, count: int, size_bytes: int) -> None:
        """A batch of this leader stands in its log from `first` on."""
        self.entries += count
        self.batches += 1
        self.size_bytes += size_bytes
        self._waiting.append((first + count - 1, count, self._now()))

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to `index`."""
        waiting = self._waiting
        if not waiting or waiting[0][0] > index:
            return
        now = self._now()
        while waiting and waiting[0][0] <= index:
            _, count, since = waiting.popleft()
            self._latency_us.record(int((now - since) * 1e6), count)

    def dropped(self) -> None:
        """Leadership was lost, or an image came in between: nobody knows what became of what waits."""
        self._waiting.clear()

    def counters(self) -> dict[str, float]:
        """By name, `writes_` in front: since the node started, of what it proposed itself as a leader."""
        latency = self._latency_us.summary()
        return {
            "writes_proposed": self.entries,
            "writes_batches": self.batches,
            "writes_bytes": self.size_bytes,
            "writes_applied": latency.count,
            "writes_mean_us": latency.mean,
            "writes_p50_us": latency.p50,
            "writes_p99_us": latency.p99,
            "writes_max_us": latency.maximum,
        }
