"""Writes on a copy of the database: applied there as they would be, and thrown away with the copy.

Must not know nodes, Raft, nor what an answer means. Invariants: the database itself is only read, by one read
transaction; whoever gives up leaves neither copy nor thread, and what a killed process left goes at the next start.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from hiqlite._accel.records import seal_records, stamp
from hiqlite.errors import RequestTimeout, ShuttingDown

from .connection import ConnectionSettings
from .image import copy_out, disk_of
from .trial import refusal_of
from .writer import Writer, WriterSettings

Check = Callable[[int, bytes], object]  # is given the number of a write, from 0 on, and its answer


class Rehearsals:
    """Of one database, one after the other.

    Args:
        database: where it is now.
        folder: copies are made in it, each in a folder of its own.
    """

    def __init__(
        self, database: Callable[[], Path], folder: Path, settings: ConnectionSettings, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._database = database
        self._folder = folder
        self._settings = settings
        self._loop = loop
        self._turn = asyncio.Lock()
        self._made = 0
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, records: Sequence[bytes], limit_s: float, check: Check) -> None:
        """Applies unsealed records one after the other until `check` raises.

        Args:
            limit_s: of all trials together. What would not end by then is not applied, as when it were proposed.

        Raises:
            StatementTimeout, DiskFull, Overloaded, StorageError: as a leader would refuse such a write, or there is no
                room for a copy. RequestTimeout: no time was left for a write. ShuttingDown. What `check` raises.
        """
        async with self._turn:
            if self._closed:
                raise closed()
            self._running = self._loop.create_task(self._run(records, limit_s, check), name="hiqlite-rehearsal")
            try:
                await self._running
            except asyncio.CancelledError:
                if self._closed and not asyncio.current_task().cancelling():
                    raise closed() from None
                raise
            finally:
                self._running = None

    async def close(self) -> None:
        """Ends what is under way."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self, records: Sequence[bytes], limit_s: float, check: Check) -> None:
        end_s = self._loop.time() + limit_s
        async with self._copy() as path:
            writer = Writer.open(path, WriterSettings(self._settings, apply_thread="always"), self._loop)
            try:
                for number, record in enumerate(records):
                    check(number, await self._apply(writer, record, end_s - self._loop.time()))
            finally:
                await writer.abandon()

    async def _apply(self, writer: Writer, record: bytes, limit_s: float) -> bytes:
        """The answer to one write, which is tried before, so that it ends."""
        wall_ns, index, term = time.time_ns(), writer.applied_index + 1, max(1, writer.applied_term)
        limit_ns = int(limit_s * 1e9)
        if limit_ns <= 0:
            raise RequestTimeout("no time was left for this write", outcome="not_applied")
        stamped = stamp(record, wall_ns, 1 + secrets.randbits(63))
        trial = await writer.try_out([stamped], [limit_ns])
        if not trial.spent_ns:
            refusal = refusal_of(trial, limit_ns)
            assert refusal is not None, "a trial that did not end says why"
            raise refusal
        sealed = bytearray(stamped)
        seal_records(sealed, term, index, writer.applied_group_time_ns, wall_ns, 0)
        writer.submit(index, index, term, [bytes(sealed)], True)
        writer.set_synced_index(index)
        progress = asyncio.Event()
        writer.on_progress(progress.set)
        while not (runs := writer.take()):
            if writer.failure is not None:
                raise writer.failure
            await progress.wait()
            progress.clear()
        return runs[0].answer(index)

    @asynccontextmanager
    async def _copy(self) -> AsyncIterator[Path]:
        """A copy of what the database holds now, for the block."""
        self._made += 1
        folder = self._folder / f"rehearsal-{self._made}"
        path, stop = folder / "hiqlite.db", threading.Event()
        thread = ThreadPoolExecutor(1, "hiqlite-rehearsal")
        try:
            with disk_of(folder):
                folder.mkdir()
            await self._loop.run_in_executor(thread, copy_out, self._database(), path, stop, self._settings)
            yield path
        finally:
            stop.set()
            gone = self._loop.run_in_executor(thread, shutil.rmtree, folder, True)
            thread.shutdown(wait=False)  # once it has nothing to do
            await asyncio.shield(gone)


def closed() -> ShuttingDown:
    return ShuttingDown("the node is shutting down", outcome="not_applied")
