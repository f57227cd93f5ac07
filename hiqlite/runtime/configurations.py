"""Committed configurations on their way to the metadata.

A log can be purged, and a loss of power can take what only the log had; the metadata then say who the members are. Must
not know files. Invariant: no entry from a configuration's index on is applied here before the metadata name it, so a
database is never ahead of the members that its node knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hiqlite.engine.model import Membership
from hiqlite.errors import StorageError

from .applier import Applier

Record = Callable[[Membership], Awaitable[None]]


class Configurations:
    """Of one group.

    Args:
        record: puts one into the metadata, durably.
        fail: told when that failed.
    """

    def __init__(
        self,
        record: Record,
        applier: Applier,
        loop: asyncio.AbstractEventLoop,
        *,
        fail: Callable[[StorageError], None],
    ) -> None:
        self._record = record
        self._applier = applier
        self._loop = loop
        self._fail = fail
        self._waiting: list[Membership] = []
        self._task: asyncio.Task[None] | None = None
        self.recorded_index = 0

    def committed(self, memberships: tuple[Membership, ...]) -> None:
        """These are committed; applying waits before the first of them until it is recorded."""
        news = [one for one in memberships if one.index > self.recorded_index and one not in self._waiting]
        if not news:
            return
        self._waiting += news
        self._applier.hold(self._waiting[0].index)
        if self._task is None:
            self._task = self._loop.create_task(self._work(), name="hiqlite-membership")

    def recorded(self, membership: Membership) -> None:
        """This one is on disk, from the log or with an image; it stands for those before it."""
        self.recorded_index = max(self.recorded_index, membership.index)
        self._waiting = [one for one in self._waiting if one.index > self.recorded_index]
        self._applier.hold(self._waiting[0].index if self._waiting else 0)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _work(self) -> None:
        try:
            while self._waiting:
                newest = self._waiting[-1]
                await self._record(newest)
                self.recorded(newest)
        except Exception as error:
            self._fail(error if isinstance(error, StorageError) else StorageError(f"internal error: {error!r}"))
        finally:
            self._task = None
