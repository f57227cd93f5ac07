"""Work that is done at once when it is asked for, and again no sooner than after a pause.

Must not know what the work is. Invariant: after the last time that it was asked for it is done once more, at the latest
when the pause is over; it is never done more often than once per pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Sparing:
    """Of one piece of work."""

    __slots__ = ("_again", "_closed", "_loop", "_pause_s", "_timer", "_work")

    def __init__(self, work: Callable[[], None], pause_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._pause_s = pause_s
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._again = False
        self._closed = False

    def ask(self) -> None:
        if self._timer is not None:
            self._again = True
        elif not self._closed:
            self._timer = self._loop.call_later(self._pause_s, self._over)  # first: the work may ask again
            self._work()

    def close(self) -> None:
        """What is not done yet is not done any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._timer = None
        if self._again:
            self._again = False
            self.ask()
