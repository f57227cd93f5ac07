"""Clocks that tests can replace; counters and histograms of bounded size."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite import clock, observe


def test_the_monotonic_clock_never_goes_back() -> None:
    """Successive readings do not fall."""
    readings = [clock.Clock().monotonic_ns() for _ in range(1000)]
    assert readings == sorted(readings)


def test_the_wall_clock_counts_from_1970() -> None:
    """Later than the day this was written, in nanoseconds."""
    assert clock.Clock().wall_ns() > 1_750_000_000 * 10**9


def test_a_manual_clock_moves_only_when_told() -> None:
    """Both readings advance together; the wall clock alone may jump back."""
    manual = clock.ManualClock(monotonic_ns=5, wall_ns=100)
    manual.advance(10)
    assert (manual.monotonic_ns(), manual.wall_ns()) == (15, 110)
    manual.set_wall_ns(3)
    assert (manual.monotonic_ns(), manual.wall_ns()) == (15, 3)
    with pytest.raises(ValueError, match="never goes back"):
        manual.advance(-1)


def test_loggers_are_named_by_room() -> None:
    """Applications switch them by name: `hiqlite`, `hiqlite.transport`."""
    logger = observe.logger("transport")
    assert logger.name == "hiqlite.transport"
    assert logger.parent is not None and logger.parent.name in ("hiqlite", "root")
    assert logging.getLogger("hiqlite.transport") is logger


def test_log_to_stderr_prints_level_room_and_message_once() -> None:
    """Our own processes log to standard error; calling it twice does not double lines."""
    code = (
        "from hiqlite import observe\n"
        "observe.log_to_stderr('info'); observe.log_to_stderr('trace')\n"
        "observe.logger('node').debug('started')"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert child.stdout == ""
    assert child.stderr.count("started") == 1
    assert "DEBUG" in child.stderr and "hiqlite.node" in child.stderr


def test_an_unknown_log_level_is_refused() -> None:
    """Nothing is logged at a level that nobody meant."""
    with pytest.raises(ValueError, match="LOUD"):
        observe.log_to_stderr("loud")


def test_measures_are_made_at_first_use_and_kept() -> None:
    """The same name is the same counter; two nodes in one process share none."""
    one, other = observe.Measures(), observe.Measures()
    one.counter("proposals").add()
    one.counter("proposals").add(4)
    one.histogram("flush_ns").record(7, times=3)
    assert one.counters() == {"proposals": 5}
    assert one.summaries()["flush_ns"] == observe.Summary(3, 7.0, 7, 7, 7, 7)
    assert other.counters() == {} and other.summaries() == {}


def test_an_empty_histogram_says_zero() -> None:
    """Nothing was measured, so nothing is claimed."""
    assert observe.Histogram().summary() == observe.Summary(0, 0.0, 0, 0, 0, 0)


@given(st.lists(st.integers(min_value=-5, max_value=2**70), min_size=1, max_size=60), st.floats(0.0, 1.0))
def test_quantiles_are_at_most_one_sixteenth_high(values: list[int], share: float) -> None:
    """Never below the true one; above it by 6.25 % at most, up to 2^64."""
    histogram = observe.Histogram()
    for value in values:
        histogram.record(value)
    counted = sorted(max(0, value) for value in values)
    wanted = max(1, share * len(counted))
    exact = next(value for rank, value in enumerate(counted, start=1) if rank >= wanted)
    found = histogram.quantile(share)
    assert found >= min(exact, 2**64 - 1)
    assert found <= max(exact * 17 / 16, exact + 1) or exact >= 2**64
    assert histogram.maximum == counted[-1]


def test_a_quantile_outside_zero_to_one_is_refused() -> None:
    """99 is not 0.99."""
    with pytest.raises(ValueError, match="share"):
        observe.Histogram().quantile(99)
