"""The connections on one database file: the calling thread's, and native reader threads with one each.

Must not know the loop: it is told of news by who watches the pool. Invariant: a connection is closed when no thread
uses it any more, or never; a process that exits is not held up by a thread, and does not crash under one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Final

import apsw

from hiqlite import observe
from hiqlite._accel import guard, readpool, reads
from hiqlite._accel.readpool import ReaderPool, ReadJob
from hiqlite._accel.reads import ReadConnection
from hiqlite.errors import ConfigError

from .connection import ConnectionSettings, open_reader

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


class ReaderFiles:
    """The connections on one database file: the calling thread's, and the pool with one for each thread."""

    def __init__(self, path: Path | str, settings: ReaderSettings) -> None:
        self.on_thread_end: Callable[[], None] | None = None
        self.left = False  # to the parent of this process
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

    def wake_all(self) -> None:
        """In a forked child: no news will come."""
        self.left = True
        for news in self._waiting.values():
            news.set()

    def idle(self) -> bool:
        return not self._waiting

    def stop(self) -> None:
        """Reads under way end with ShuttingDown; threads end soon."""
        self.inline.close()
        self.pool.close()

    def ended(self) -> bool:
        return self.pool.join(0.0) == 0

    def close(self) -> None:
        """After `stop`: closes what no thread uses; a thread that lives on keeps its connection."""
        atexit.unregister(self._at_exit)
        self._connection.close()
        if not self.ended():
            log.warning("a reader thread did not end within %.1f s; its connection is left to it", CLOSE_LIMIT_S)
        for connection in self.pool.take_connections():
            connection.close()


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
