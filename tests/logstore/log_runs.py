"""Opening real logs in tests, and waiting for what they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from hiqlite.logstore.meta import Meta
from hiqlite.logstore.recovered import Recovered
from hiqlite.logstore.wal import WalLog
from tests.logstore.log_twin import NODE

DEADLINE_S = 30.0


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that the loop's turns bring about."""
    limit = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < limit, "the condition never came true"
        await asyncio.sleep(0)


def open_log(
    folder: Path, meta: Meta, *, log_sync: str = "immediate", segment_bytes: int = 64 << 10, accept_loss: bool = False
) -> tuple[WalLog, Recovered]:
    return WalLog.open(
        folder / "log",
        meta,
        group=0,
        identity=NODE,
        segment_bytes=segment_bytes,
        log_sync=log_sync,
        accept_loss=accept_loss,
    )


@asynccontextmanager
async def running(
    folder: Path, *, log_sync: str = "immediate", segment_bytes: int = 64 << 10, accept_loss: bool = False
) -> AsyncIterator[tuple[WalLog, Recovered]]:
    """A log with metadata of its own, closed at the end."""
    meta = Meta.open(folder / "meta")
    try:
        log, recovered = open_log(
            folder, meta, log_sync=log_sync, segment_bytes=segment_bytes, accept_loss=accept_loss
        )
        try:
            yield log, recovered
        finally:
            await log.close()
    finally:
        meta.close()
