"""`snapshot()`: what a node has applied is in its file, and its log begins behind it, on any node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

import hiqlite
from hiqlite.statemachine.trust import open_mark
from hiqlite.testing import cluster

SETTINGS = {"wal_size": "64 KiB", "logs_until_snapshot": 50}
INSERT = "INSERT INTO t (text) VALUES (?)"


def database_of(folder: Path) -> Path:
    return next(folder.glob("db/*/hiqlite.db"))


async def test_a_node_keeps_in_its_file_what_it_has_applied(tmp_path: Path) -> None:
    """Also when it is asked again, and when nothing was written since."""
    async with hiqlite.open(tmp_path, logs_until_snapshot=50) as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text)")
        for _ in range(3):
            results = [await db.execute(INSERT, ["x" * 1000]) for _ in range(60)]
            index = await db.snapshot()
            assert index >= results[-1].log_index
            assert await db.snapshot(timeout=20) == index
            group = (await db.metrics()).db
            assert group.snapshot_index >= index and open_mark(database_of(tmp_path)).done >= index
            assert group.first_index > index - 2 * 50
    with pytest.raises(hiqlite.ShuttingDown):
        await db.snapshot()
    with pytest.raises(hiqlite.UsageError):
        async with hiqlite.open(tmp_path) as db:
            await db.snapshot(timeout=-1)


async def test_each_node_of_a_cluster_does_so_for_itself() -> None:
    """Under load, the cache group's state too; one that is killed then starts with all of it."""
    async with cluster(3, **SETTINGS, cache_storage_disk=True) as three:
        await three.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text)")
        nodes = list(three.nodes.values())
        writes = asyncio.gather(*(db.execute(INSERT, [str(number)]) for number in range(100) for db in nodes))
        applied = [(await db.metrics()).db.applied_index for db in nodes]  # 0 on one that is behind the other two
        indexes = await asyncio.gather(*(db.snapshot() for db in nodes))
        last = max(result.log_index for result in await writes)
        assert all(before <= index <= last for before, index in zip(applied, indexes, strict=True))
        for db in nodes:
            assert await db.query_value("SELECT count(*) FROM t", consistency="linearizable") == 300
            assert await db.snapshot() >= last
        killed = three.followers[0]
        await three.kill(killed)
        db = await three.start(killed)
        assert await db.query_value("SELECT count(*) FROM t", consistency="linearizable") == 300
        assert (await db.metrics()).db.snapshot_index >= last


async def test_a_read_that_lasts_holds_it_up_and_a_limit_ends_the_waiting(tmp_path: Path) -> None:
    """Another process's reader stays in its snapshot of the database; once it is gone the call gets through."""
    async with hiqlite.open(tmp_path, db_shared_access=True) as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text)")
        await db.execute(INSERT, ["before"])
        await db.snapshot()
        reader = apsw.Connection(str(database_of(tmp_path)), flags=apsw.SQLITE_OPEN_READONLY)
        rows = reader.execute("SELECT text FROM t UNION ALL SELECT 'more'")
        next(rows)
        result = await db.execute(INSERT, ["behind"])
        with pytest.raises(hiqlite.RequestTimeout):
            await db.snapshot(timeout=0.1)
        rows.close()
        reader.close()
        assert await db.snapshot() >= result.log_index
