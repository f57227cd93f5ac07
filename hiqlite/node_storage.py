"""What a node keeps on its disk, opened in order: folder, metadata, log, database; and what they say together.

Part of the composition root: it connects the log store and the state machine, and decides only what their joint state
means for a start. Invariant: what a node says about itself afterwards is durable before it is said.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import apsw

from hiqlite import observe
from hiqlite._accel.records import header
from hiqlite.config import NodeConfig
from hiqlite.engine.model import Identity, Membership, Restored
from hiqlite.errors import ConfigError, LogCorruption, StorageError
from hiqlite.logstore.folder import DataFolder, make_durable_folder
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.recovered import Recovered
from hiqlite.logstore.wal import WalLog
from hiqlite.node_generations import Generations
from hiqlite.runtime.membership_record import memberships_in
from hiqlite.statemachine.audit import PROTECTED
from hiqlite.statemachine.connection import ConnectionSettings, open_inspector, open_reader
from hiqlite.statemachine.equality import content_hash
from hiqlite.statemachine.image_files import ImageFiles, IncomingImage
from hiqlite.statemachine.inspector import Inspector
from hiqlite.statemachine.reader import Reader, ReaderSettings
from hiqlite.statemachine.writer import Writer, WriterSettings

DB = 0
INCARNATION_BITS = 63
log = observe.logger("node")


class Storage:
    """Everything of one node that lies on its disk; made by `open`, ended by `close`."""

    meta: Meta
    identity: Identity
    log: WalLog
    recovered: Recovered
    writer: Writer
    reader: Reader
    inspector: Inspector
    generations: Generations
    images: ImageFiles
    _path: Path
    _connection: ConnectionSettings
    _inspecting: apsw.Connection

    def __init__(self, config: NodeConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.newest_group_time_ns = 0
        self.memberships: tuple[Membership, ...] = ()  # that the log holds, ascending
        self._loop = loop
        self._stack = AsyncExitStack()

    @classmethod
    async def open(cls, config: NodeConfig, loop: asyncio.AbstractEventLoop) -> Storage:
        """Open or create the data folder of `config`.

        Raises:
            DataFolderInUse, ConfigError (the folder belongs to another node), StorageError and its kinds.
        """
        storage = cls(config, loop)
        try:
            await storage._open()
        except BaseException:
            await storage.close()
            raise
        return storage

    async def _open(self) -> None:
        config = self.config
        folder = DataFolder(config.data_path)
        self._stack.callback(folder.close)
        self.meta = Meta.open(folder.meta)
        self._stack.callback(self.meta.close)
        self._identify()
        self.log, self.recovered = WalLog.open(
            folder.log(DB),
            self.meta,
            group=DB,
            identity=self.identity,
            segment_bytes=config.wal_size,
            log_sync=config.log_sync,
            loop=self._loop,
        )
        self._stack.push_async_callback(self.log.close)
        if not self.recovered.whole:
            raise LogCorruption(
                f"the log in {folder.log(DB)} lost what had been synced: {self.recovered.corrupt or 'segments'}",
                hint="restore this node's folder, or remove it to start this node empty",
            )
        self._open_database(folder)
        if self._log_lacks_what_is_applied():
            await self._begin_behind_the_database()
        newest = self.recovered.newest_readable
        if newest > self.recovered.base_index:
            _, record = await self.log.read(newest, 1)
            self.newest_group_time_ns = header(record, 0).group_time_ns
        for index in self.recovered.memberships:
            _, record = await self.log.read(index, 1)
            self.memberships += memberships_in(record)

    def _log_lacks_what_is_applied(self) -> bool:
        """The log ends before what is applied, or holds another entry there: one that never was committed, from
        before an image was installed (a crash came between that and the log's own cut)."""
        index, found = self.writer.applied_index, self.recovered
        if index > found.last_index:
            return True
        terms = [run.term for run in found.runs if run.first <= index <= run.last]
        if index == found.base_index:
            terms = [found.base_term]
        return bool(terms) and index > 0 and terms[0] != self.writer.applied_term

    async def _begin_behind_the_database(self) -> None:
        """The database is ahead of its log: a loss of power took what only the log had (semantics.md section 3).

        The log begins anew behind what is applied; the engine acknowledges nothing until a leader's log confirms that
        entry, or this node is elected. The database itself was made durable when it was opened.
        """
        index, term = self.writer.applied_index, self.writer.applied_term
        log.warning(
            "the log ends at %d, the database is at %d: the log begins anew there", self.recovered.last_index, index
        )
        io_sequence = await self.log.restart_at(index, term)
        self.recovered = replace(
            self.recovered, runs=(), base_index=index, base_term=term, io_sequence=io_sequence, faulty=(),
            memberships=(),
        )

    def _identify(self) -> None:
        """The folder's node id and incarnation; both are made durable by the first start."""
        known = self.meta.node_id
        if known is None:
            self.meta.set_node_id(self.config.node_id)
        elif known != self.config.node_id:
            raise ConfigError(
                f"the data folder {self.config.data_path} belongs to node {known}, this is node {self.config.node_id}",
                hint="check data_dir and node_id",
            )
        incarnation = self.meta.incarnation(DB)
        if incarnation is None:
            incarnation = secrets.randbits(INCARNATION_BITS) | 1
            self.meta.set_incarnation(DB, incarnation)
        self.identity = Identity(self.config.node_id, incarnation)

    def _open_database(self, folder: DataFolder) -> None:
        config = self.config
        self.generations = Generations(folder.databases, self.meta, DB, config.filename_db)
        path = self._path = self.generations.open()
        connection = self._connection = ConnectionSettings(
            shared_access=config.db_shared_access,
            max_entry_bytes=config.max_entry_size,
            statement_cache=config.prepared_statement_cache_capacity,
        )
        for file in (path, path.with_name(path.name + "-wal")):
            sync_file(file)  # before SQLite opens it: closing a descriptor later would drop SQLite's locks
        PROTECTED.add(path)
        self._stack.callback(lambda: PROTECTED.remove(self._path))
        self.writer = Writer.open(
            path,
            WriterSettings(
                connection=connection, apply_thread=config.apply_thread, cpu_affinity=config.cpu_affinity
            ),
            self._loop,
        )
        self._stack.push_async_callback(self.writer.close)
        settings = ReaderSettings(
            connection=connection,
            threads=config.read_pool_size,
            statement_cache=config.prepared_statement_cache_capacity,
        )
        self.reader = Reader.open(path, settings, self._loop)
        self._stack.push_async_callback(self.reader.close)
        self._inspecting = open_inspector(path, connection)
        self._stack.callback(lambda: self._inspecting.close())
        self.inspector = Inspector(self._inspecting, config.prepared_statement_cache_capacity)
        make_durable_folder(folder.images)
        self.images = ImageFiles(folder.images, connection)
        self.images.clean()

    async def place(self, image: IncomingImage, membership: Membership | None = None) -> Path:
        """The database is `image` from the next start on: complete, checked and synced by `finish`.

        `membership` was in force at its end, and is recorded in the same step.
        A crash at any moment leaves the old one or this one, complete. What is open stays open on the old one.

        Returns:
            The path for `open_placed`.

        Raises:
            StorageError: the disk failed; nothing has changed.
        """
        assert image.complete
        image.close()
        with ThreadPoolExecutor(1, "hiqlite-install") as executor:
            name = await self._loop.run_in_executor(executor, self.generations.place, image.path)
            path = self.generations.path(name)
            try:
                await asyncio.wrap_future(self.meta.worker.submit(self.generations.switch, name, membership))
            except StorageError:
                if self.meta.generation(DB) != name:  # else it is done, whatever the disk said
                    raise
            try:
                await self._loop.run_in_executor(executor, image.discard)
            except StorageError as error:  # it is in place all the same
                log.warning("what is left of an image goes at the next start: %s", error)
        return path

    async def open_placed(self, path: Path) -> None:
        """Goes over to the database that was placed; the one before it is removed.

        Readers that are under way end on the old one. Nothing may be submitted to the writer meanwhile, and the log
        stays as it is: its owner cuts or restarts it.

        Raises:
            StorageError: it cannot be opened. The writer is closed then, and the next start tries again.
        """
        old, self._path = self._path, path
        PROTECTED.add(path)
        PROTECTED.remove(old)
        await self.writer.switch(path)
        self.reader.reopen(path)
        inspecting, self._inspecting = self._inspecting, open_inspector(path, self._connection)
        self.inspector.reopen(self._inspecting)
        inspecting.close()
        with ThreadPoolExecutor(1, "hiqlite-install") as executor:
            await self._loop.run_in_executor(executor, self.generations.remove_others, path.parent.name)

    async def switch_to(self, image: IncomingImage) -> None:
        """`place` and `open_placed` in one."""
        await self.open_placed(await self.place(image))

    @property
    def database(self) -> Path:
        """The file of the current generation."""
        return self._path

    def membership(self) -> Membership | None:
        """The membership in force, as far as this node knows; None while it has not formed or joined."""
        return self.meta.membership(DB)

    async def record(self, voters: tuple[Identity, ...], cluster_id: bytes) -> None:
        """The set that forms; durable when this returns."""
        await asyncio.wrap_future(self.meta.worker.submit(self.meta.set_formed, cluster_id, voters))

    async def form(self, voters: tuple[Identity, ...]) -> None:
        """The recorded set acts from now on; durable when this returns."""
        await asyncio.wrap_future(self.meta.worker.submit(self.meta.set_membership, DB, Membership(0, voters)))

    async def record_membership(self, membership: Membership) -> None:
        """A committed configuration; durable when this returns."""
        await asyncio.wrap_future(self.meta.worker.submit(self.meta.set_membership, DB, membership))

    def restored(self, membership: Membership) -> Restored:
        """What the engine starts from."""
        found = self.recovered
        return Restored(
            term=found.term,
            vote=found.vote,
            membership=membership,
            runs=found.runs,
            base_index=found.base_index,
            base_term=found.base_term,
            applied_index=self.writer.applied_index,
            applied_term=self.writer.applied_term,
            io_sequence=found.io_sequence,
            faulty=found.faulty,
            memberships=self.memberships,
        )

    async def content_hash(self) -> str:
        """Hash of schema and rows, read on a thread and a connection of its own from one snapshot."""

        def scan() -> str:
            connection = open_reader(self._path, self._connection)
            try:
                return content_hash(connection)
            finally:
                connection.close()

        with ThreadPoolExecutor(1, "hiqlite-hash") as executor:
            return await self._loop.run_in_executor(executor, scan)

    def chance(self) -> int:
        """A seed for the engine's timeouts, different on every start."""
        return random.SystemRandom().getrandbits(48)

    async def close(self) -> None:
        await self._stack.aclose()


def sync_file(path: Path) -> None:
    """What a process that was killed had written to `path` becomes durable; nothing happens where there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
