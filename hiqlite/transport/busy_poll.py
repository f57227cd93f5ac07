"""Keeps the loop awake for a moment where a link's next frame is about to come.

Waking an idle processor costs more than the work of a small frame: whoever sends pays for the wake, whoever receives
waits for it. Knows the running loop and a clock; must not know links or what frames mean. Invariant: it ends `awake_ns`
after the last such frame at the latest; callbacks, tasks, timers and sockets have their turns meanwhile, and another
process that wants this processor gets it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic_ns

# Frames of one link that are further apart find the loop asleep: awake in between, it would mostly burn time.
NEAR_NS = 500_000


class BusyPoll:
    """Of one network, for all of its links, in the loop that runs them.

    Args:
        awake_ns: how long the loop stays awake after a frame that came soon after the one before it; 0: it never does.
        near_ns: how soon that is.
    """

    __slots__ = ("_awake_ns", "_near_ns", "_polls", "_until_ns")

    def __init__(self, awake_ns: int, near_ns: int = NEAR_NS) -> None:
        self._awake_ns = awake_ns
        self._near_ns = near_ns
        self._polls = False
        self._until_ns = 0

    def of_link(self, read_end: Callable[[], None]) -> Callable[[], None]:
        """`read_end` of one link, and awake after it."""
        if not self._awake_ns:
            return read_end
        heard_ns = 0

        def heard() -> None:
            nonlocal heard_ns
            read_end()
            now_ns = monotonic_ns()
            if now_ns - heard_ns < self._near_ns:
                self._until_ns = now_ns + self._awake_ns
                if not self._polls:
                    self._polls = True
                    asyncio.get_running_loop().call_soon(self._poll)
            heard_ns = now_ns

        return heard

    def _poll(self) -> None:
        """Once per turn: a loop with a callback that is due looks at its sockets without sleeping."""
        if monotonic_ns() < self._until_ns:
            os.sched_yield()
            asyncio.get_running_loop().call_soon(self._poll)
        else:
            self._polls = False
