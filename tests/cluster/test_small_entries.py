"""Limits for one entry: a small one, and ones that differ between nodes or change."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

from hiqlite.testing import cluster
from tests.cluster.growing import growing


async def test_many_writes_at_once_pass_a_limit_that_holds_for_one(tmp_path: Path) -> None:
    """Frames carry megabytes of entries, though each entry is small: from a follower, to a follower that lags."""
    async with cluster(3, base_dir=tmp_path, max_entry_size="64 KiB", cache=False) as nodes:
        leader = await nodes.wait_for_leader()
        follower, other = nodes.followers
        db = nodes.nodes[leader]
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        await nodes.stop(other)
        for node, client in enumerate((nodes.nodes[follower], db)):
            await asyncio.gather(
                *(client.execute("INSERT INTO t VALUES (?, ?)", (node * 1000 + k, "x" * 8000)) for k in range(400))
            )
        lagging = await nodes.start(other)
        rows = await asyncio.wait_for(lagging.query("SELECT count(*) FROM t", consistency="linearizable"), 30)
        assert rows[0][0] == 800


async def test_a_nodes_own_limit_decides_about_its_clients_alone(tmp_path: Path) -> None:
    """What others let pass it applies as they do, and sends on; also when it was away, or its limit is new."""
    nodes = (1, 2, 3)
    small = {"max_entry_size": "64 KiB"}
    async with growing(tmp_path) as cluster_:
        await asyncio.gather(*(cluster_.start(n, nodes, wait=True, **(small if n == 3 else {})) for n in nodes))
        await cluster_.client(1).execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)")
        await cluster_.client(1).execute("INSERT INTO t (x) VALUES (?)", ["a" * 300_000])
        await cluster_.client(2).execute("UPDATE t SET x = x || x || hex(zeroblob(50000)) WHERE id = 1")
        await cluster_.stop(3)
        await cluster_.client(1).execute("INSERT INTO t (x) VALUES (?)", [bytes(3_000_000)])
        await cluster_.start(3, nodes, wait=True, **small)
        await cluster_.client(3).transfer_leadership(3)
        await cluster_.stop(2)
        await cluster_.start(2, nodes, wait=True, **small)
        await cluster_.client(1).execute("INSERT INTO t (x) VALUES (?)", [bytes(200_000)])
        sizes = "SELECT id, length(x) FROM t ORDER BY id"
        rows = [await cluster_.client(n).query(sizes, consistency="linearizable") for n in nodes]
        seen = [[tuple(row) for row in each] for each in rows]
        assert seen == [[(1, 700_000), (2, 3_000_000), (3, 200_000)]] * 3
        assert all(one == other for one, other in pairwise([await cluster_.client(n).content_hash() for n in nodes]))
