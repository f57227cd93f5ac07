"""How far the log of this node is: told to the engine when it has moved on, and what memory lets go of because of it.

Must not know what an entry is for. Invariant: memory keeps what the log does not hold durably.
"""

from __future__ import annotations

from collections.abc import Callable

from hiqlite.engine.ports import LogStore
from hiqlite.engine.raft import Raft

from .window import Window


class LogProgress:
    """Of one group.

    Args:
        before_shrinking: called before memory lets go of entries.
    """

    __slots__ = ("_before_shrinking", "_log_store", "_synced_io", "_window", "_written_io")

    def __init__(self, log_store: LogStore, window: Window, before_shrinking: Callable[[], object]) -> None:
        self._log_store = log_store
        self._window = window
        self._before_shrinking = before_shrinking
        self._written_io = self._synced_io = -1  # as the engine knows it

    def tell(self, engine: Raft, now_ns: int) -> int:
        """What is new goes to the engine; returns the io sequence up to which all is written."""
        synced_io, written_io = self._log_store.synced, self._log_store.written  # in this order: the log moves on
        if written_io != self._written_io or synced_io != self._synced_io:
            self._written_io, self._synced_io = written_io, synced_io
            engine.log_progress(written_io, synced_io, now_ns)
        return written_io

    def shrink(self, engine: Raft) -> None:
        """Memory within its limit, as far as the log gives what goes."""
        if not self._window.over_limit:
            return
        self._before_shrinking()
        if self._window.evict(engine.synced_index):
            engine.window_starts_at(self._window.first_index or engine.synced_index + 1)
