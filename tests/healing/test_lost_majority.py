"""Members that lost their data, with nobody or too few to take them back: no second cluster ever arises."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

import hiqlite
from hiqlite.config import NodeConfig
from hiqlite.node import Node
from hiqlite.node_storage import Storage
from hiqlite.transport.loopback import loopback_cluster
from tests.cluster.agreement import eventually
from tests.healing.patients import take_back, until

SETTINGS = {"cache": False, "wal_size": "1 MiB"}


async def cluster_with_a_row(folder: Path) -> list[NodeConfig]:
    """Three nodes that ran, and are down."""
    configs = [NodeConfig.from_mapping(one) for one in loopback_cluster(folder, 3, SETTINGS).values()]
    nodes = await asyncio.gather(*(Node.start(config) for config in configs))
    await nodes[0].client.execute("CREATE TABLE t (x)")
    last = await nodes[0].client.execute("INSERT INTO t VALUES ('kept')")
    for node in nodes:
        await node.group.until_applied(last.log_index)
    await asyncio.gather(*(node.shutdown() for node in nodes))
    return configs


def lose(config: NodeConfig, what: str) -> None:
    folder = Path(config.data_path)
    shutil.rmtree(folder if what == "everything" else folder / what)


async def check_waiting(nodes: list[Node], caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> bool:
        return "it waits until a majority of the members takes it back" in caplog.text

    await eventually(told)
    for node in nodes:  # many rounds of greetings long
        with pytest.raises(hiqlite.ClusterError) as caught:
            await node.client.execute("CREATE TABLE u (x)", timeout=0.3)
        assert caught.value.outcome == "not_applied"
    assert not any(node.group.leader_id or node.group.started for node in nodes)


@pytest.mark.parametrize("what", ["meta", "log"])
@pytest.mark.parametrize("rest", [[], ["everything"], ["meta", "log"]])
async def test_who_lost_what_it_promised_founds_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, rest: list[str]
) -> None:
    """Not with others who lost theirs, nor with fresh ones: it waits, says for what, and leaves what it had aside."""
    configs = await cluster_with_a_row(tmp_path)
    for config, lost in zip(configs, [what, *(rest or [what, what]), *rest], strict=False):
        lose(config, lost)
    with caplog.at_level("INFO", "hiqlite"):
        nodes = [await Node.start(config, wait=False) for config in configs]
        try:
            await check_waiting([node for node in nodes if node.storage.db.returns], caplog)
            assert any(node.storage.db.returns for node in nodes)
        finally:
            await asyncio.gather(*(node.shutdown() for node in nodes))
    if what == "meta":
        assert list((Path(configs[0].data_path) / "aside").glob("*-db"))


async def test_it_still_waits_after_a_restart_and_is_taken_back_by_a_majority(tmp_path: Path) -> None:
    """That it had data is durable, whatever comes between; then it has them again."""
    configs = await cluster_with_a_row(tmp_path)
    lose(configs[2], "meta")
    for _ in range(3):
        patient = await Node.start(configs[2], wait=False)
        assert patient.storage.db.returns and not patient.group.started
        await patient.abandon()
    shutil.rmtree(Path(configs[2].data_path) / "meta")  # the new ones are lost before they were of any use
    others = await asyncio.gather(*(Node.start(config, wait=False) for config in configs[:2]))
    patient = await Node.start(configs[2], wait=False)
    try:
        await take_back({node.config.node_id: node for node in others}, patient)
        await patient.groups[0].until_leader()
        assert await patient.client.query_value("SELECT x FROM t") == "kept"
        assert not patient.storage.db.returns
        await until(lambda: not (Path(configs[2].data_path) / "aside").exists())
    finally:
        await asyncio.gather(*(node.shutdown() for node in (*others, patient)))


async def test_who_only_looks_throws_nothing_away(tmp_path: Path) -> None:
    """Opened without healing, a member's damaged folder is an error, and stays as it is."""
    configs = await cluster_with_a_row(tmp_path)
    lose(configs[1], "log")
    before = sorted(Path(configs[1].data_path).rglob("*"))
    for _ in range(2):
        with pytest.raises(hiqlite.LogCorruption):
            await Storage.open(configs[1], asyncio.get_running_loop(), heals=False)
        assert not (Path(configs[1].data_path) / "aside").exists()
    assert {one for one in before if one.suffix != ".wal"} <= set(Path(configs[1].data_path).rglob("*"))


async def test_a_database_whose_cluster_is_forgotten_is_that_of_the_metadata(tmp_path: Path) -> None:
    """For a survivor that begins a cluster of its own; with another stamp the start would refuse the file."""
    config = NodeConfig.from_mapping({"data_dir": str(tmp_path), **SETTINGS})
    node = await Node.start(config)
    await node.client.execute("CREATE TABLE t (x)")
    await node.shutdown()
    storage = await Storage.open(config, asyncio.get_running_loop())
    await storage.db.forget_cluster()
    storage.meta.put({"cluster_id": b"\7" * 32})
    await storage.close()
    node = await Node.start(config)
    assert await node.client.query("SELECT * FROM t") == []
    await node.shutdown()
