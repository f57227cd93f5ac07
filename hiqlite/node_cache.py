"""The cache group of a node: its log, on disk or in memory, its state machine, and that state's file and images.

In memory only, each start is another incarnation, a higher number than all before; and a group that forms anew begins
behind the highest of its founders' numbers, so an index is never used twice (semantics.md section 12).
Part of the composition root. Invariants: the file never holds a state that the log on disk does not cover, and there is
none while the log is in memory only; no index at or above the recorded token mark has been in use.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hiqlite import durable
from hiqlite.cache import state_file
from hiqlite.cache.image import IncomingState, OutgoingState
from hiqlite.cache.machine import CacheMachine
from hiqlite.cache.state import CacheState
from hiqlite.config import NodeConfig
from hiqlite.engine.model import Membership, Restored
from hiqlite.engine.ports import StateMachine
from hiqlite.errors import StorageError
from hiqlite.logstore.folder import CACHE, DataFolder
from hiqlite.logstore.memory import MemoryLog
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.recovered import Recovered
from hiqlite.node_group_storage import GroupStorage
from hiqlite.runtime.receiving import IncomingFile
from hiqlite.runtime.snapshots import ImageFile

TOKEN_BITS: Final = 24  # a second of the wall clock is worth so many indexes
TOKENS_RESERVED: Final = 1 << TOKEN_BITS


class CacheStorage(GroupStorage):
    """Made by `open`, ended by `close`."""

    cache: CacheMachine
    _mark: int
    _kept_index = 0  # of the state in the file, once one was written

    @classmethod
    async def open(
        cls, config: NodeConfig, folder: DataFolder, meta: Meta, loop: asyncio.AbstractEventLoop
    ) -> CacheStorage:
        """Raises StorageError and its kinds; nothing is left open then."""
        storage = cls(CACHE, config, folder, meta, loop, in_memory=not config.cache_storage_disk)
        try:
            storage._make_folders()
            await storage.open_parts()
        except BaseException:
            await storage.close()
            raise
        return storage

    def _make_folders(self) -> None:
        folder = self._folder
        try:
            if self.forgets:  # what an earlier start had on disk belongs to an incarnation that is over
                for path in (folder.log(CACHE), folder.cache):
                    shutil.rmtree(path, ignore_errors=not path.exists())
            else:
                if os.path.lexists(folder.cache) and not folder.cache.is_dir():
                    self._put_aside(folder.cache)
                durable.make_folder(folder.cache)
        except OSError as error:
            raise StorageError(f"cannot use {folder.cache}: {error.strerror}", hint="check the disk") from error

    def open_machine(self) -> None:
        if self.forgets:
            self.cache = CacheMachine(self._loop)
            self.cache.on_applied = self._applied
        else:
            self.cache = CacheMachine(self._loop, state_file.read(self._file, self.identity), keep=self._keep)
        self._machine_stack.push_async_callback(self.cache.close)

    def drop_state(self) -> None:
        self._put_aside(self._file)

    def distrust(self, evidence: str = "") -> None:
        """It is in memory while it is in use: no damage of its file is found then."""

    @property
    def machine(self) -> StateMachine:
        return self.cache

    def _new_incarnation(self) -> int:
        """In memory: ascending, whatever the wall clock does."""
        if not self.forgets:
            return super()._new_incarnation()
        life = max(time.time_ns() // 1_000_000_000 << TOKEN_BITS, self.meta.token_mark(CACHE))
        self._mark = life + TOKENS_RESERVED
        self.meta.set_token_mark(CACHE, self._mark)
        return life

    async def restored(self, membership: Membership) -> Restored:
        """In memory the founders begin behind the highest of their numbers; who joins is given an image."""
        founders = self.meta.recorded_set(CACHE)
        if founders is not None and isinstance(self.log, MemoryLog):
            base_index = max(one.incarnation for one in founders)
            io_sequence = await self.log.restart_at(base_index, 0)
            self.recovered = Recovered(base_index=base_index, io_sequence=io_sequence)
            await self._reserve_behind(base_index)
            self.cache.begin_at(base_index)
        return await super().restored(membership)

    async def _reserve_behind(self, index: int) -> None:
        """Before this group goes on from another node's index, which may be far ahead of its own ones."""
        self._mark = max(self._mark, index + TOKENS_RESERVED)
        await asyncio.wrap_future(self.meta.worker.submit(self.meta.set_token_mark, CACHE, self._mark))

    def _applied(self, index: int) -> None:
        """Reserve indexes long before they are in use: a group that begins anew begins behind all of them."""
        if index > self._mark - TOKENS_RESERVED // 2:
            self._mark = index + TOKENS_RESERVED
            self.meta.worker.submit(self.meta.set_token_mark, CACHE, self._mark)

    @property
    def _file(self) -> Path:
        return self._folder.cache / "state"

    async def _keep(self, state: CacheState) -> None:
        await asyncio.wrap_future(self.meta.worker.submit(self._write, state))

    def _write(self, state: CacheState) -> None:
        """On the worker, which keeps states in their order: one from before an image never takes its place."""
        if state.applied_index > self._kept_index:
            state_file.write(self._file, state, self.identity)
            self._kept_index = state.applied_index

    # -- images

    async def make(self, membership_at: Callable[[int], bytes]) -> OutgoingState:
        """An image of what is applied now."""
        state = self.cache.state
        return OutgoingState.of(state, membership_at(state.applied_index))

    async def remove(self, image: ImageFile) -> None:
        """It goes with its last user."""

    async def begin(self, manifest: bytes, stop: threading.Event) -> IncomingState:
        return IncomingState(manifest)

    async def finish(self, image: IncomingFile, stop: threading.Event) -> None:
        """Whole when this returns. Raises SnapshotCorruption."""
        assert isinstance(image, IncomingState), "one of those that were begun here"
        image.state()

    async def place(self, image: IncomingFile, membership: Membership) -> CacheState:
        """The image is durably this group's state, and so is who was in force at its index.

        The membership comes first: a state must never be ahead of the members that its node knows.
        """
        assert isinstance(image, IncomingState), "one of those that were begun here"
        state = image.state()
        await self.record_membership(membership)
        if self.forgets:
            await self._reserve_behind(state.applied_index)
        else:
            await self._keep(state)
        return state

    async def open_placed(self, placed: CacheState) -> None:
        """The state machine goes on from there."""
        await self.cache.replace(placed)

    def close_images(self) -> None:
        """Nothing of an image outlives its users."""
