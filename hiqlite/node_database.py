"""The database group of a node: its log, and the SQLite file with everything that has it open.

Part of the composition root. Invariant: writer, readers and inspector are on the same generation, the one that the
metadata name.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw

from hiqlite import durable, observe
from hiqlite.config import NodeConfig
from hiqlite.engine.model import Identity, Membership
from hiqlite.engine.ports import StateMachine
from hiqlite.errors import SnapshotCorruption, StorageError
from hiqlite.logstore.aside import EVIDENCE
from hiqlite.logstore.folder import DB, DataFolder
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.space import Space
from hiqlite.node_generations import Generations
from hiqlite.node_group_storage import HINT_REFUSED, GroupStorage
from hiqlite.statemachine import trust
from hiqlite.statemachine.audit import PROTECTED
from hiqlite.statemachine.connection import ConnectionSettings, open_inspector, open_reader
from hiqlite.statemachine.equality import content_hash
from hiqlite.statemachine.image_files import ImageFiles, IncomingImage
from hiqlite.statemachine.inspector import Inspector
from hiqlite.statemachine.reader import Reader, ReaderSettings
from hiqlite.statemachine.rehearsal import Rehearsals
from hiqlite.statemachine.writer import Writer, WriterSettings

log = observe.logger("node")


class DatabaseStorage(GroupStorage):
    """Made by `open`, ended by `close`."""

    writer: Writer
    reader: Reader
    inspector: Inspector
    generations: Generations
    images: ImageFiles
    rehearsals: Rehearsals
    _path: Path
    _connection: ConnectionSettings
    _inspecting: apsw.Connection

    @classmethod
    async def open(
        cls, config: NodeConfig, folder: DataFolder, meta: Meta, loop: asyncio.AbstractEventLoop
    ) -> DatabaseStorage:
        """Raises StorageError and its kinds; nothing is left open then."""
        storage = cls(DB, config, folder, meta, loop)
        try:
            await storage.open_parts()
        except BaseException:
            await storage.close()
            raise
        return storage

    @property
    def machine(self) -> StateMachine:
        return self.writer

    def open_log(self) -> None:
        """Where the config gives the database another name, nothing is touched. Raises ConfigError, too."""
        self.generations = Generations(self._folder.databases, self.meta, self.number, self.config.filename_db)
        self.generations.check_names()
        super().open_log()

    def open_machine(self) -> None:
        config, folder = self.config, self._folder
        path = self._path = self.generations.open()
        connection = self._connection = ConnectionSettings(
            shared_access=config.db_shared_access,
            statement_cache=config.prepared_statement_cache_capacity,
        )
        if self.meta.distrusted(self.number) == path.parent.name:
            raise SnapshotCorruption(f"{path} was found damaged while it was in use")
        is_new = trust.examine(path, connection, self.meta.cluster_id) == 0
        self._open_images(folder.images)
        PROTECTED.add(path)
        for stack in (self._machine_stack, self._machine_abrupt):
            stack.callback(lambda: PROTECTED.remove(self._path))
        self.writer = Writer.open(
            path,
            WriterSettings(
                connection=connection, apply_thread=config.apply_thread, cpu_affinity=config.cpu_affinity
            ),
            self._loop,
        )
        self._machine_stack.push_async_callback(self.writer.close)
        self._machine_abrupt.callback(self.writer.let_go)
        if is_new and self.meta.cluster_id is not None:  # its log is applied to it anew
            trust.stamp(path, connection, self.meta.cluster_id)
        settings = ReaderSettings(
            connection=connection,
            threads=config.read_pool_size,
            statement_cache=config.prepared_statement_cache_capacity,
        )
        self.reader = Reader.open(path, settings, self._loop)
        self._machine_stack.push_async_callback(self.reader.close)
        self._machine_abrupt.callback(self.reader.let_go)
        self._inspecting = open_inspector(path, connection)
        for stack in (self._machine_stack, self._machine_abrupt):
            stack.callback(lambda: self._inspecting.close())
        self.inspector = Inspector(self._inspecting, config.prepared_statement_cache_capacity)
        kept_bytes = Space(folder.path, config.wal_size).kept_bytes * 5 // 4  # with less this node would stop writes
        copies = WriterSettings(connection, apply_thread="always", kept_bytes=kept_bytes)
        self.rehearsals = Rehearsals(lambda: self._path, folder.images, copies, self._loop)
        self._machine_stack.push_async_callback(self.rehearsals.close)
        self._machine_abrupt.callback(self.rehearsals.let_go)

    def _open_images(self, folder: Path) -> None:
        """What an earlier life left there is removed: it may fill the disk."""
        if os.path.lexists(folder) and not folder.is_dir():
            self._put_aside(folder)
        try:
            durable.make_folder(folder)
            self.images = ImageFiles(folder, self._connection)
            self.images.clean()
        except OSError as error:
            raise StorageError(f"cannot use {folder}: {error.strerror}", hint=HINT_REFUSED) from error

    async def record(self, voters: tuple[Identity, ...], cluster_id: bytes) -> None:
        await super().record(voters, cluster_id)
        await self._stamp()

    async def join(self, members: Membership, cluster_id: bytes) -> None:
        await super().join(members, cluster_id)
        await self._stamp()

    async def _stamp(self) -> None:
        """Before anything is applied: the file says of which cluster it is."""
        stamp = trust.stamp, self._path, self._connection, self.meta.cluster_id
        await asyncio.wrap_future(self.meta.worker.submit(*stamp))

    async def forget_cluster(self) -> None:
        """The database is of no cluster; the next start makes it that of the metadata."""
        await asyncio.wrap_future(self.meta.worker.submit(trust.unstamp, self._path, self._connection))

    def drop_state(self) -> None:
        self._put_aside(self.generations.drop())

    def distrust(self, evidence: str = "") -> None:
        self.meta.worker.submit(self._distrust, self._path.parent, evidence)

    def _distrust(self, generation: Path, evidence: str) -> None:
        self.meta.set_distrusted(self.number, generation.name)
        if evidence:
            durable.write_file(generation / EVIDENCE, f"{evidence}\n".encode())

    @property
    def size_bytes(self) -> int:
        """Of the database file."""
        return self._path.stat().st_size

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
                if self.meta.generation(self.number) != name:  # else it is done, whatever the disk said
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

    def open_reader(self) -> apsw.Connection:
        """One more connection to the database, for somebody who looks at it beside the readers. Raises StorageError."""
        return open_reader(self._path, self._connection)

    async def content_hash(self) -> str:
        """Hash of schema and rows, read on a thread and a connection of its own from one snapshot."""

        def scan() -> str:
            connection = self.open_reader()
            try:
                return content_hash(connection)
            finally:
                connection.close()

        with ThreadPoolExecutor(1, "hiqlite-hash") as executor:
            return await self._loop.run_in_executor(executor, scan)
