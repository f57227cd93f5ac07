"""Nodes that were away for long: the others' logs do not wait for them, an image brings them back."""

from __future__ import annotations

import asyncio

from hiqlite.client.local import LocalClient
from hiqlite.testing import cluster
from tests.cluster.agreement import check_equal, eventually, same_index

SETTINGS = {"cache": False, "wal_size": "256 KiB", "logs_until_snapshot": 500}
CREATE = "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)"


async def write(db: LocalClient, first: int, count: int) -> None:
    """`count` writes one by one, 32 at a time, each of about a kilobyte."""
    numbers = iter(range(first, first + count))

    async def work() -> None:
        for number in numbers:
            await db.execute("INSERT INTO t VALUES (?, ?)", [number, f"{number} " * 150])

    await asyncio.gather(*(work() for _ in range(32)))


async def first_index(db: LocalClient) -> int:
    return (await db.metrics()).db.first_index


async def purged(nodes: list[LocalClient], beyond: int) -> None:
    """The logs of all these nodes begin behind `beyond`."""

    async def gone() -> bool:
        return all([await first_index(node) > beyond for node in nodes])

    await eventually(gone)


async def test_logs_are_purged_behind_the_database() -> None:
    """On every node, leader or not, though one that is connected never lacks what it needs."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute(CREATE)
        await write(three.client, 0, 3000)
        await purged(list(three.nodes.values()), 1000)
        metrics = [(await node.metrics()).db for node in three.nodes.values()]
        for group in metrics:
            assert group.first_index <= group.snapshot_index + 1 <= group.applied_index + 1
        await check_equal(three)


async def test_a_node_that_was_away_for_longer_than_the_logs_reach_gets_an_image() -> None:
    """While writes go on; afterwards it is like the others, also after a restart."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute(CREATE)
        await write(three.client, 0, 100)
        away = three.followers[0]
        await three.stop(away)
        await write(three.client, 100, 3000)
        last = (await three.client.metrics()).db.last_log_index
        await purged(list(three.nodes.values()), 1000)
        back = await three.start(away)
        await write(three.client, 3100, 1000)
        await same_index(list(three.nodes.values()))
        assert await first_index(back) > 1000 and (await back.metrics()).db.applied_index > last
        await check_equal(three)
        await three.kill(away)
        await write(three.client, 4100, 100)
        await three.start(away)
        await three.wait_until(three.settled)
        await check_equal(three)


async def test_a_cluster_restarts_from_purged_logs() -> None:
    """All at once, after kill and after a shutdown: what was acknowledged is there."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute(CREATE)
        await write(three.client, 0, 2000)
        await purged(list(three.nodes.values()), 500)
        for end in (three.kill, three.stop):
            await asyncio.gather(*(end(number) for number in list(three.nodes)))
            await asyncio.gather(*(three.start(number) for number in (1, 2, 3)))
            await three.wait_until(three.settled)
            assert await three.client.query_value("SELECT count(*) FROM t", consistency="linearizable") == 2000
            await check_equal(three)
