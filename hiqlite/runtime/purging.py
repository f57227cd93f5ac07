"""When a log lets go of its old entries: behind a durable database, but for a tail that others may still need.

Knows indexes and bytes. Must not know files or SQL. Invariants: nothing is purged that the database does not hold
durably, nor what the engine keeps for an image under way; what a connected peer lacks stays, until the log has grown to
`PINNED_BYTES_MAX`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from hiqlite import observe
from hiqlite.engine.ports import LogStore, StateMachine

log = observe.logger("runtime")

# After so many turns the database is asked again: a reader may have kept the checkpoint from getting to the end, and
# without further writes nothing else would ask.
ASKED_AGAIN_TURNS: Final = 20

# How large a log may become because a connected peer lags behind, or an image is under way; then they have to begin
# anew, from a newer image.
PINNED_BYTES_MAX: Final = 1 << 30


class PurgingEngine(Protocol):
    """What the engine has to say about the log's beginning."""

    @property
    def base_index(self) -> int: ...
    @property
    def purge_limit(self) -> int:
        """Applied, and behind every image that is under way."""
        ...

    @property
    def needed_from(self) -> int:
        """The lowest entry that a connected peer of this leader lacks."""
        ...

    @property
    def faulty(self) -> tuple[tuple[int, int], ...]:
        """Closed ranges of damaged entries."""
        ...

    @property
    def applied_index(self) -> int: ...
    def term_at(self, index: int) -> int: ...
    def purged(self, index: int) -> None: ...


class Purger:
    """Of one group's log.

    Args:
        every: purge when so many entries can go; so many stay as a tail for peers that are away for a moment.
    """

    def __init__(self, log_store: LogStore, machine: StateMachine, every: int) -> None:
        self._log_store = log_store
        self._machine = machine
        self._every = every
        self._asked_index = 0
        self._turns = 0  # since then
        self.pinned_index: Callable[[], int] = lambda: -1  # of images that are made or kept for peers; -1: none

    def turn(self, engine: PurgingEngine) -> None:
        """Look whether there is something to do. Called now and then, not for every entry."""
        durable_index = self._machine.durable_index
        self._turns += 1
        asked_index = self._asked_index if self._turns < ASKED_AGAIN_TURNS else 0
        if engine.applied_index - max(durable_index, asked_index) >= self._every:
            self._asked_index, self._turns = engine.applied_index, 0
            self._machine.make_durable()
        index = min(durable_index, engine.applied_index) - self._every
        if self._log_store.held_bytes <= PINNED_BYTES_MAX:
            pinned_index = self.pinned_index()
            index = min(index, engine.purge_limit, engine.needed_from - 1)
            index = min(index, pinned_index) if pinned_index >= 0 else index
        for low, _ in engine.faulty:  # whatever else gives way, what is damaged here is not purged unread
            index = min(index, low - 1)
        if index - engine.base_index >= self._every:
            log.debug("the log is purged up to entry %d", index)
            self._log_store.purge(index, engine.term_at(index))
            engine.purged(index)
