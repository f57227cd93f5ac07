"""Monotonic and wall time in whole nanoseconds.

What this is for: the one place that reads the machine's clocks, so that tests replace time by handing another `Clock`.
Must not know: what the time is used for.
Invariant: `monotonic_ns` never goes back and goes on during suspend where the system can tell (boot clock);
nothing in safety depends on either clock.
"""

from __future__ import annotations

import time

if hasattr(time, "CLOCK_BOOTTIME"):
    # CLOCK_MONOTONIC stands still while the machine sleeps: a lease would seem young after a night.
    _BOOT_CLOCK = time.CLOCK_BOOTTIME

    def monotonic_ns() -> int:
        """Nanoseconds since boot, suspend included."""
        return time.clock_gettime_ns(_BOOT_CLOCK)

else:

    def monotonic_ns() -> int:
        """Nanoseconds since an arbitrary start; this system cannot count its sleep."""
        return time.monotonic_ns()


def wall_ns() -> int:
    """Nanoseconds since 1970, UTC; may go back."""
    return time.time_ns()


class Clock:
    """The machine's clocks as a value to hand around; tests pass `ManualClock` or a subclass."""

    __slots__ = ()

    def monotonic_ns(self) -> int:
        return monotonic_ns()

    def wall_ns(self) -> int:
        return wall_ns()


class ManualClock(Clock):
    """A clock that moves only when told to.

    Args:
        monotonic_ns: first reading of the monotonic clock.
        wall_ns: first reading of the wall clock.
    """

    __slots__ = ("_monotonic_ns", "_wall_ns")

    def __init__(self, monotonic_ns: int = 0, wall_ns: int = 0) -> None:
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, duration_ns: int) -> None:
        """Move both clocks forward.

        Args:
            duration_ns: how far, at least 0.

        Raises:
            ValueError: time cannot be moved back; use `set_wall_ns` for a wall clock that jumps.
        """
        if duration_ns < 0:
            raise ValueError("a monotonic clock never goes back")
        self._monotonic_ns += duration_ns
        self._wall_ns += duration_ns

    def set_wall_ns(self, wall_ns: int) -> None:
        """Let the wall clock jump, also back, as an operator or NTP may."""
        self._wall_ns = wall_ns
