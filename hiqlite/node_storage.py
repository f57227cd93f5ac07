"""What a node keeps on its disk, opened in order: folder, metadata, groups.

Part of the composition root. Invariants: the folder belongs to this node and is locked as long as anything of it is
open; who forgets to close is told so, and nothing of it outlives its loop for long, or holds up the process.
"""

from __future__ import annotations

import asyncio
import atexit
import warnings
import weakref
from contextlib import AsyncExitStack, ExitStack

from hiqlite._accel import forks
from hiqlite.config import NodeConfig
from hiqlite.ending import Ending
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

    def __init__(self, config: NodeConfig, loop: asyncio.AbstractEventLoop, *, heals: bool = True) -> None:
        self.config = config
        self._heals = heals
        self._loop = loop
        self._closed = False
        self._abrupt = ExitStack()  # the same without a loop
        self.cache = None
        self._stack = AsyncExitStack()
        self._ending = Ending()

    @classmethod
    async def open(cls, config: NodeConfig, loop: asyncio.AbstractEventLoop, *, heals: bool = True) -> Storage:
        """Open or create the data folder of `config`.

        Args:
            heals: a member throws away what it cannot trust (`node_healing.py`). False, for who only wants to look:
                it is an error, as for a node that is alone.

        Raises:
            DataFolderInUse, ConfigError (the folder belongs to another node), StorageError and its kinds.
        """
        for forgotten in list(_open):
            if forgotten._loop.is_closed():
                forgotten.let_go()
        storage = cls(config, loop, heals=heals)
        _open.add(storage)
        forks.watch(storage)
        try:
            await storage._open(loop)
        except BaseException:
            await storage.close()
            raise
        return storage

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        config = self.config
        self.folder = folder = DataFolder(config.data_path)
        for stack in (self._stack, self._abrupt):
            stack.callback(folder.close)
        self.space = Space(folder.path, config.wal_size)
        healing = Healing(config, folder, heals=self._heals)
        self.meta = meta = healing.open_metadata()
        for stack in (self._stack, self._abrupt):
            stack.callback(meta.close)
        self._check_node_id()
        healing.leave_earlier_life(meta)
        self.db = await healing.open_group(meta, DB, lambda: DatabaseStorage.open(config, folder, meta, loop))
        self._stack.push_async_callback(self.db.close)
        self._abrupt.callback(self.db.let_go)
        if config.cache:
            self.cache = await healing.open_group(meta, CACHE, lambda: CacheStorage.open(config, folder, meta, loop))
            self._stack.push_async_callback(self._close_cache)
            self._abrupt.callback(self._let_go_of_cache)

    @property
    def groups(self) -> tuple[GroupStorage, ...]:
        return (self.db,) if self.cache is None else (self.db, self.cache)

    @property
    def incarnations(self) -> dict[int, int]:
        """Who this node is in each group, by the group's number."""
        return {group.number: group.identity.incarnation for group in self.groups}

    async def renew_cache(self, loop: asyncio.AbstractEventLoop) -> None:
        """The cache group's part of a new incarnation, in place of one that is over, or that left its set."""
        await self._close_cache()
        if self.config.cache_storage_disk:
            await asyncio.to_thread(Healing(self.config, self.folder).leave_set, self.meta, CACHE)
        self.cache = await CacheStorage.open(self.config, self.folder, self.meta, loop)

    async def _close_cache(self) -> None:
        if self.cache is not None:
            await self.cache.close()

    def _let_go_of_cache(self) -> None:
        if self.cache is not None:
            self.cache.let_go()

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
        await self._ending.reach(self._close)

    async def _close(self) -> None:
        try:
            await self._stack.aclose()
        except Exception:
            self._forget()  # all the same, everything was closed that can be
            raise
        self._forget()

    def let_go(self) -> None:
        """`close` without a loop: nobody closed it, and the loop is gone, or the process ends.

        What was acknowledged is on the disk; the rest is not awaited. May be called again.
        """
        if self._closed:
            return
        abrupt = self._abrupt
        self._forget()
        with abrupt:
            warnings.warn(f"the node in {self.config.data_path} was never shut down", ResourceWarning, 2, self)

    def left_to_parent(self) -> None:
        """In a forked child, where it is nobody's to close."""
        self._closed = True
        _open.discard(self)

    def _forget(self) -> None:
        self._closed = True
        self._abrupt = ExitStack()
        _open.discard(self)
        forks.forget(self)

    def __del__(self) -> None:
        self.let_go()


_open: weakref.WeakSet[Storage] = weakref.WeakSet()


@atexit.register
def _let_go_of_all() -> None:
    """The process ends: threads that go on while the interpreter is taken down would be a risk for nothing."""
    for forgotten in list(_open):
        forgotten.let_go()
