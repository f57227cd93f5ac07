"""What a node makes of its disk at a start: folder, log and database as they were left behind."""

import asyncio
import shutil
from contextlib import closing
from pathlib import Path

import pytest

import hiqlite
from hiqlite._accel.records import EntryKind, encode_record, header, seal_records
from hiqlite.cache import state_file
from hiqlite.cache.machine import CacheMachine
from hiqlite.cache.state import CacheState
from hiqlite.config import NodeConfig
from hiqlite.engine.model import Identity
from hiqlite.logstore.meta import Meta
from hiqlite.node_storage import Storage


async def test_a_database_that_is_ahead_of_its_log_is_kept(tmp_path: Path):
    """A weak log mode lost the log's tail with the power, the database kept it: the node goes on from the database."""
    data, early = tmp_path / "data", tmp_path / "early"
    async with hiqlite.open(data, log_sync="interval_60000", wal_size="1 MiB", cache=False) as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        await db.execute("INSERT INTO t VALUES (1)")
    shutil.copytree(data / "log", early)
    async with hiqlite.open(data, log_sync="interval_60000", wal_size="1 MiB", cache=False) as db:
        for number in range(2, 10):
            await db.execute("INSERT INTO t VALUES (?)", [number])
    shutil.rmtree(data / "log")
    shutil.copytree(early, data / "log")
    for number in (10, 11):
        async with hiqlite.open(data, wal_size="1 MiB", cache=False) as db:
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


FAR_NS = 1_000_000_000_000  # no test lives as long


def stamp_of(db: hiqlite.Client) -> int:
    """Group time in the newest entry."""
    window = db._services.group.window
    return header(window.records(window.last_index, window.last_index), 0).group_time_ns


async def test_group_time_does_not_go_back_when_the_log_begins_anew_behind_the_database(tmp_path: Path):
    """The database knows the newest time that was stamped; the log that knew it was lost with the power."""
    data, early = tmp_path / "data", tmp_path / "early"
    async with hiqlite.open(data, log_sync="interval_60000", wal_size="1 MiB", cache=False) as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    shutil.copytree(data / "log", early)
    async with hiqlite.open(data, log_sync="interval_60000", wal_size="1 MiB", cache=False) as db:
        db._services.group.group_time.saw(FAR_NS)  # as if a leader before this one had been there
        await db.execute("INSERT INTO t VALUES (1)")
        before = stamp_of(db)
        assert before >= FAR_NS
    shutil.rmtree(data / "log")
    shutil.copytree(early, data / "log")
    async with hiqlite.open(data, wal_size="1 MiB", cache=False) as db:
        await db.execute("INSERT INTO t VALUES (2)")
        assert stamp_of(db) >= before


async def test_the_cache_groups_state_knows_the_group_time_that_its_log_lost(tmp_path: Path):
    """A state on disk that is ahead of its log: the node begins with the time that the state holds."""
    async with hiqlite.open(tmp_path, wal_size="1 MiB") as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    config = NodeConfig.from_mapping({"data_dir": str(tmp_path), "wal_size": "1 MiB"})
    with closing(Meta.open(tmp_path / "meta")) as meta:
        owner = Identity(1, meta.incarnation(1) or 0)
    state_file.write(tmp_path / "cache" / "state", CacheState(1_000_000, 7, group_time_ns=FAR_NS), owner)
    storage = await Storage.open(config, asyncio.get_running_loop())
    try:
        assert storage.cache is not None
        assert storage.cache.newest_group_time_ns == FAR_NS
        assert storage.cache.recovered.base_index == 1_000_000
    finally:
        await storage.close()


async def test_the_cache_groups_machine_keeps_the_newest_group_time_with_what_it_applies():
    """Of the last entry of a hand-over; it never goes back, and it is part of the state's bytes."""
    machine = CacheMachine(asyncio.get_running_loop())
    for first, time_ns, newest_ns in ((1, 5, 5), (3, 9, 9), (5, 4, 9)):
        records = bytearray(encode_record(1, EntryKind.NOOP, b"") * 2)
        seal_records(records, 1, first, time_ns, 1, 1)
        machine.submit(first, first + 1, 1, [bytes(records)], False)
        await asyncio.sleep(0)
        assert machine.applied_index == first + 1
        assert machine.applied_group_time_ns == newest_ns
    assert CacheState.decode(machine.state.encode()) == machine.state
    await machine.close()
