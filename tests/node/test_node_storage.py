"""What a node makes of its disk at a start: folder, log and database as they were left behind."""

import shutil
from pathlib import Path

import pytest

import hiqlite


async def test_a_database_that_is_ahead_of_its_log_is_kept(tmp_path: Path):
    """A weak log mode lost the log's tail with the power, the database kept it: the node goes on from the database."""
    data, early = tmp_path / "data", tmp_path / "early"
    async with hiqlite.open(data, log_sync="interval_60000", wal_size="1 MiB") as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        await db.execute("INSERT INTO t VALUES (1)")
    shutil.copytree(data / "log", early)
    async with hiqlite.open(data, log_sync="interval_60000", wal_size="1 MiB") as db:
        for number in range(2, 10):
            await db.execute("INSERT INTO t VALUES (?)", [number])
    shutil.rmtree(data / "log")
    shutil.copytree(early, data / "log")
    for number in (10, 11):
        async with hiqlite.open(data, wal_size="1 MiB") as db:
            assert await db.query_value("SELECT count(*) FROM t") == number - 1
            assert (await db.execute("INSERT INTO t VALUES (?)", [number])).rows_affected == 1
            assert await db.query_value("SELECT max(id) FROM t", consistency="linearizable") == number


async def test_a_lost_database_is_replayed_from_the_log(tmp_path: Path):
    """The log holds everything: a missing database is whole again when the node is open, for local reads too."""
    async with hiqlite.open(tmp_path / "data") as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        await db.execute_many("INSERT INTO t VALUES (?)", [(number,) for number in range(100)])
        before = await db.content_hash()
    shutil.rmtree(tmp_path / "data" / "db")
    async with hiqlite.open(tmp_path / "data") as db:
        assert await db.query_value("SELECT count(*) FROM t") == 100
        assert await db.content_hash() == before


async def test_a_log_that_lost_what_was_synced_is_refused(tmp_path: Path):
    """A single node cannot know what is missing: it says so instead of starting."""
    async with hiqlite.open(tmp_path / "data") as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    shutil.rmtree(tmp_path / "data" / "log")
    with pytest.raises(hiqlite.LogCorruption) as caught:
        await hiqlite.open(tmp_path / "data")
    assert caught.value.hint


async def test_a_folder_of_another_node_is_refused(tmp_path: Path):
    """The folder knows whose it is."""
    async with hiqlite.open(tmp_path / "data"):
        pass
    with pytest.raises(hiqlite.ConfigError, match="belongs to node 1"):
        await hiqlite.open(tmp_path / "data", node_id=2)
