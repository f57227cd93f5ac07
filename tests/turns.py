"""How often the event loop turned: what blocks it keeps every other task from going on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """`count` grows by one in each turn."""

    def __init__(self) -> None:
        self.count = 0

    async def _turn(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


@asynccontextmanager
async def turns() -> AsyncIterator[Turns]:
    """Of the loop, during the block."""
    counted = Turns()
    counting = asyncio.create_task(counted._turn())
    try:
        yield counted
    finally:
        counting.cancel()
