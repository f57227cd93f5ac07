"""The state machine of the cache group: applies committed entries on the loop, in order.

It holds no caches yet: of all entries only the mirrored changes of members leave a trace. Must not know what such a
change says, nor files: who keeps the state durably is given from outside. Invariants: an entry is applied once, in
order; a mirrored change never takes the place of a newer one; `durable_index` is that of a state that was kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from hiqlite import observe
from hiqlite._accel.records import HEADER_SIZE, EntryKind, find_kind, header
from hiqlite.errors import HiqliteError, StorageError

from .state import MIRRORED_BYTES_MAX, CacheState

INDEX_BYTES: Final = 8  # a mirrored change begins with the index that it has in the other group
log = observe.logger("cache")
Keep = Callable[[CacheState], Awaitable[None]]


class CacheRun:
    """Applied entries; their answers are empty."""

    __slots__ = ("first", "last")
    changed_schema = False
    slow_texts = ()

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last

    def answer(self, index: int) -> bytes:
        assert self.first <= index <= self.last
        return b""


class CacheMachine:
    """ports.StateMachine of the cache group.

    Args:
        state: what it begins with.
        keep: makes a state durable; None: nothing of this group outlives the process, and all of it counts as durable.

    `on_applied` is told the index after each turn in which something was applied.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, state: CacheState | None = None, *, keep: Keep | None = None
    ) -> None:
        self._loop = loop
        self._keep = keep
        self.state = state or CacheState()
        self.on_applied: Callable[[int], None] = lambda _index: None
        self._durable_index = self.state.applied_index
        self._synced_index = 0
        self._wanted = False  # a durable state is asked for
        self._keeping: asyncio.Task[None] | None = None
        self._waiting: list[tuple[int, int, int, Sequence[bytes]]] = []
        self._turn: asyncio.Handle | None = None
        self._runs: list[CacheRun] = []
        self._progress: Callable[[], None] = lambda: None
        self._closed = False
        self.queued_bytes = 0
        self.failure: HiqliteError | None = None

    # -- ports.StateMachine

    @property
    def applied_index(self) -> int:
        return self.state.applied_index

    @property
    def applied_term(self) -> int:
        return self.state.applied_term

    @property
    def applied_group_time_ns(self) -> int:
        return self.state.group_time_ns

    @property
    def durable_index(self) -> int:
        return self._durable_index if self._keep is not None else self.applied_index

    def on_progress(self, callback: Callable[[], None]) -> None:
        self._progress = callback

    def submit(self, first: int, last: int, last_term: int, records: Sequence[bytes], answers: bool) -> bool:
        self._waiting.append((first, last, last_term, records))
        self.queued_bytes += sum(map(len, records))
        if self._turn is None and not self._closed:
            self._turn = self._loop.call_soon(self._apply)
        return False

    def take(self) -> Sequence[CacheRun]:
        runs, self._runs = self._runs, []
        return runs

    def set_synced_index(self, index: int) -> None:
        self._synced_index = max(self._synced_index, index)
        self._keep_if_wanted()

    def make_durable(self) -> None:
        self._wanted = True
        self._keep_if_wanted()

    @property
    def broken(self) -> bool:
        return False  # its state is written whole, to another file each time

    def resume(self) -> None:
        """A state that could not be kept is tried again."""
        self.failure = None
        self.make_durable()

    async def close(self) -> None:
        """What was submitted is applied; a state that is being kept is kept."""
        if self._turn is not None:
            self._turn.cancel()
            self._apply()
        self._closed = True
        if self._keeping is not None:
            await asyncio.gather(self._keeping, return_exceptions=True)

    # -- for images

    async def replace(self, state: CacheState) -> None:
        """Goes on from another state, which is durable already; nothing is submitted meanwhile."""
        if self._turn is not None:
            self._turn.cancel()
        if self._keeping is not None:
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._waiting.clear()
        self._turn = None
        self.queued_bytes = 0
        self.state = state
        self._durable_index = state.applied_index
        self._synced_index = max(self._synced_index, state.applied_index)
        self.on_applied(state.applied_index)

    def begin_at(self, index: int) -> None:
        """Nothing of the group is known before its first entry, which follows `index`."""
        assert self._keep is None and not self._waiting, "only what is in memory begins anywhere"
        self.state = CacheState(index)

    # -- inside

    def _apply(self) -> None:
        self._turn = None
        waiting, self._waiting = self._waiting, []
        self.queued_bytes = 0
        for first, last, last_term, records in waiting:
            assert first == self.state.applied_index + 1, "entries are applied in order, each once"
            index, mirrored = self.state.mirrored_index, self.state.mirrored
            for payload in mirrored_changes(records):
                its_index = int.from_bytes(payload[:INDEX_BYTES], "little")
                if its_index > index:
                    index, mirrored = its_index, payload[INDEX_BYTES:]
            time_ns = max(self.state.group_time_ns, newest_time_ns(records))
            self.state = CacheState(last, last_term, index, mirrored, time_ns)
            self._runs.append(CacheRun(first, last))
        self.on_applied(self.state.applied_index)
        self._progress()
        self._keep_if_wanted()

    def _keep_if_wanted(self) -> None:
        """A state goes to the disk only when this node's log holds all of it durably: it must never be ahead."""
        state = self.state
        if not self._wanted or self._keep is None or self._keeping is not None or self.failure is not None:
            return
        if state.applied_index > self._durable_index and self._synced_index >= state.applied_index:
            self._wanted = False
            self._keeping = self._loop.create_task(self._keep_state(self._keep, state), name="hiqlite-cache-state")

    async def _keep_state(self, keep: Keep, state: CacheState) -> None:
        try:
            await keep(state)
            self._durable_index = state.applied_index
        except StorageError as error:
            log.error("the cache group's state could not be written: %s", error)
            self.failure = error
        finally:
            self._keeping = None
        self._progress()
        self._keep_if_wanted()  # asked for meanwhile


def newest_time_ns(records: Sequence[bytes]) -> int:
    """Group time of the last one among whole records."""
    piece, offset = records[-1], 0
    while True:
        found = header(piece, offset)
        offset += found.length
        if offset >= len(piece):
            return found.group_time_ns


def mirrored_changes(records: Sequence[bytes]) -> list[bytes]:
    """Payloads of the mirrored changes among whole records, in their order."""
    found = []
    for piece in records:
        for offset in find_kind(piece, EntryKind.MIRROR):
            begin = offset + HEADER_SIZE
            payload = piece[begin : begin + header(piece, offset).payload_length]
            if INDEX_BYTES <= len(payload) <= MIRRORED_BYTES_MAX:
                found.append(payload)
    return found
