"""A node whose cluster has not formed: calls end with their deadlines, and closing it leaves nobody waiting."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import hiqlite
from hiqlite import NoLeader, RequestTimeout, ShuttingDown
from hiqlite.transport.loopback import loopback_cluster


async def test_writes_and_reads_end_with_their_deadline_before_the_cluster_forms(tmp_path: Path) -> None:
    """Nothing was sent anywhere, so the write is known not to be applied; a local read needs no cluster."""
    config = loopback_cluster(tmp_path, 3, {"cache": False})[1]
    async with hiqlite.open(config, wait=False) as db:
        with pytest.raises(NoLeader) as refused:
            await asyncio.wait_for(db.execute("CREATE TABLE t (id INTEGER)", timeout=0.3), 20)
        assert refused.value.outcome == "not_applied"
        with pytest.raises(RequestTimeout):
            await db.query("SELECT 1", consistency="linearizable", timeout=0.3)
        assert [tuple(row) for row in await db.query("SELECT 1")] == [(1,)]
        assert not await db.is_healthy()


async def test_closing_an_unformed_node_ends_what_waits_for_it(tmp_path: Path) -> None:
    """Callers are told that the node shuts down, long before their own deadlines."""
    config = loopback_cluster(tmp_path, 3, {"cache": False})[1]
    db = await hiqlite.open(config, wait=False)
    write = asyncio.ensure_future(db.execute("CREATE TABLE t (id INTEGER)", timeout=600))
    read = asyncio.ensure_future(db.query("SELECT 1", consistency="linearizable", timeout=600))
    begun = time.monotonic()
    while not read.done() and time.monotonic() < begun + 0.2:
        await asyncio.sleep(0)
    assert not read.done() and not write.done()
    await asyncio.wait_for(db.shutdown(), 20)
    with pytest.raises(ShuttingDown) as refused:
        await asyncio.wait_for(write, 20)
    assert refused.value.outcome == "not_applied"
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(read, 20)
