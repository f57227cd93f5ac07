"""What a node that is alone makes anew by itself: its database, where the log begins with the first entry; the index of
SQLite's log."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import hiqlite
from hiqlite.node import Node
from tests.healing.damages import DAMAGES, KINDS, Others
from tests.healing.patients import as_a_crash_left_it, as_somebody

SETTINGS: dict[str, Any] = {"cache": False, "wal_size": "8 MiB"}
SHM = KINDS["db/*/hiqlite.db-shm"]


def config_of(folder: Path, **more: Any) -> hiqlite.NodeConfig:
    return hiqlite.NodeConfig.from_mapping({"data_dir": str(folder), **SETTINGS, **more})


async def run(folder: Path, left: Path, name: str, **more: Any) -> None:
    """A node with a hundred pages, as a crash left it after a checkpoint and one more write."""
    node = await Node.start(config_of(folder, **more))
    await node.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text)")
    await node.client.execute_many("INSERT INTO t (text) VALUES (?)", [(name + "x" * 3500,)] * 100)
    writer = node.storage.db.writer
    writer.make_durable()
    async with asyncio.timeout(20):
        while writer.durable_index < writer.applied_index:
            await asyncio.sleep(0)
    await node.client.execute("INSERT INTO t (text) VALUES ('the last one')")
    as_a_crash_left_it(node, left)
    await node.shutdown()


@pytest.fixture(scope="module")
def folders():
    with TemporaryDirectory(prefix="hiqlite-healing-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        for name in ("own", "other"):
            asyncio.run(run(place / f"{name}-running", place / name, name))
            asyncio.run(run(place / f"{name}-shared-running", place / f"{name}-shared", name, db_shared_access=True))
        yield place


async def check(config: hiqlite.NodeConfig) -> None:
    async with asyncio.timeout(20):
        node = await Node.start(config)
    try:
        rows = [text for (text,) in await node.client.query("SELECT text FROM t ORDER BY id")]
        assert rows == ["own" + "x" * 3500] * 100 + ["the last one"]
        await node.client.execute("INSERT INTO t (text) VALUES ('afterwards')")
        await node.client.execute("DELETE FROM t WHERE text = 'afterwards'")
    finally:
        await node.shutdown()


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "a flipped bit", "of another cluster",
                                    "something else in its place"])  # fmt: skip
@pytest.mark.parametrize("what", ["db/*/hiqlite.db", "db/*", "db"])
async def test_a_database_whose_log_begins_with_the_first_entry(
    folders: Path, place: Path, what: str, damage: str
) -> None:
    """All of it is applied anew; also after the next crash."""
    kind = KINDS[what]
    if kind.is_folder and damage in ("truncated", "a flipped bit"):
        kind = KINDS["db/*/hiqlite.db"]
    shutil.copytree(folders / "own", place / "data")
    DAMAGES[damage](kind, place / "data", Others(folders / "other", folders / "other"))
    for _ in range(2):
        await check(config_of(place / "data"))


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "a flipped bit", "of another cluster",
                                    "read-only", "unreadable", "something else in its place"])  # fmt: skip
async def test_the_index_of_sqlites_log(folders: Path, place: Path, damage: str) -> None:
    """Only there where other processes may read the file. SQLite makes it anew; it has to be able to."""
    shutil.copytree(folders / "own-shared", place / "data")
    DAMAGES[damage](SHM, place / "data", Others(folders / "other-shared", folders / "other-shared"))
    config = config_of(place / "data", db_shared_access=True)
    with as_somebody(place):
        if damage in ("read-only", "unreadable"):
            with pytest.raises(hiqlite.StorageError, match=r"hiqlite\.db") as caught:
                await Node.start(config)
            assert caught.value.hint
        else:
            await check(config)


@pytest.mark.parametrize("what", ["meta/lock.mdb", "db/*/hiqlite.db-mark", "db/*/hiqlite.db-wal"])
async def test_the_same_damage_again(folders: Path, place: Path, what: str) -> None:
    """What was moved out of the way the first time is in nobody's way."""
    shutil.copytree(folders / "own", place / "data")
    for _ in range(3):
        path = KINDS[what].at(place / "data")
        if path.exists():
            path.unlink()
        (path / "what is this").mkdir(parents=True)
        await check(config_of(place / "data"))
    assert len(list(path.parent.glob(f"{path.name}.aside*"))) == 3
