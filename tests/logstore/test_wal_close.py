"""Closing a log: once, for everybody who asks, and completely, whoever is cancelled while he waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hiqlite.engine.model import Identity
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.wal import WalLog
from tests.cluster.traces import Traces
from tests.logstore.log_twin import entries


def opened(folder: Path, meta: Meta) -> WalLog:
    log, _ = WalLog.open(
        folder / "log", meta, group=0, identity=Identity(1, 1), segment_bytes=64 << 10, log_sync="immediate"
    )
    return log


@pytest.mark.parametrize("turns", range(8))
async def test_a_close_that_is_cancelled_closes_all_the_same(tmp_path: Path, turns: int) -> None:
    """After so many turns of the loop: no thread and no file is left, what was appended is on disk."""
    meta = Meta.open(tmp_path / "meta")
    warm = opened(tmp_path, meta)
    await warm.close()
    before = Traces()
    log = opened(tmp_path, meta)
    log.append(1, 1, 1, entries(1, 1, 1))
    closing = asyncio.create_task(log.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await log.close()
    await before.gone()
    again = opened(tmp_path, meta)
    assert (await again.read(1, 1))[0] == 1
    await again.close()
    meta.close()


async def test_who_asks_second_waits_for_the_first(tmp_path: Path) -> None:
    """Nobody is told that it is closed before it is."""
    meta = Meta.open(tmp_path / "meta")
    before = Traces()
    log = opened(tmp_path, meta)
    log.append(1, 1, 1, entries(1, 1, 1))
    left: list[list[str]] = []

    async def close() -> None:
        await log.close()
        left.append([trace for trace in before.new() if trace.startswith("file")])

    await asyncio.gather(*(close() for _ in range(4)))
    assert left == [[]] * 4
    meta.close()


async def test_metadata_that_cannot_be_read_leave_nothing_open(tmp_path: Path) -> None:
    """A failed opening closes what it opened, at once: not when somebody collects it."""
    meta = Meta.open(tmp_path / "meta")
    meta.put({"format": 999})
    meta.close()
    before = Traces()
    with pytest.raises(Exception, match="format 999") as refused:
        Meta.open(tmp_path / "meta")
    assert before.new() == [] and refused.value.__traceback__ is not None  # which would keep it from being collected
