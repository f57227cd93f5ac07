"""Clients that write without end, as a user's would: an error is answered by the same write again, at once.

Runs in a node's worker. Uses the public client only. Invariant: memory is bounded, however long it writes.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Any

from hiqlite.client.base import Client
from hiqlite.errors import ConstraintError, HiqliteError

from .phases import INSERT, row

GAPS_KEPT = 16
TIMEOUT_S = 10.0
PAUSE_S = 0.001  # before a retry: an error that comes at once must not become a loop that takes the core


class GapWriter:
    """Closed-loop clients, and the longest times in which none of them was answered."""

    def __init__(self, db: Client, tasks: int, start: int) -> None:
        self._db = db
        self._next = start
        self._stop = False
        self._last_ns = time.monotonic_ns()
        self._gaps: list[tuple[int, int]] = []  # (length, end), the longest ones
        self._errors: dict[str, int] = {}
        self._count = 0
        self._tasks = [asyncio.create_task(self._work()) for _ in range(tasks)]

    async def _work(self) -> None:
        while not self._stop:
            self._next += 1
            await self._write(self._next)
            self._acknowledged(time.monotonic_ns())

    async def _write(self, key: int) -> None:
        """Returns when the row is there. Its key makes the retry of a write whose fate is unknown harmless."""
        while True:
            try:
                await self._db.execute(INSERT, row(key), timeout=TIMEOUT_S)
                return
            except ConstraintError:
                return
            except HiqliteError as error:
                if not error.retryable:
                    raise
                name = f"{type(error).__name__}, {error.outcome}"
                self._errors[name] = self._errors.get(name, 0) + 1
            await asyncio.sleep(PAUSE_S)

    def _acknowledged(self, now_ns: int) -> None:
        gap = (now_ns - self._last_ns, now_ns)
        self._last_ns = now_ns
        self._count += 1
        if len(self._gaps) < GAPS_KEPT:
            heapq.heappush(self._gaps, gap)
        elif gap > self._gaps[0]:
            heapq.heapreplace(self._gaps, gap)

    @property
    def count(self) -> int:
        """Writes that were acknowledged so far."""
        return self._count

    async def end(self) -> dict[str, Any]:
        """Times are of the monotonic clock that all processes of a machine share."""
        self._stop = True
        await asyncio.gather(*self._tasks)
        return {"gaps": sorted(self._gaps, reverse=True), "errors": self._errors, "n": self._count}
