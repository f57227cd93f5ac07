"""Reads of this node's database: at once when they are short, on native reader threads otherwise.

Knows connections, rows and the loop it was opened on; must not know Raft, consistency levels or the writer.
Invariant: no read keeps a snapshot longer than it runs; an iteration keeps one, and gives it up at its limits. The
loop is never blocked by SQLite for longer than the budget of the calling thread's connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hiqlite._accel import forks
from hiqlite._accel.plain.read_errors import of_read
from hiqlite._accel.readpool import CHUNK, ENDED, LATER, ReadJob
from hiqlite._accel.values import Row
from hiqlite.ending import Ending
from hiqlite.errors import ShuttingDown, SnapshotCorruption, StorageError

from .iteration import Iteration
from .reader_files import CLOSE_LIMIT_S, ReaderFiles, ReaderSettings

__all__ = ["Parameters", "Reader", "ReaderMetrics", "ReaderSettings"]

Parameters = Sequence[Any] | Mapping[str, Any]

SLICE_NS: Final = 300_000  # decoding in one turn of the loop; with what one look at the clock allows, under 0.5 ms
CHUNK_BYTES: Final = 256 << 10
ITERATE_CHUNK_BYTES: Final = 64 << 10
ITERATE_BYTES_MAX: Final = 1 << 62  # an iteration holds two chunks; its whole is not limited


@dataclass(frozen=True, slots=True)
class ReaderMetrics:
    """What the readers have done, and do now."""

    inline: int  # reads answered on the calling thread
    passed_on: int  # reads that it left to a thread, `interrupted` of them because their budget was spent
    interrupted: int
    statements: int  # prepared for the calling thread
    jobs: int  # reads given to threads
    cancelled: int
    failed: int
    overloads: int
    threads: int
    busy: int
    queued: int
    iterations: int  # under way
    queued_bytes: int
    waiting_bytes: int


class Reader:
    """All reads of one database file. Every method belongs to the loop's thread.

    `query_now` first; where it gives None, `query`.
    """

    def __init__(self, files: ReaderFiles, settings: ReaderSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._files: ReaderFiles | None = files
        self._retired: list[ReaderFiles] = []  # of an earlier generation, while reads on them go on
        self._cancelled = 0
        self._iterations = 0
        self._ending = Ending()
        loop.add_reader(files.pool.fileno(), self._on_news, files)
        forks.watch(self)

    @classmethod
    def open(cls, path: Path | str, settings: ReaderSettings, loop: asyncio.AbstractEventLoop) -> Reader:
        """Opens one connection for the calling thread and one for each reader thread.

        Raises:
            StorageError: the file cannot be opened for reading.
        """
        return cls(ReaderFiles(path, settings), settings, loop)

    # ----------------------------------------------------------------- reads

    def query_now(self, sql: str, params: Parameters = (), *, bytes_for_bad_text: bool = False) -> list[Row] | None:
        """The rows, read on the calling thread; None when the read must go to a thread (`query`).

        Raises:
            UsageError: it writes, is empty, or holds several statements. ParameterError: parameters do not fit.
            StatementError, SchemaError, StorageError: what SQLite said. RowMappingError: text that is not UTF-8.
        """
        return self._open_files().inline.try_rows(sql, params, bytes_for_bad_text=bytes_for_bad_text)

    async def query(
        self,
        sql: str,
        params: Parameters = (),
        *,
        timeout: float | None = None,
        bytes_for_bad_text: bool = False,
    ) -> list[Row]:
        """The rows, read on a reader thread. Cancelling interrupts SQLite.

        Args:
            timeout: seconds, waiting for a thread included.

        Raises:
            what `query_now` raises; RequestTimeout; Overloaded: too many reads wait, or too much waits to be fetched;
            ShuttingDown.
        """
        files = self._open_files()
        job = files.pool.submit(
            sql,
            params,
            limit_ns=0 if timeout is None else _at_least_one_ns(timeout),
            chunk_bytes=CHUNK_BYTES,
            result_bytes_max=self._settings.result_bytes_max,
            bytes_for_bad_text=bytes_for_bad_text,
        )
        rows: list[Row] = []
        news = files.watch(job)
        timer = None if timeout is None else self._loop.call_later(timeout, job.expire)
        try:
            while (state := job.take(rows, SLICE_NS)) != ENDED:
                await _news_or_next_turn(state, news)
        except asyncio.CancelledError:
            self._cancelled += 1
            raise
        except SnapshotCorruption as damage:
            raise self._of(files, damage) from None
        finally:
            if timer is not None:
                timer.cancel()
            self._done(files, job)
        return rows

    def iterate(
        self,
        sql: str,
        params: Parameters = (),
        *,
        idle_s: float = 60.0,
        total_s: float = 3600.0,
        bytes_for_bad_text: bool = False,
    ) -> Iteration:
        """Lists of rows out of one snapshot, read as they are asked for; memory is bounded.

        Args:
            idle_s: the longest time in which nothing is asked for or touched, and the longest wait for a thread.
            total_s: the longest time in all, because an open read keeps the WAL growing.

        Raises:
            what `query` raises; RequestTimeout when a limit passed, behind the rows that were read in time. Nothing is
            raised before the first list is asked for.
        """
        return Iteration(lambda began: self._iterate(began, sql, params, idle_s, total_s, bytes_for_bad_text))

    async def _iterate(
        self,
        began: Callable[[ReadJob], None],
        sql: str,
        params: Parameters,
        idle_s: float,
        total_s: float,
        bytes_for_bad_text: bool,
    ) -> AsyncGenerator[list[Row], None]:
        files = self._open_files()
        job = files.pool.submit(
            sql,
            params,
            iterate=True,
            limit_ns=_at_least_one_ns(total_s),
            idle_ns=_at_least_one_ns(idle_s),
            chunk_bytes=ITERATE_CHUNK_BYTES,
            result_bytes_max=ITERATE_BYTES_MAX,
            bytes_for_bad_text=bytes_for_bad_text,
        )
        began(job)
        news = files.watch(job)
        timers = (
            self._loop.call_later(idle_s, job.expire_queued),
            self._loop.call_later(total_s, job.expire),
        )
        self._iterations += 1
        rows: list[Row] = []
        try:
            while (state := job.take(rows, SLICE_NS, True)) != ENDED:
                if state == CHUNK:
                    job.demand()  # the thread reads the next chunk while the caller works on this one
                    await asyncio.sleep(0)  # where the thread is always ahead nothing else would let the loop go on
                    yield rows
                    rows = []
                else:
                    await _news_or_next_turn(state, news)
        except SnapshotCorruption as damage:
            raise self._of(files, damage) from None
        finally:
            self._iterations -= 1
            for timer in timers:
                timer.cancel()
            self._done(files, job)

    # ----------------------------------------------------------------- life

    def reopen(self, path: Path | str) -> None:
        """Reads go to another file from now on; those under way end on the old one.

        Raises:
            StorageError: the new file cannot be opened; the old one stays in use.
        """
        old, new = self._open_files(), ReaderFiles(path, self._settings)
        self._files = new
        self._loop.add_reader(new.pool.fileno(), self._on_news, new)
        self._retired.append(old)
        self._let_go_of_idle_ones()

    async def close(self) -> None:
        """Ends all reads with ShuttingDown, waits for the threads (2 s at most), closes the connections."""
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        remaining = self._retired + ([self._files] if self._files is not None else [])
        self._files = None
        for files in remaining:
            files.stop()
        deadline = self._loop.time() + CLOSE_LIMIT_S
        news = asyncio.Event()
        late = self._loop.call_at(deadline, news.set)
        for files in remaining:
            files.on_thread_end = news.set
        while any(not files.ended() for files in remaining) and self._loop.time() < deadline:
            await news.wait()
            news.clear()
        late.cancel()
        for files in remaining:
            self._forget(files)
        forks.forget(self)

    def let_go(self) -> None:
        """`close` without a loop, for who cannot wait for anything any more."""
        remaining = self._retired + ([self._files] if self._files is not None else [])
        self._files = None
        for files in remaining:
            files.stop()
        for files in remaining:
            files.pool.join(CLOSE_LIMIT_S)
            files.close()
        forks.forget(self)

    def left_to_parent(self) -> None:
        """In a forked child: who waits for rows looks, and is told so."""
        for files in (*self._retired, *filter(None, (self._files,))):
            files.wake_all()

    def metrics(self) -> ReaderMetrics:
        """Counters since the file was opened, and what is under way."""
        files = self._open_files()
        counts = files.pool.counts()
        return ReaderMetrics(
            inline=files.inline.served,
            passed_on=files.inline.passed_on,
            interrupted=files.inline.interrupted,
            statements=len(files.inline),
            jobs=counts["jobs"],
            cancelled=self._cancelled,
            failed=counts["failed"],
            overloads=counts["overloads"],
            threads=counts["threads"],
            busy=counts["busy"],
            queued=counts["queued"],
            iterations=self._iterations,
            queued_bytes=counts["queued_bytes"],
            waiting_bytes=counts["waiting_bytes"],
        )

    def _open_files(self) -> ReaderFiles:
        files = self._files
        if files is None:
            raise of_read(ShuttingDown("the readers are closed"))
        return files

    def _of(self, files: ReaderFiles, damage: SnapshotCorruption) -> StorageError:
        """What damage of these files means for whoever read them."""
        if files is self._files:
            return damage
        text = "this read began on a database that was damaged and is replaced by now"
        return of_read(StorageError(f"{text}: {damage.message}", hint="read again"))

    def _done(self, files: ReaderFiles, job: ReadJob) -> None:
        files.unwatch(job)
        if self._retired:
            self._let_go_of_idle_ones()

    def _on_news(self, files: ReaderFiles) -> None:
        if files.left:
            return
        files.tell()
        if self._retired:
            self._let_go_of_idle_ones()

    def _let_go_of_idle_ones(self) -> None:
        for files in list(self._retired):
            if not files.pool.closed and files.idle():
                files.stop()
            if files.pool.closed and files.ended():
                self._retired.remove(files)
                self._forget(files)

    def _forget(self, files: ReaderFiles) -> None:
        self._loop.remove_reader(files.pool.fileno())
        files.tell()
        files.close()


async def _news_or_next_turn(state: int, news: asyncio.Event) -> None:
    if state == LATER:
        await news.wait()
        news.clear()
    else:
        await asyncio.sleep(0)


def _at_least_one_ns(seconds: float) -> int:
    return max(1, int(seconds * 1e9))
