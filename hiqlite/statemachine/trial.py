"""Trials on the writer's thread, one at a time: a write is run there and undone, under a limit of time.

Must not know who wants to know, nor what the write says. Invariant: the thread is asked for a trial only when the one
before it has ended, also where nobody waits for that one any more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from hiqlite._accel.apply import Applier, Trial
from hiqlite.errors import DiskFull, HiqliteError, Outcome, Overloaded, ShuttingDown, StatementTimeout, StorageError

PRIMARY_MASK: Final = 0xFF
MEMORY_BYTES_MAX: Final = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
NOT_APPLIED: Final[Outcome] = "not_applied"


def free_bytes(folder: Path) -> int:
    """What is free on the disk for this process."""
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


class Trials:
    """Of one writer, whose database is in `folder`. `ended` is to be called whenever the applier's descriptor was
    readable.

    Args:
        kept_bytes: a trial takes half of what is free on the disk beside them.
    """

    def __init__(
        self, applier: Applier, folder: Path, loop: asyncio.AbstractEventLoop, kept_bytes: int = 0
    ) -> None:
        self._applier = applier
        self.memory_bytes_max = MEMORY_BYTES_MAX
        self.disk_bytes_max: Callable[[], int] = lambda: max(0, free_bytes(folder) - kept_bytes) // 2
        self._loop = loop
        self._turn = asyncio.Lock()
        self._running: asyncio.Future[Trial | None] | None = None
        self._closed = False

    async def run(self, records: list[bytes], limits_ns: list[int]) -> Trial:
        """Writes run one after the other, each until its limit; all is undone.

        Raises:
            ShuttingDown: the writer is closed.
        """
        async with self._turn:
            if self._running is not None:  # of somebody who was cancelled
                await asyncio.wait([self._running])
            if self._closed or not self._asked(records, limits_ns):
                raise closed()
            running = self._running = self._loop.create_future()
            try:
                trial: Trial | None = await asyncio.shield(running)
            except asyncio.CancelledError:
                if not running.done():
                    self._applier.cancel_trial()
                raise
        if trial is None:
            raise closed()
        return trial

    def _asked(self, records: list[bytes], limits_ns: list[int]) -> bool:
        try:
            return self._applier.try_out(
                records, limits_ns, disk_bytes_max=self.disk_bytes_max(), memory_bytes_max=self.memory_bytes_max
            )
        except MemoryError as error:
            raise Overloaded("no memory to try the write") from error

    def ended(self) -> None:
        trial = self._applier.trial_ended()
        if trial is not None and self._running is not None:
            running, self._running = self._running, None
            running.set_result(trial)

    def close(self) -> None:
        """The thread has ended."""
        self._closed = True
        if self._running is not None:
            running, self._running = self._running, None
            running.set_result(None)


def closed() -> ShuttingDown:
    return ShuttingDown("the state machine is closed", outcome=NOT_APPLIED)


def refusal_of(trial: Trial, limit_ns: int) -> HiqliteError | None:
    """Why the write behind those that ran to their end may not be proposed; None: it was not begun.

    Args:
        limit_ns: its limit.
    """
    if trial.late:
        return StatementTimeout(
            f"the write was tried for {limit_ns / 1e9:.3g} s and had not ended",
            hint="make it cheaper, do it in parts, or allow more: statement_timeout, a timeout above request_timeout",
            outcome=NOT_APPLIED,
        )
    if trial.out_of_disk:
        return DiskFull("the write needs more than half of what is free on the disk", outcome=NOT_APPLIED)
    if trial.out_of_memory:
        return Overloaded("the write needs more than a quarter of the machine's memory", outcome=NOT_APPLIED)
    if trial.given_up:
        return ShuttingDown("the trial of this write was given up", outcome=NOT_APPLIED)
    if trial.failure is None:
        return None
    code, message = trial.failure
    primary = code & PRIMARY_MASK
    if primary == apsw.SQLITE_INTERRUPT:
        return ShuttingDown("the trial of this write was given up", outcome=NOT_APPLIED)
    if primary == apsw.SQLITE_FULL:
        return DiskFull(f"the write does not fit on the disk: {message}", outcome=NOT_APPLIED)
    if primary == apsw.SQLITE_NOMEM:
        return Overloaded(f"the write needs more memory than there is: {message}", outcome=NOT_APPLIED)
    return StorageError(f"the write could not be tried: {message}", outcome=NOT_APPLIED)
