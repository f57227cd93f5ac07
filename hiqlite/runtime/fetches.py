"""Older entries for lagging followers: from the window when it holds them, else read by the log's own thread.

Knows indexes and bytes. Invariant: each request of the engine is answered once, and the bytes of an answer are kept
exactly until the message that carries them leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hiqlite import observe
from hiqlite.engine.model import Fetch
from hiqlite.engine.ports import LogStore
from hiqlite.errors import StorageError

from .window import Window

log = observe.logger("runtime")

# An entry that this disk cannot give is asked for again and again; so often, at most.
UNREADABLE_PAUSE_S = 0.5
# What the engine is told: (peer id, first, last, size in bytes); last < first when it could not be read.
Answer = Callable[[int, int, int, int], None]


class Fetches:
    """Requests under way, and the bytes of those that were answered.

    Args:
        answer: tells the engine.
        turn: a turn of the group, after an answer that came later.
    """

    def __init__(
        self,
        window: Window,
        log_store: LogStore,
        answer: Answer,
        turn: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._window = window
        self._log_store = log_store
        self._answer = answer
        self._turn = turn
        self._loop = loop
        self._ready: dict[tuple[int, int, int], bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, fetch: Fetch) -> None:
        """Answers at once where memory has the entries."""
        first = fetch.first
        if self._window.covers(first):
            last = self._window.last_within(first, fetch.size_max)
            self._give(fetch.peer_id, first, last, self._window.records(first, last))
            return
        task = self._loop.create_task(self._read(fetch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def take(self, peer_id: int, first: int, last: int) -> bytes | None:
        """The bytes that were fetched for exactly this message."""
        return self._ready.pop((peer_id, first, last), None)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ready.clear()

    def _give(self, peer_id: int, first: int, last: int, records: bytes) -> None:
        self._ready[(peer_id, first, last)] = records
        self._answer(peer_id, first, last, len(records))

    async def _read(self, fetch: Fetch) -> None:
        peer_id, first = fetch.peer_id, fetch.first
        try:
            last, records = await self._log_store.read(first, fetch.size_max)
        except StorageError as error:
            log.warning("entries from %d for node %d cannot be read: %s", first, peer_id, error)
            await asyncio.sleep(UNREADABLE_PAUSE_S)
            self._answer(peer_id, first, first - 1, 0)
            return
        self._give(peer_id, first, last, records)
        self._turn()
        # The engine may have changed its mind meanwhile (a truncation, a lost link): nothing is kept for later.
        self.take(peer_id, first, last)
