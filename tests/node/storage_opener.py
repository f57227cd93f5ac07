"""A node's database and log without the node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hiqlite.config import NodeConfig
from hiqlite.node_database import DatabaseStorage
from hiqlite.node_storage import Storage


@asynccontextmanager
async def storage_of(folder: Path) -> AsyncIterator[DatabaseStorage]:
    """Of node 1, open as at its start and closed afterwards."""
    config = NodeConfig.from_mapping({"data_dir": str(folder), "wal_size": "1 MiB"})
    storage = await Storage.open(config, asyncio.get_running_loop())
    try:
        yield storage.db
    finally:
        await storage.close()
