"""Logs, counters, histograms: what a node says about itself.

What this is for: the only room that touches `logging`, and the in-memory measures that `metrics()` reads.
Must not know: what is measured, nor where it is sent.
Invariant: counting never blocks, never allocates after the first use of a name, and memory is bounded: each histogram
has a fixed number of buckets. Measures belong to a `Measures` object that a node owns; nothing lives at module level.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

ROOT = "hiqlite"

# Histogram buckets: values below 16 exactly, above that 16 steps per power of two, so an answer is at most 6.25 % high.
_STEPS_BITS = 4
_STEPS = 1 << _STEPS_BITS
_BITS_MAX = 64
_BUCKETS = (_BITS_MAX - _STEPS_BITS + 1) * _STEPS


def logger(room: str) -> logging.Logger:
    """The logger of a room: `hiqlite.<room>`; silent until the application configures logging."""
    return logging.getLogger(f"{ROOT}.{room}")


def log_to_stderr(level: str = "INFO") -> None:
    """Send this product's log to standard error; for our own processes, never for a library's user.

    Args:
        level: name of a standard level (`DEBUG`, `INFO`, `WARNING`, `ERROR`), any case; `TRACE` means `DEBUG`.

    Raises:
        ValueError: no such level.
    """
    name = "DEBUG" if level.upper() == "TRACE" else level.upper()
    root = logging.getLogger(ROOT)
    root.setLevel(name)
    root.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root.handlers = [handler]


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> None:
        self.value += amount


class Histogram:
    """How values spread, in logarithmic buckets of bounded number.

    Values are whole and not negative (nanoseconds, bytes); a negative one counts as 0.
    """

    __slots__ = ("_buckets", "count", "maximum", "total")

    def __init__(self) -> None:
        self._buckets = [0] * _BUCKETS
        self.count = 0
        self.total = 0
        self.maximum = 0

    def record(self, value: int, times: int = 1) -> None:
        """Count `value`, `times` times (a run of writes that ended together is recorded by one call)."""
        if value < 0:
            value = 0
        self._buckets[_bucket_of(value)] += times
        self.count += times
        self.total += value * times
        if value > self.maximum:
            self.maximum = value

    def quantile(self, share: float) -> int:
        """The smallest bucket end that at least `share` (0 to 1) of all values do not exceed; 0 when empty."""
        if not 0.0 <= share <= 1.0:
            raise ValueError("share must lie in [0, 1]")
        if self.count == 0:
            return 0
        wanted = max(1, share * self.count)
        seen = 0
        for bucket, amount in enumerate(self._buckets):
            seen += amount
            if seen >= wanted:
                return min(_bucket_end(bucket), self.maximum)
        return self.maximum

    def summary(self) -> Summary:
        mean = self.total / self.count if self.count else 0.0
        return Summary(
            self.count, mean, self.quantile(0.5), self.quantile(0.99), self.quantile(0.999), self.maximum
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """A histogram in six numbers, in the unit of what was recorded."""

    count: int
    mean: float
    p50: int
    p99: int
    p999: int
    maximum: int


class Measures:
    """The counters and histograms of one node, made at the first use of their names."""

    __slots__ = ("_counters", "_histograms")

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def counter(self, name: str) -> Counter:
        found = self._counters.get(name)
        if found is None:
            found = self._counters[name] = Counter()
        return found

    def histogram(self, name: str) -> Histogram:
        found = self._histograms.get(name)
        if found is None:
            found = self._histograms[name] = Histogram()
        return found

    def counters(self) -> dict[str, int]:
        """All counters by name, as they stand now."""
        return {name: counter.value for name, counter in self._counters.items()}

    def summaries(self) -> dict[str, Summary]:
        """All histograms by name, as they stand now."""
        return {name: histogram.summary() for name, histogram in self._histograms.items()}


def _bucket_of(value: int) -> int:
    if value < _STEPS:
        return value
    shift = value.bit_length() - _STEPS_BITS - 1
    return min((shift << _STEPS_BITS) + (value >> shift), _BUCKETS - 1)


def _bucket_end(bucket: int) -> int:
    """The highest value that lands in `bucket`."""
    if bucket < 2 * _STEPS:
        return bucket
    shift = (bucket >> _STEPS_BITS) - 1
    return ((bucket - (shift << _STEPS_BITS) + 1) << shift) - 1
