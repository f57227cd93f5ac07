"""The majority is lost for good, and the only survivor is damaged: it goes on with what it has, says what is gone."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

import hiqlite
from hiqlite.config import NodeConfig
from hiqlite.logstore.meta import Meta, first_of
from hiqlite.node import Node
from hiqlite.node_recovery import recover
from hiqlite.server.recover import lines
from hiqlite.statemachine import trust
from hiqlite.statemachine.connection import ConnectionSettings
from tests.healing.damages import remove, segment
from tests.healing.patients import cluster_with_a_row, lose

pytestmark = pytest.mark.timeout(90)
DAMAGES = ("an entry", "the newest segment", "the log", "the metadata")


async def survivor(folder: Path, damage: str) -> list[NodeConfig]:
    """Of three the first one, damaged; the others' volumes are gone."""
    configs = await cluster_with_a_row(folder)
    for config in configs[1:]:
        lose(config, "everything")
    data = Path(configs[0].data_path)
    if damage == "an entry":
        content = bytearray(segment(-1)(data).read_bytes())
        content[content.index(b"'kept'")] ^= 4
        segment(-1)(data).write_bytes(content)
    elif damage == "the newest segment":
        segment(-1)(data).unlink()
    else:
        remove(data / {"the log": "log", "the metadata": "meta"}[damage])
    return configs


def files(config: NodeConfig) -> dict[Path, bytes | None]:
    """All of a folder but what says who has it open."""
    found = Path(config.data_path).rglob("*")
    return {path: path.read_bytes() if path.is_file() else None for path in found if path.name != "lock"}


async def check_recovered(configs: list[NodeConfig]) -> None:
    """It alone, and then with the others, who are empty."""
    node = await Node.start(configs[0])
    try:
        assert await node.client.query_value("SELECT x FROM t", consistency="linearizable") == "kept"
        await node.client.execute("INSERT INTO t VALUES ('afterwards')")
    finally:
        await node.shutdown()
    nodes = await asyncio.gather(*(Node.start(config) for config in configs))
    try:
        for one in nodes:
            rows = await one.client.query("SELECT x FROM t ORDER BY rowid", consistency="linearizable")
            assert rows == [("kept",), ("afterwards",)]
    finally:
        await asyncio.gather(*(one.shutdown() for one in nodes))


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_survivor_goes_on_with_its_database(tmp_path: Path, damage: str) -> None:
    """Whatever else is damaged: the report names it, and there is nothing to do first that leads back here."""
    configs = await survivor(tmp_path, damage)
    before = files(configs[0])
    looked = await recover(configs[0], write=False)
    assert files(configs[0]) == before
    assert looked.missing and looked.refusal == "" and looked.voters == (1, 2, 3)
    assert any("missing here" in line for line in lines(looked))
    done = await recover(configs[0], write=True)
    assert done.new_cluster_id
    await check_recovered(configs)


@pytest.mark.parametrize("damage", DAMAGES[:-1])
async def test_a_start_before_the_recovery_does_no_harm(tmp_path: Path, damage: str) -> None:
    """It moves a log aside that it cannot trust, and waits for the others: the report says where that is."""
    configs = await survivor(tmp_path, damage)
    for _ in range(2):
        node = await Node.start(configs[0], wait=False)
        await node.shutdown()
    looked = await recover(configs[0], write=False)
    assert looked.refusal == ""
    assert damage == "an entry" or any("aside" in one for one in looked.missing)
    await recover(configs[0], write=True)
    await check_recovered(configs)


async def test_where_all_data_lie_aside_it_is_said_how_to_go_on(tmp_path: Path) -> None:
    """After a start without the metadata nothing is in place any more: what to copy where, and then it goes on."""
    configs = await survivor(tmp_path, "the metadata")
    node = await Node.start(configs[0], wait=False)
    await node.shutdown()
    aside = Path(configs[0].data_path) / "aside"
    with pytest.raises(hiqlite.UsageError, match=str(aside)) as caught:
        await recover(configs[0], write=True)
    again = tmp_path / "again"
    again.mkdir()
    for source, target in [("1-log", "log"), ("2-db", "db")]:
        assert f"{source} as {target}" in str(caught.value.hint)
        shutil.copytree(aside / source, again / target)
    moved = configs[0].with_overrides(data_dir=str(again))
    await recover(moved, write=True)
    await check_recovered([moved, *configs[1:]])


@pytest.mark.parametrize("late", [False, True])
async def test_a_recovery_that_was_killed_founds_nothing_and_is_done_again(tmp_path: Path, late: bool) -> None:
    """After its new metadata, or before the new cluster, when nothing says any more which one the data are of: a start
    waits to be taken back, the next recovery goes on."""
    configs = await survivor(tmp_path, "the metadata")
    data = Path(configs[0].data_path)
    name = next(one.name for one in (data / "db").iterdir() if one.name != "images")
    meta = Meta.open(data / "meta", first_of(1, name, returns=True))
    if late:
        shutil.move(data / "log", data / "kept")
        meta.begin_incarnation(0, 5, returns=True)
        trust.unstamp(data / "db" / name / "hiqlite.db", ConnectionSettings())
    meta.close()
    node = await Node.start(configs[0], wait=False)
    assert node.storage.db.returns
    await node.shutdown()
    await recover(configs[0], write=True)
    await check_recovered(configs)


async def test_a_database_that_is_damaged_too_is_not_recovered(tmp_path: Path) -> None:
    """Then there is nothing to go on with: a backup is needed, and nothing is changed."""
    configs = await survivor(tmp_path, "the log")
    database = next((Path(configs[0].data_path) / "db").glob("*/hiqlite.db"))
    database.write_bytes(b"no database" * 1000)
    before = files(configs[0])
    for write in (False, True):
        with pytest.raises(hiqlite.SnapshotCorruption, match="damaged"):
            await recover(configs[0], write=write)
    assert files(configs[0]) == before
