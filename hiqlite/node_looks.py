"""This node's looks at its own database, at exactly the entries that scrub marks name.

Part of the composition root: it connects the feed of the state machine, which stops at a mark, with a connection that
takes a snapshot there and a thread that reads it. Invariants: applying waits for a snapshot to begin and for nothing
else; whoever gave up asking leaves no connection, thread or stop behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import apsw

from hiqlite import observe
from hiqlite.errors import StorageError
from hiqlite.node_database import DatabaseStorage
from hiqlite.runtime.marks import Marks
from hiqlite.runtime.scrub_record import Found, ScrubMark
from hiqlite.statemachine.equality import Place, hash_part, one_snapshot

# How long a mark is waited for, and what was found is kept for who asks: a node that lags comes to it late.
PATIENCE_S = 300.0
LOOKS_MAX = 8
THREADS = 2  # somebody may ask for a comparison during a scrub
# A look is never in a hurry: this part of the time its thread reads, else the processor is left to the node.
DUTY = 0.25
log = observe.logger("node")


class _Look:
    """At one mark."""

    def __init__(self, path: Path, connection: apsw.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self.found: asyncio.Future[Found] = loop.create_future()
        self.found.add_done_callback(lambda future: future.cancelled() or future.exception())  # perhaps nobody asks
        self._connection = connection
        self._open = ExitStack()
        self._open.callback(connection.close)

    def begin(self) -> None:
        """The snapshot is of what is applied now."""
        self._open.enter_context(one_snapshot(self._connection))

    def read(self, index: int, mark: ScrubMark, rest: Callable[[], None]) -> Found:
        """On a thread."""
        with closing(self._open):
            part = hash_part(self._connection, Place(mark.table, mark.key), mark.bytes_max or None, rest)
        return Found(index, part.digest, None if part.end is None else (part.end.table, part.end.key))

    def drop(self) -> None:
        self._open.close()


class Looks:
    """Of one node."""

    def __init__(self, storage: DatabaseStorage, marks: Marks, loop: asyncio.AbstractEventLoop) -> None:
        self._storage = storage
        self._marks = marks
        self._loop = loop
        self._looks: dict[int, _Look] = {}  # number of the mark -> the look, oldest first
        self._waited: dict[int, _Look] = {}  # those whose mark has not come yet
        self._threads = ThreadPoolExecutor(THREADS, "hiqlite-scrub")
        self._closed = False

    async def expect(self, number: int) -> None:
        """The mark of this number will come. Raises StorageError: the database cannot be opened once more."""
        path = self._storage.database
        connection = await self._loop.run_in_executor(self._threads, self._storage.open_reader)
        if self._closed:
            connection.close()
            raise StorageError("the node is shutting down")
        while len(self._looks) >= LOOKS_MAX:
            self._forget(next(iter(self._looks)))
        self._looks[number] = self._waited[number] = _Look(path, connection, self._loop)
        self._marks.expect(self._met)
        self._loop.call_later(PATIENCE_S, self._forget, number)

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

    def close(self) -> None:
        self._closed = True
        self._marks.expect(None)
        for number in list(self._looks):
            self._forget(number)
        self._threads.shutdown()  # each step is short, and the next one does not begin

    # -- inside

    def _met(self, index: int, payload: bytes) -> None:
        """Everything up to the mark is applied and nothing behind it: called by the feed, which waits."""
        mark = ScrubMark.decode(payload)
        look = self._waited.pop(mark.number, None)
        if not self._waited:
            self._marks.expect(None)
        if look is None:
            return
        if look.path != self._storage.database:
            self._end(look, StorageError("an image took the place of the database meanwhile"))
            return
        look.begin()
        reading = self._loop.run_in_executor(self._threads, look.read, index, mark, self._rest())
        reading.add_done_callback(lambda future: self._read(look, future))

    def _read(self, look: _Look, future: asyncio.Future[Found]) -> None:
        error = future.exception() if not future.cancelled() else StorageError("the node is shutting down")
        if error is not None:
            self._end(look, error if isinstance(error, StorageError) else StorageError(f"it cannot be read: {error}"))
        elif not look.found.done():
            look.found.set_result(future.result())

    def _end(self, look: _Look, error: StorageError) -> None:
        look.drop()
        if not look.found.done():
            look.found.set_exception(error)

    def _forget(self, number: int) -> None:
        look = self._looks.pop(number, None)
        if look is None:
            return
        if self._waited.pop(number, None) is not None:  # else the thread has the connection
            look.drop()
        if not self._waited:
            self._marks.expect(None)
        look.found.cancel()

    def _rest(self) -> Callable[[], None]:
        """Between two steps of the thread."""
        began_s = time.perf_counter()

        def rest() -> None:
            nonlocal began_s
            if self._closed:
                raise StorageError("the node is shutting down")
            time.sleep((time.perf_counter() - began_s) * (1 / DUTY - 1))
            began_s = time.perf_counter()

        return rest
