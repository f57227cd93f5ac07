"""Writes on a copy of the database: applied there as they would be, and thrown away with the copy.

Must not know nodes, Raft, nor what an answer means. Invariants: the database itself is only read, by one read
transaction; whoever gives up leaves neither copy nor thread, and what a killed process left goes at the next start.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw

from hiqlite._accel import forks
from hiqlite._accel.apply import Applier
from hiqlite._accel.records import seal_records, stamp
from hiqlite.ending import Ending, Undisturbed
from hiqlite.errors import HiqliteError, RequestTimeout, ShuttingDown, StorageError, with_outcome

from .image import copy_pages, disk_of
from .trial import NOT_APPLIED, refusal_of
from .writer import Writer, WriterSettings, close_all, start_applier

Check = Callable[[int, bytes], object]  # is given the number of a write, from 0 on, and its answer
HINT_COPY = "nothing but a copy was written; check the disk"


class Rehearsals:
    """Of one database, one after the other.

    Args:
        database: where it is now.
        folder: copies are made in it, each in a folder of its own.
        settings: of the writers of copies; their `kept_bytes` stay free beside a copy, too.
    """

    def __init__(
        self, database: Callable[[], Path], folder: Path, settings: WriterSettings, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._database = database
        self._folder = folder
        self._settings = settings
        self._loop = loop
        self._turn = asyncio.Lock()
        self._made = 0
        self._copy: Copy | None = None  # the one that there is now
        self._task: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[None] | None = None  # for the task
        self._closed = False

    async def run(self, records: Iterable[bytes], limit_s: float, check: Check) -> None:
        """Applies unsealed records one after the other until `check` raises.

        Args:
            limit_s: of all trials together. What would not end by then is not applied, as when it were proposed.

        Raises:
            StatementTimeout, DiskFull, Overloaded, StorageError: as a leader would refuse such a write, or there is no
                room for a copy. RequestTimeout: no time was left for a write. ShuttingDown. What `check` raises.
        """
        end_s = self._loop.time() + limit_s
        async with self._turn:
            if self._closed:
                raise closed()
            process = forks.count()
            waiting = self._waiting = self._loop.create_future()
            task = self._task = self._loop.create_task(self._run(records, end_s, check), name="hiqlite-rehearsal")
            task.add_done_callback(lambda task: _pass_on(task, waiting))
            try:
                await waiting
            finally:
                if process == forks.count():
                    task.cancel()
                    await Undisturbed(_over(task))
                    self._task = self._waiting = None

    async def close(self) -> None:
        """Ends what is under way."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def let_go(self) -> None:
        """`close` without a loop."""
        self._closed = True
        if self._copy is not None:
            self._copy.let_go()

    def left_to_parent(self, error: HiqliteError) -> None:
        """In a forked child: who waits is told, and the copy is the parent's."""
        self._closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    async def _run(self, records: Iterable[bytes], end_s: float, check: Check) -> None:
        copy = self._copy = Copy(self._database(), self._next_folder(), self._settings, self._loop)
        try:
            await copy.open()
            for number, record in enumerate(records):
                check(number, await copy.apply(record, end_s - self._loop.time()))
        except StorageError as error:
            raise with_outcome(error, NOT_APPLIED) from error
        finally:
            await copy.close()
            self._copy = None


    def _next_folder(self) -> Path:
        """For the next copy: not one that an earlier life left and the disk did not let go."""
        while True:
            self._made += 1
            folder = self._folder / f"rehearsal-{self._made}"
            if not os.path.lexists(folder):
                return folder


class Copy:
    """A copy of `database` in `folder`, which goes with it, and its writer."""

    def __init__(self, database: Path, folder: Path, settings: WriterSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._database = database
        self._folder = folder
        self._path = folder / "hiqlite.db"
        self._settings = settings
        self._loop = loop
        self._thread = ThreadPoolExecutor(1, "hiqlite-rehearsal")
        self._stop = threading.Event()
        self._opened: tuple[list[apsw.Connection], Applier] | None = None  # and not the writer's yet
        self._writer: Writer | None = None
        self._ending = Ending()

    async def open(self) -> None:
        """Made of what the database holds now. Raises DiskFull, StorageError."""
        job = self._loop.run_in_executor(self._thread, self._make)
        job.add_done_callback(lambda job: job.cancelled() or job.exception())  # perhaps nobody waits any more
        await asyncio.shield(job)
        assert self._opened is not None
        self._writer, self._opened = Writer(self._path, *self._opened, self._settings, self._loop), None

    async def apply(self, record: bytes, limit_s: float) -> bytes:
        """The answer to one write, which is tried before, so that it ends."""
        writer, limit_ns = self._writer, int(limit_s * 1e9)
        assert writer is not None
        if limit_ns <= 0:
            raise RequestTimeout("no time was left for this write", outcome=NOT_APPLIED)
        wall_ns, index, term = time.time_ns(), writer.applied_index + 1, max(1, writer.applied_term)
        stamped = stamp(record, wall_ns, 1 + secrets.randbits(63))
        trial = await writer.try_out([stamped], [limit_ns])
        if not trial.spent_ns:
            refusal = refusal_of(trial, limit_ns)
            assert refusal is not None, "a trial that did not end says why"
            raise refusal
        sealed = bytearray(stamped)
        seal_records(sealed, term, index, writer.applied_group_time_ns, wall_ns)
        # Nobody tells the writer that a log is synced, so the copy is never moved from SQLite's log into its file.
        writer.submit(index, index, term, [bytes(sealed)], True)
        progress = asyncio.Event()
        writer.on_progress(progress.set)
        while not (runs := writer.take()):
            if (failure := writer.failure) is not None:
                raise type(failure)(f"on the copy, {failure.message}", hint=HINT_COPY, outcome=NOT_APPLIED)
            await progress.wait()
            progress.clear()
        return runs[0].answer(index)

    async def close(self) -> None:
        """Nothing is left of it when this returns. Idempotent."""
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        self._stop.set()
        if self._writer is not None:
            await self._writer.abandon()
        await self._loop.run_in_executor(self._thread, self._remove)
        self._thread.shutdown(wait=False)

    def let_go(self) -> None:
        """`close`, for who cannot wait for a loop any more."""
        self._stop.set()
        if self._writer is not None:
            self._writer.let_go()
        self._thread.submit(self._remove)
        self._thread.shutdown()

    # -- on the thread

    def _make(self) -> None:
        with disk_of(self._folder):
            self._folder.mkdir(mode=0o700)
        settings = self._settings.connection
        copy_pages(self._database, self._path, self._stop, settings, kept_bytes=self._settings.kept_bytes)
        self._opened = start_applier(self._path, self._settings)

    def _remove(self) -> None:
        if self._opened is not None:
            connections, applier = self._opened
            applier.close()
            close_all(connections)
        shutil.rmtree(self._folder, ignore_errors=True)


def _pass_on(task: asyncio.Task[None], waiting: asyncio.Future[None]) -> None:
    error = closed() if task.cancelled() else task.exception()
    if waiting.done():
        return
    if error is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(error)


async def _over(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def closed() -> ShuttingDown:
    return ShuttingDown("the node is shutting down", outcome=NOT_APPLIED)
