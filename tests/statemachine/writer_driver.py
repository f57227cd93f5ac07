"""A writer on the running loop, driven by hand: submits records, collects the runs, waits for conditions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from apply_harness import sealed

from hiqlite._accel.apply import AppliedRun
from hiqlite._accel.records import stamp
from hiqlite.statemachine.connection import open_reader
from hiqlite.statemachine.equality import content_hash
from hiqlite.statemachine.writer import Writer, WriterSettings

DEADLINE_S = 20.0
TRIAL_NS = 20_000_000_000


class Driver:
    """Submits records and collects the runs that come back."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.runs: list[AppliedRun] = []
        self.next = writer.applied_index + 1
        self._event = asyncio.Event()
        writer.on_progress(self._progress)

    def _progress(self) -> None:
        self.runs += self.writer.take()
        self._event.set()

    def submit(self, *records: bytes, answers: bool = True) -> None:
        last = self.next + len(records) - 1
        self.writer.submit(self.next, last, 1, [sealed(records, self.next)], answers)
        self.next = last + 1

    async def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                self._event.clear()
                await self._event.wait()

        await asyncio.wait_for(wait(), DEADLINE_S)

    async def applied(self) -> None:
        await self.until(lambda: bool(self.runs) and self.runs[-1].last == self.next - 1)


@asynccontextmanager
async def opened(path: Path, settings: WriterSettings | None = None) -> AsyncIterator[Driver]:
    writer = Writer.open(path, settings)
    try:
        yield Driver(writer)
    finally:
        await writer.close()


async def tried_and_applied(path: Path, records: Sequence[bytes]) -> tuple[str, int]:
    """As a leader: each entry is tried before; content and running hash."""
    async with opened(path) as driver:
        for number, record in enumerate(records, 1):
            await driver.writer.try_out([stamp(record, 10**18, number)], [TRIAL_NS])
            driver.submit(record)
            await driver.applied()
        equality = driver.writer.equality_hash
    reader = open_reader(path)
    try:
        return content_hash(reader), equality
    finally:
        reader.close()


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits for what the writer does not announce, as a checkpoint."""

    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), DEADLINE_S)
