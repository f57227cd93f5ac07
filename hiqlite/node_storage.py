"""What a node keeps on its disk, opened in order: folder, metadata, groups.

Part of the composition root. Invariant: the folder belongs to this node and is locked as long as anything of it is
open.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from hiqlite.config import NodeConfig
from hiqlite.errors import ConfigError
from hiqlite.logstore.folder import CACHE, DB, DataFolder
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.space import Space
from hiqlite.node_cache import CacheStorage
from hiqlite.node_database import DatabaseStorage
from hiqlite.node_group_storage import GroupStorage
from hiqlite.node_healing import Healing


class Storage:
    """Everything of one node that lies on its disk; made by `open`, ended by `close`."""

    folder: DataFolder
    meta: Meta
    space: Space
    db: DatabaseStorage
    cache: CacheStorage | None

    def __init__(self, config: NodeConfig, *, heals: bool = True) -> None:
        self.config = config
        self._heals = heals
        self.cache = None
        self._stack = AsyncExitStack()

    @classmethod
    async def open(cls, config: NodeConfig, loop: asyncio.AbstractEventLoop, *, heals: bool = True) -> Storage:
        """Open or create the data folder of `config`.

        Args:
            heals: a member throws away what it cannot trust (`node_healing.py`). False, for who only wants to look:
                it is an error, as for a node that is alone.

        Raises:
            DataFolderInUse, ConfigError (the folder belongs to another node), StorageError and its kinds.
        """
        storage = cls(config, heals=heals)
        try:
            await storage._open(loop)
        except BaseException:
            await storage.close()
            raise
        return storage

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        config = self.config
        self.folder = folder = DataFolder(config.data_path)
        self._stack.callback(folder.close)
        self.space = Space(folder.path, config.wal_size)
        healing = Healing(config, folder, heals=self._heals)
        self.meta = meta = healing.open_metadata()
        self._stack.callback(meta.close)
        self._check_node_id()
        self.db = await healing.open_group(meta, DB, lambda: DatabaseStorage.open(config, folder, meta, loop))
        self._stack.push_async_callback(self.db.close)
        if config.cache:
            self.cache = await healing.open_group(meta, CACHE, lambda: CacheStorage.open(config, folder, meta, loop))
            self._stack.push_async_callback(self._close_cache)

    @property
    def groups(self) -> tuple[GroupStorage, ...]:
        return (self.db,) if self.cache is None else (self.db, self.cache)

    @property
    def incarnations(self) -> dict[int, int]:
        """Who this node is in each group, by the group's number."""
        return {group.number: group.identity.incarnation for group in self.groups}

    async def renew_cache(self, loop: asyncio.AbstractEventLoop) -> None:
        """The cache group's part of a new incarnation, in place of one that is over. Only of a group in memory."""
        assert not self.config.cache_storage_disk
        await self._close_cache()
        self.cache = await CacheStorage.open(self.config, self.folder, self.meta, loop)

    async def _close_cache(self) -> None:
        if self.cache is not None:
            await self.cache.close()

    def _check_node_id(self) -> None:
        """Whose folder this is: made durable by the first start."""
        known = self.meta.node_id
        if known is None:
            self.meta.set_node_id(self.config.node_id)
        elif known != self.config.node_id:
            raise ConfigError(
                f"the data folder {self.config.data_path} belongs to node {known}, this is node {self.config.node_id}",
                hint="check data_dir and node_id",
            )

    async def close(self) -> None:
        await self._stack.aclose()
