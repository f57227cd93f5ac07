"""Nodes whose disks have less room than they keep free: they refuse writes, let others lead, and answer reads."""

from __future__ import annotations

from pathlib import Path

import pytest

import hiqlite
from hiqlite.node import Node
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal

SETTINGS = {"cache": False, "wal_size": "1 MiB"}
EVERYTHING = 1 << 62


def fill_disk(node: Node) -> None:
    """Whatever room there is, it is less than this node keeps."""
    node.storage.space.kept_bytes = EVERYTHING


def free_disk(node: Node) -> None:
    node.storage.space.kept_bytes = 1


async def says_low(client: hiqlite.Client) -> bool:
    """What its metrics tell of its disk; it is not ready while it is low."""
    told = (await client.metrics()).node
    assert not (told["disk_low"] and told["ready"])
    return bool(told["disk_low"])


async def until_refused(three: Cluster, number: int) -> None:
    node = three._running[number]
    await three.wait_until(lambda: node.group.proposals.refusal is not None)
    assert await says_low(three.nodes[number])
    with pytest.raises(hiqlite.DiskFull) as caught:
        await three.nodes[number].execute("INSERT INTO t VALUES ('refused')")
    assert caught.value.outcome == "not_applied" and caught.value.retryable and "free some space" in caught.value.hint


async def check_reads(client: hiqlite.Client, count: int) -> None:
    for consistency in ("linearizable", "local"):  # in this order: a follower may not have applied what another wrote
        assert await client.query_value("SELECT count(*) FROM t", consistency=consistency) == count


async def test_a_leader_with_little_room_hands_over_and_answers_reads(tmp_path: Path) -> None:
    """Its writes are refused, those of the others reach its disk too; with room it takes writes again, and may lead."""
    async with cluster(3, base_dir=tmp_path, **SETTINGS) as three:
        full = three.leader
        await three.client.execute("CREATE TABLE t (x)")
        fill_disk(three._running[full])
        await until_refused(three, full)
        await three.wait_until(lambda: three.leader not in (0, full))
        await three.client.execute("INSERT INTO t VALUES ('from elsewhere')")
        await check_reads(three.nodes[full], 1)
        free_disk(three._running[full])
        await three.wait_until(lambda: three._running[full].group.proposals.refusal is None)
        assert not await says_low(three.nodes[full])
        await three.nodes[full].execute("INSERT INTO t VALUES ('again')")
        await check_equal(three)
        assert await three.client.query("SELECT x FROM t") == [("from elsewhere",), ("again",)]


async def test_a_follower_with_little_room_keeps_nobody_from_writing(tmp_path: Path) -> None:
    """The leader stays, and this node's own writes are refused."""
    async with cluster(3, base_dir=tmp_path, **SETTINGS) as three:
        leader, full = three.leader, three.followers[0]
        await three.client.execute("CREATE TABLE t (x)")
        fill_disk(three._running[full])
        await until_refused(three, full)
        await three.client.execute("INSERT INTO t VALUES (1)")
        assert three.leader == leader
        await check_reads(three.nodes[full], 1)
        free_disk(three._running[full])
        await three.wait_until(lambda: three._running[full].group.proposals.refusal is None)
        await check_equal(three)


async def test_when_no_disk_has_room_the_cluster_answers_reads_and_goes_on_later(tmp_path: Path) -> None:
    """Nobody who could lead is better off: the leader stays, and refuses."""
    async with cluster(3, base_dir=tmp_path, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        for node in three._running.values():
            fill_disk(node)
        for number in three.nodes:
            await until_refused(three, number)
        await three.wait_for_leader()
        for client in three.nodes.values():
            await check_reads(client, 0)
        for node in three._running.values():
            free_disk(node)
        await three.wait_until(lambda: all(one.group.proposals.refusal is None for one in three._running.values()))
        await three.wait_for_leader()
        await three.client.execute("INSERT INTO t VALUES (1)")
        await check_equal(three)


async def test_a_node_that_is_alone_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """No write of before is lost, none that was refused is there."""
    node = await Node.start(hiqlite.NodeConfig.from_mapping({"data_dir": str(tmp_path), **SETTINGS}))
    try:
        await node.client.execute("CREATE TABLE t (x)")
        fill_disk(node)
        with pytest.raises(hiqlite.DiskFull):
            for _ in range(100_000):
                await node.client.execute("INSERT INTO t VALUES (1)")
        count = await node.client.query_value("SELECT count(*) FROM t")
        await check_reads(node.client, count)
        free_disk(node)
        while node.group.proposals.refusal is not None:
            await check_reads(node.client, count)
        await node.client.execute("INSERT INTO t VALUES (2)")
        await check_reads(node.client, count + 1)
    finally:
        await node.shutdown()
