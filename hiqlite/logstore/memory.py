"""A log in memory with the behaviour of the one on disk: for groups without a disk log, and for tests.

Must not know Raft. Completion comes with the next turn of the loop, never inside the call, so that whoever uses it
meets the same order of events as with a disk. Invariant: what was truncated or purged is never read.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable

from hiqlite.engine.model import Identity
from hiqlite.engine.ports import LogPurged
from hiqlite.errors import StorageError, UsageError


class MemoryLog:
    """ports.LogStore without a disk. `last_hard_state` is what was recorded last, for tests that restart."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None = None, *, base_index: int = 0, io_sequence: int = 0
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._callback: Callable[[], None] | None = None
        self._firsts: list[int] = []  # first index of each chunk, ascending
        self._chunks: list[bytes] = []
        self._base_index = self._last_index = base_index
        self._submitted = self._done = io_sequence
        self._queued_bytes = 0
        self._told = True
        self._closed = False
        self.last_hard_state: tuple[int, Identity | None] = (0, None)

    def append(self, io_sequence: int, first: int, last: int, records: bytes) -> None:
        if first != self._last_index + 1 or last < first or len(records) < 64 * (last - first + 1):
            raise UsageError(f"entries {first} to {last} do not follow entry {self._last_index}")
        self._take(io_sequence, len(records))
        self._firsts.append(first)
        self._chunks.append(records)
        self._last_index = last

    def truncate(self, io_sequence: int, last_kept: int) -> None:
        self._take(io_sequence, 64)
        while self._firsts and self._firsts[-1] > last_kept:
            self._firsts.pop()
            self._chunks.pop()
        if self._firsts and self._last_index > last_kept:
            self._chunks[-1] = self._chunks[-1][: _offset(self._chunks[-1], last_kept + 1 - self._firsts[-1])]
        self._last_index = min(self._last_index, last_kept)

    def hard_state(self, io_sequence: int, term: int, vote: Identity | None) -> None:
        self._take(io_sequence, 72)
        self.last_hard_state = (term, vote)

    def reset(self, io_sequence: int, index: int, term: int) -> None:
        """Empties the log: it begins behind (index, term)."""
        del term
        if index < self._base_index:
            raise UsageError(f"the log begins behind entry {self._base_index}, it cannot begin behind {index}")
        self._empty(io_sequence, index)

    async def restart_at(self, index: int, term: int) -> int:
        """Empties the log: it begins behind (index, term), lower than before too. Returns the io sequence used."""
        del term
        self._empty(self._submitted + 1, index)
        self._complete()  # nothing else is under way before the engine starts
        return self._submitted

    def append_repair(self, io_sequence: int, first: int, last: int, records: bytes) -> None:
        """Nothing in memory is ever unreadable; it counts as written like any other."""
        if first <= self._base_index or last > self._last_index:
            raise UsageError(f"entries {first} to {last} are not in the log ({self._base_index}, {self._last_index}]")
        self._take(io_sequence, len(records))

    def purge(self, index: int, term: int) -> None:
        """Everything up to `index` cannot be read any more; memory goes with whole chunks."""
        del term
        if index > self._last_index:
            raise UsageError(f"cannot purge up to entry {index}: the last one is {self._last_index}")
        self._base_index = max(self._base_index, index)
        gone = 0
        while gone < len(self._firsts) and (
            self._firsts[gone + 1] - 1 if gone + 1 < len(self._firsts) else self._last_index
        ) <= index:
            gone += 1
        del self._firsts[:gone], self._chunks[:gone]

    def on_progress(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    @property
    def written(self) -> int:
        return self._done

    @property
    def synced(self) -> int:
        return self._done

    @property
    def queued_bytes(self) -> int:
        return self._queued_bytes

    @property
    def held_bytes(self) -> int:
        return sum(map(len, self._chunks))

    @property
    def failure(self) -> Exception | None:
        return None

    @property
    def disk_full(self) -> bool:
        return False

    @property
    def busy(self) -> bool:
        return False

    @property
    def progress_stamp_ns(self) -> int:
        return 0

    @property
    def waiting_since_ns(self) -> int:
        return 0

    @property
    def base_index(self) -> int:
        return self._base_index

    @property
    def last_index(self) -> int:
        return self._last_index

    async def read(self, first: int, size_max: int) -> tuple[int, bytes]:
        if first <= self._base_index:
            raise was_purged(first, self._base_index)
        if first > self._last_index:
            raise StorageError(f"entry {first} is not in the log", hint="it was never written here, or cut")
        place = bisect_right(self._firsts, first) - 1
        chunk, index = self._chunks[place], self._firsts[place]
        at = _offset(chunk, first - index)
        out = bytearray()
        index = first
        while True:
            while at < len(chunk):
                end = at + int.from_bytes(chunk[at : at + 4], "little")
                if out and len(out) + end - at > size_max:
                    return index - 1, bytes(out)
                out += chunk[at:end]
                at, index = end, index + 1
            place += 1
            if place == len(self._chunks):
                return index - 1, bytes(out)
            chunk, at = self._chunks[place], 0

    async def close(self) -> None:
        self._closed = True

    def _empty(self, io_sequence: int, index: int) -> None:
        self._take(io_sequence, 64)
        self._firsts.clear()
        self._chunks.clear()
        self._base_index = self._last_index = index

    def _take(self, io_sequence: int, size_bytes: int) -> None:
        if self._closed:
            raise UsageError("the log is not open")
        if io_sequence <= self._submitted:
            raise UsageError(f"io sequence {io_sequence} after {self._submitted}")
        self._submitted = io_sequence
        self._queued_bytes += size_bytes
        if self._told:
            self._told = False
            self._loop.call_soon(self._complete)

    def _complete(self) -> None:
        self._told = True
        self._done = self._submitted
        self._queued_bytes = 0
        if self._callback is not None and not self._closed:
            self._callback()


def was_purged(index: int, base_index: int) -> LogPurged:
    """The error of a read below the beginning of a log."""
    return LogPurged(f"entry {index} is purged, the log begins behind {base_index}", hint="an image holds it")


def _offset(records: bytes, count: int) -> int:
    """Where the record behind the first `count` ones begins."""
    at = 0
    for _ in range(count):
        at += int.from_bytes(records[at : at + 4], "little")
    return at
