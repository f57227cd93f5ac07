"""A cache group whose log is no more to be on the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hiqlite.config import NodeConfig
from hiqlite.logstore.folder import CACHE
from hiqlite.logstore.meta import Meta
from hiqlite.node_storage import Storage
from hiqlite.testing import cluster


async def test_a_log_that_was_not_removed_yet_condemns_no_node(tmp_path: Path) -> None:
    """It goes with the next start; the metadata speak of a life in memory already."""
    async with cluster(1, base_dir=tmp_path, cache_storage_disk=True) as one:
        await one.client.execute("CREATE TABLE t (x)")
        config = one._configs[1]
    meta = Meta.open(config.data_path / "meta")
    meta.begin_incarnation(CACHE, 12345, in_memory=True)
    meta.close()
    assert list((config.data_path / "log" / "cache").glob("*.wal"))
    given = NodeConfig.from_mapping({"data_dir": str(config.data_path), "cache_storage_disk": False})
    storage = await Storage.open(given, asyncio.get_running_loop())
    assert storage.db.recovered.last_index > 0
    await storage.close()
