"""This node's looks at its own database, at exactly the entries that scrub marks name.

Part of the composition root: it connects the feed of the state machine, which stops at a mark, with a connection that
takes a snapshot there and a thread that reads it. Invariants: applying waits for a snapshot to begin and for nothing
else; whoever gave up asking leaves no connection, thread or snapshot behind.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import apsw

from hiqlite import observe
from hiqlite.errors import SnapshotCorruption, StorageError
from hiqlite.node_database import DatabaseStorage
from hiqlite.runtime.marks import Marks
from hiqlite.runtime.scrub_record import Found, ScrubMark
from hiqlite.statemachine.equality import Place, hash_part, one_snapshot

LOOKS_MAX = 8
READING_MAX = 2  # somebody may ask for a comparison during a scrub
# A look is never in a hurry: this part of the time its thread reads, else the processor is left to the node.
DUTY = 0.25
log = observe.logger("node")


class _Look:
    """At one mark: it waits for it, is read, and has an end; `given_up` from any thread."""

    def __init__(
        self, path: Path, connection: apsw.Connection, duty: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.path = path
        self._duty = duty
        self.found: asyncio.Future[Found] = loop.create_future()
        self.found.add_done_callback(lambda future: future.cancelled() or future.exception())  # perhaps nobody asks
        self.reading: asyncio.Future[Found] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._connection = connection
        self._snapshot = one_snapshot(connection)
        self._given_up = threading.Event()

    def begin(self) -> None:
        """The snapshot is of what is applied now."""
        self._snapshot.__enter__()

    def read(self, index: int, mark: ScrubMark) -> Found:
        """On a thread."""
        try:
            part = hash_part(self._connection, Place(mark.table, mark.key), mark.bytes_max or None, self._rest())
        finally:
            self._snapshot.__exit__(None, None, None)
            self._connection.close(True)
        return Found(index, part.digest, None if part.end is None else (part.end.table, part.end.key))

    def give_up(self) -> None:
        """Nobody asks any more."""
        self.found.cancel()
        if self.timer is not None:
            self.timer.cancel()
        self._given_up.set()
        if self.reading is None:
            self._connection.close(True)
        elif not self.reading.done():
            with suppress(apsw.ConnectionClosedError):  # the thread closes it
                self._connection.interrupt()

    def _rest(self) -> Callable[[], None]:
        """Between two steps of the thread."""
        began_s = time.perf_counter()

        def rest() -> None:
            nonlocal began_s
            if self._given_up.wait((time.perf_counter() - began_s) * (1 / self._duty - 1)):
                raise StorageError("nobody asks for it any more")
            began_s = time.perf_counter()

        return rest


class Looks:
    """Of one node. `damaged` is told of a database that cannot be read."""

    def __init__(
        self,
        storage: DatabaseStorage,
        marks: Marks,
        damaged: Callable[[SnapshotCorruption], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._storage = storage
        self._marks = marks
        self._damaged = damaged
        self._loop = loop
        self._looks: dict[int, _Look] = {}  # number of the mark -> the look, oldest first
        self._waited: dict[int, _Look] = {}  # those whose mark has not come yet
        self._opening = ThreadPoolExecutor(1, "hiqlite-scrub-open")
        self._threads = ThreadPoolExecutor(READING_MAX, "hiqlite-scrub")
        self._closed = False
        self.duty = DUTY

    async def expect(self, number: int, patience_s: float) -> None:
        """The mark of this number will come, and somebody asks within `patience_s` what was found.

        Raises:
            StorageError: the database cannot be opened once more, or the node is about to stop.
        """
        self._check_open()
        path = self._storage.database
        connection = await self._loop.run_in_executor(self._opening, self._storage.open_reader)
        if self._closed:
            connection.close(True)
        self._check_open()
        while len(self._looks) >= LOOKS_MAX:
            ended = (one for one, look in self._looks.items() if look.found.done())
            self._forget(next(ended, next(iter(self._looks))))
        look = self._looks[number] = self._waited[number] = _Look(path, connection, self.duty, self._loop)
        look.timer = self._loop.call_later(patience_s, self._forget, number)
        self._marks.expect(self._met)

    def found(self, number: int) -> Found | None:
        """What was found behind that mark; None: not known yet. Raises StorageError: it never will be."""
        look = self._looks.get(number)
        if look is None:
            raise StorageError("this node did not look there")
        return look.found.result() if look.found.done() else None

    def last(self, index: int) -> bytes | None:
        """The digest that this node found behind the entry `index`; None: it did not look there."""
        done = (look.found for look in self._looks.values() if look.found.done() and not look.found.cancelled())
        found = (future.result() for future in done if future.exception() is None)
        return next((one.digest for one in found if one.index == index), None)

    async def close(self) -> None:
        self._closed = True
        reading = [look.reading for look in self._looks.values() if look.reading is not None]
        for number in list(self._looks):
            self._forget(number)
        await asyncio.gather(*reading, return_exceptions=True)
        for executor in (self._opening, self._threads):
            executor.shutdown()

    # -- inside

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("the node is about to stop")

    def _met(self, index: int, payload: bytes) -> None:
        """Everything up to the mark is applied and nothing behind it: called by the feed, which waits."""
        mark = ScrubMark.decode(payload)
        look = self._waited.pop(mark.number, None)
        if not self._waited:
            self._marks.expect(None)
        if look is None:
            return
        reading = sum(one.reading is not None and not one.reading.done() for one in self._looks.values())
        if look.path != self._storage.database:
            look.found.set_exception(StorageError("an image took the place of the database meanwhile"))
        elif reading >= READING_MAX:
            look.found.set_exception(StorageError("this node is busy with other looks"))
        else:
            try:
                look.begin()
            except apsw.Error as error:
                look.found.set_exception(StorageError(f"the database cannot be read: {error}"))
                return
            look.reading = self._loop.run_in_executor(self._threads, look.read, index, mark)
            look.reading.add_done_callback(lambda future: self._read(look, future))

    def _read(self, look: _Look, future: asyncio.Future[Found]) -> None:
        error = None if future.cancelled() else future.exception()
        if look.found.done() or future.cancelled():
            return
        if error is None:
            look.found.set_result(future.result())
            return
        if isinstance(error, apsw.CorruptError | apsw.NotADBError):
            error = SnapshotCorruption(f"{look.path} is damaged: {error}")
            self._damaged(error)
        look.found.set_exception(error if isinstance(error, StorageError) else StorageError(f"not read: {error}"))

    def _forget(self, number: int) -> None:
        look = self._looks.pop(number, None)
        self._waited.pop(number, None)
        if not self._waited:
            self._marks.expect(None)
        if look is not None:
            look.give_up()
