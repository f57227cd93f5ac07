"""Reads of this node's database: at once when they are short, on native reader threads otherwise.

Knows connections, rows and the loop it was opened on; must not know Raft, consistency levels or the writer.
Invariant: no read keeps a snapshot longer than it runs; an iteration keeps one, and gives it up at its limits. The
loop is never blocked by SQLite for longer than the budget of the calling thread's connection.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import apsw

from hiqlite import observe
from hiqlite._accel import guard, readpool, reads
from hiqlite._accel.plain.read_errors import of_read
from hiqlite._accel.readpool import CHUNK, ENDED, LATER, ReaderPool, ReadJob
from hiqlite._accel.reads import ReadConnection
from hiqlite._accel.values import Row
from hiqlite.errors import ConfigError, ShuttingDown
from hiqlite.statemachine.connection import ConnectionSettings, open_reader

Parameters = Sequence[Any] | Mapping[str, Any]

SLICE_NS: Final = 300_000  # decoding in one turn of the loop; with what one look at the clock allows, under 0.5 ms
CHUNK_BYTES: Final = 256 << 10
ITERATE_CHUNK_BYTES: Final = 64 << 10
ITERATE_BYTES_MAX: Final = 1 << 62  # an iteration holds two chunks; its whole is not limited
THREADS_MIN: Final = 2  # an open iteration never stops queries
CLOSE_LIMIT_S: Final = 2.0  # a thread inside one long opcode may not notice before; then its connection is left to it

log = observe.logger("statemachine")


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """Limits of the reads of one node.

    Args:
        threads: reader threads (config `read_pool_size`); two at least run.
        statement_cache: prepared statements kept by the calling thread's connection.
        queue_max, queue_bytes_max: reads that wait for a thread.
        result_bytes_max: encoded rows of one query; waiting_bytes_max: of all together, not fetched yet.
    """

    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    threads: int = 4
    statement_cache: int = 1000
    queue_max: int = 1024
    queue_bytes_max: int = 64 << 20
    result_bytes_max: int = 256 << 20
    waiting_bytes_max: int = 512 << 20

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 64:
            raise ConfigError(f"read_pool_size must be 1 to 64, not {self.threads}")
        if self.result_bytes_max > self.waiting_bytes_max:
            raise ConfigError("one query's result limit is above the limit of all")


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

    def __init__(self, files: _Files, settings: ReaderSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._loop = loop
        self._files: _Files | None = files
        self._retired: list[_Files] = []  # of an earlier generation, while reads on them go on
        self._cancelled = 0
        self._iterations = 0
        loop.add_reader(files.pool.fileno(), self._on_news, files)

    @classmethod
    def open(cls, path: Path | str, settings: ReaderSettings, loop: asyncio.AbstractEventLoop) -> Reader:
        """Opens one connection for the calling thread and one for each reader thread.

        Raises:
            StorageError: the file cannot be opened for reading.
        """
        return cls(_Files(path, settings), settings, loop)

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
        finally:
            if timer is not None:
                timer.cancel()
            self._done(files, job)
        return rows

    async def iterate(
        self,
        sql: str,
        params: Parameters = (),
        *,
        idle_s: float = 60.0,
        total_s: float = 3600.0,
        bytes_for_bad_text: bool = False,
    ) -> AsyncGenerator[list[Row], None]:
        """Lists of rows out of one snapshot, read as they are asked for; memory is bounded.

        Args:
            idle_s: the longest time between two requests, and the longest wait for a thread.
            total_s: the longest time in all, because an open read keeps the WAL growing.

        Raises:
            what `query` raises; RequestTimeout when a limit passed, behind the rows that were read in time.
        """
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
                    yield rows
                    rows = []
                else:
                    await _news_or_next_turn(state, news)
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
        old, new = self._open_files(), _Files(path, self._settings)
        self._files = new
        self._loop.add_reader(new.pool.fileno(), self._on_news, new)
        self._retired.append(old)
        self._let_go_of_idle_ones()

    async def close(self) -> None:
        """Ends all reads with ShuttingDown, waits for the threads (2 s at most), closes the connections."""
        remaining = self._retired + ([self._files] if self._files is not None else [])
        self._files = None
        for files in remaining:
            files.stop()
        deadline = self._loop.time() + CLOSE_LIMIT_S
        while any(not files.ended() for files in remaining) and self._loop.time() < deadline:
            news = asyncio.Event()
            for files in remaining:
                files.on_thread_end = news.set
            if any(not files.ended() for files in remaining):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), max(0.0, deadline - self._loop.time()))
        for files in remaining:
            self._forget(files)

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

    def _open_files(self) -> _Files:
        files = self._files
        if files is None:
            raise of_read(ShuttingDown("the readers are closed"))
        return files

    def _done(self, files: _Files, job: ReadJob) -> None:
        files.unwatch(job)
        if self._retired:
            self._let_go_of_idle_ones()

    def _on_news(self, files: _Files) -> None:
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

    def _forget(self, files: _Files) -> None:
        self._loop.remove_reader(files.pool.fileno())
        files.tell()
        if not files.close():
            log.warning("a reader thread did not end within %.1f s; its connection is left to it", CLOSE_LIMIT_S)


class _Files:
    """The connections on one database file: the calling thread's, and the pool with one for each thread."""

    def __init__(self, path: Path | str, settings: ReaderSettings) -> None:
        self.on_thread_end: Callable[[], None] | None = None
        self._waiting: dict[int, asyncio.Event] = {}  # by the job's token
        with contextlib.ExitStack() as undo:
            self._connection = open_reader(path, settings.connection)
            undo.callback(self._connection.close)
            for module in (reads, readpool):
                _load_once(self._connection, module)
            self.pool = ReaderPool(
                queue_max=settings.queue_max,
                queue_bytes_max=settings.queue_bytes_max,
                waiting_bytes_max=settings.waiting_bytes_max,
            )
            undo.callback(self.pool.close)
            guard_address = guard.api_address()
            for _ in range(max(THREADS_MIN, settings.threads)):
                connection = open_reader(path, settings.connection)
                self.pool.add_thread(connection, connection.sqlite3_pointer(), guard_address)
            self.inline = ReadConnection(self._connection.sqlite3_pointer(), settings.statement_cache, guard_address)
            undo.pop_all()
        self._at_exit = _stop_at_exit(self.pool)

    def watch(self, job: ReadJob) -> asyncio.Event:
        """An event that is set whenever the job has news."""
        news = self._waiting[job.token] = asyncio.Event()
        return news

    def unwatch(self, job: ReadJob) -> None:
        """Nobody waits for it any more: stops it if it is not done."""
        del self._waiting[job.token]
        job.cancel()

    def tell(self) -> None:
        for token in self.pool.news():
            news = self._waiting.get(token)
            if news is not None:
                news.set()
        if self.on_thread_end is not None:
            self.on_thread_end()

    def idle(self) -> bool:
        return not self._waiting

    def stop(self) -> None:
        """Reads under way end with ShuttingDown; threads end soon."""
        self.inline.close()
        self.pool.close()

    def ended(self) -> bool:
        return self.pool.join(0.0) == 0

    def close(self) -> bool:
        """After `stop`: closes what no thread uses; False when a thread lives on with its connection."""
        atexit.unregister(self._at_exit)
        self._connection.close()
        if not self.ended():
            return False
        for connection in self.pool.take_connections():
            connection.close()
        return True


def _stop_at_exit(pool: ReaderPool) -> Callable[[], None]:
    """A process that exits without closing does not crash under a running thread, and does not hang."""
    kept = weakref.ref(pool)

    def stop() -> None:
        if (left := kept()) is not None:
            left.close()
            left.join(CLOSE_LIMIT_S)

    atexit.register(stop)
    return stop


def _load_once(connection: apsw.Connection, module: ModuleType) -> None:
    """Hands the API of apsw's SQLite to an extension module: loading it as SQLite extension does that."""
    if not module.have_api():
        connection.enable_load_extension(True)
        connection.load_extension(str(module.__file__), "sqlite3_reads_init")
        connection.enable_load_extension(False)


async def _news_or_next_turn(state: int, news: asyncio.Event) -> None:
    if state == LATER:
        await news.wait()
        news.clear()
    else:
        await asyncio.sleep(0)


def _at_least_one_ns(seconds: float) -> int:
    return max(1, int(seconds * 1e9))
