"""A cluster with a small limit for one entry still moves many entries at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hiqlite.testing import cluster


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
