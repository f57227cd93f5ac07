"""Members that lost their data, with nobody or too few to take them back: no second cluster ever arises."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

import hiqlite
from hiqlite.config import NodeConfig
from hiqlite.logstore.aside import NOBODY_KNOWS, Aside
from hiqlite.logstore.folder import CACHE, DataFolder
from hiqlite.logstore.meta import Meta
from hiqlite.node import Node
from hiqlite.node_storage import Storage
from tests.cluster.agreement import eventually
from tests.healing.patients import FEW, cluster_with_a_row, lose, take_back, until


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


MOVES = ("meta", "log", "db")


def crash_while_it_moves(config: NodeConfig, moves: int) -> None:
    """So many of its parts lie aside; after the last one there are new metadata, which say nothing yet."""
    folder = DataFolder(config.data_path)
    for name in MOVES[:moves]:
        Aside(folder.path).put(folder.path / name)
    folder.close()
    if moves > len(MOVES):
        Meta.open(folder.meta).close()


@pytest.mark.parametrize("moves", range(1, len(MOVES) + 2))
async def test_wherever_a_crash_comes_while_it_puts_its_data_aside_it_founds_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, moves: int
) -> None:
    """Also when all three members are in that state: the last copies of the data stay, and no empty cluster forms."""
    configs = await cluster_with_a_row(tmp_path)
    for config in configs:
        crash_while_it_moves(config, moves)
    caplog.set_level("INFO", "hiqlite")
    nodes = [await Node.start(config, wait=False) for config in configs]
    try:
        await check_waiting(nodes, caplog)
        for node in nodes:
            assert node.storage.db.returns and node.storage.meta.returns(CACHE)
            assert list((Path(node.config.data_path) / "aside").glob("*-db"))
    finally:
        await asyncio.gather(*(node.shutdown() for node in nodes))


async def test_who_looked_in_between_does_not_make_it_a_founder(tmp_path: Path) -> None:
    """`hiqlite recover` opens the folder without healing: what lies aside is a returning node's all the same."""
    config, *_ = await cluster_with_a_row(tmp_path)
    crash_while_it_moves(config, len(MOVES) + 1)
    storage = await Storage.open(config, asyncio.get_running_loop(), heals=False)
    await storage.close()
    node = await Node.start(config, wait=False)
    assert node.storage.db.returns
    await node.shutdown()


@pytest.mark.parametrize("more", [None, "db"])
async def test_what_lies_aside_is_kept_by_who_joins_another_cluster(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, more: str | None
) -> None:
    """The last one with data lost its metadata, and the others formed anew, empty: nobody in there has these data, so
    they stay where they are, after each start. Also where only the log is left, which does not say whose it is."""
    configs = await cluster_with_a_row(tmp_path)
    lose(configs[0], "meta")
    if more is not None:
        lose(configs[0], more)
    for config in configs[1:]:
        lose(config, "everything")
    others = await asyncio.gather(*(Node.start(config, form_without=(1,)) for config in configs[1:]))
    try:
        for _ in range(2):
            caplog.clear()
            patient = await Node.start(configs[0])
            try:
                await until(lambda: "aside is kept" in caplog.text)
            finally:
                await patient.shutdown()
            assert list((Path(configs[0].data_path) / "aside").glob("*-log" if more else "*-db/*/*.db"))
    finally:
        await asyncio.gather(*(node.shutdown() for node in others))


async def test_what_lies_aside_goes_only_with_all_that_it_is_of(tmp_path: Path) -> None:
    """Moved there twice, for one cluster and for another one; what nothing is known of counts as another one's."""
    folder = DataFolder(tmp_path / "data")
    (folder.path / "log").mkdir()
    aside = Aside(folder.path)
    assert aside.clusters == frozenset()
    aside.say_whose("one")
    assert not aside.holds_anything
    aside.put(folder.path / "log")
    Aside(folder.path).say_whose("two")
    assert aside.holds_anything and aside.clusters == {"one", "two"}
    clusters = aside.folder / "clusters"
    whole = clusters.read_text()
    for size in range(len(whole) - 1):
        clusters.write_text(whole[:size])
        assert NOBODY_KNOWS in aside.clusters
    clusters.unlink()
    assert aside.clusters == {NOBODY_KNOWS}
    clusters.mkdir()
    aside.say_whose("three")
    assert Aside(folder.path).clusters == {NOBODY_KNOWS, "three"}
    folder.close()


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
    config = NodeConfig.from_mapping({"data_dir": str(tmp_path), **FEW})
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
