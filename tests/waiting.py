"""Waiting for a condition, with a deadline: at once for what comes soon, and else without keeping the processor busy.

Whoever brings the condition about, a thread, another process, an election, needs the processor more than who waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

DEADLINE_S = 60.0
TURNS = 50  # of the loop, before each further look waits for a moment
MOMENT_S = 0.002


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = DEADLINE_S) -> None:
    """Wait until the coroutine function `condition` gives True."""
    end, looks = time.monotonic() + seconds, 0
    while not await condition():
        assert time.monotonic() < end, "the condition was not reached in time"
        looks += 1
        await asyncio.sleep(0 if looks < TURNS else MOMENT_S)


async def moment() -> None:
    """Between two looks at what is long in coming."""
    await asyncio.sleep(MOMENT_S)


async def until(condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    """Wait until `condition` gives something true."""
    end, looks = time.monotonic() + seconds, 0
    while not condition():
        assert time.monotonic() < end, "the condition was not reached in time"
        looks += 1
        await asyncio.sleep(0 if looks < TURNS else MOMENT_S)
