"""The engine's deadlines as one timer of the loop.

Knows times only. Invariant: at most one timer is set, and it never fires later than the deadline asked for last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls `ring` when a deadline has passed, perhaps earlier: whoever is called looks at the clock.

    Args:
        ring: judges the deadlines and arms anew. False: not yet, call again in the next turn of the loop.
    """

    __slots__ = ("_deadline_ns", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], bool]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.Handle | None = None
        self._deadline_ns = 0

    def arm(self, deadline_ns: int, now_ns: int) -> None:
        if self._timer is not None:
            if self._deadline_ns <= deadline_ns:
                return  # a timer that fires early judges nothing and is armed anew
            self._timer.cancel()
        self._deadline_ns = deadline_ns
        self._timer = self._loop.call_later(max(0, deadline_ns - now_ns) / 1e9, self._rings)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        if not self._ring():
            self._timer = self._loop.call_soon(self._rings)
