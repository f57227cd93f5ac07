"""Offline: a node that is alone and whose log or metadata are damaged is made to start again, with what can be read.

Nobody else has its data, so nothing may be guessed: the database stays what it is, the entries behind it that the log
holds whole are applied, in order, up to the first one that is damaged; then the log begins anew. What was acknowledged
behind that is lost, and the report says so. Part of the composition root. Invariants: nothing is deleted, all that is
not used any more lies in `kept/`, which no start removes; a member of a cluster is never repaired, it heals by itself.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from hiqlite.config import NodeConfig
from hiqlite.engine.model import Identity
from hiqlite.errors import LogCorruption, SnapshotCorruption, StorageError, UsageError
from hiqlite.logstore.aside import Aside
from hiqlite.logstore.folder import CACHE, DB, DataFolder
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.meta_file import MetaDamaged
from hiqlite.logstore.segments import lives_in
from hiqlite.logstore.wal import WalLog
from hiqlite.node_generations import NAME
from hiqlite.node_group_storage import HINT_BACKUP
from hiqlite.node_healing import Healing, draw
from hiqlite.statemachine import trust
from hiqlite.statemachine.connection import ConnectionSettings
from hiqlite.statemachine.writer import Writer, WriterSettings

KEPT: Final = "kept"
APPLIED_S: Final = 0.001  # a pause between two looks


@dataclass
class Repaired:
    """What was done.

    Attributes:
        applied_index: the database holds everything up to here.
        from_log: so many entries of those came from the log.
        lost: what may be missing, a sentence each; empty: nothing that was acknowledged is.
    """

    applied_index: int = 0
    from_log: int = 0
    lost: list[str] = field(default_factory=list)


async def repair(config: NodeConfig) -> Repaired:
    """Repairs the data folder of a node that is not running.

    Raises:
        UsageError: it is a member of a cluster, or has no data. DataFolderInUse: it runs. SnapshotCorruption: the
        database itself is damaged. StorageError: the disk refuses.
    """
    if any(node.id != config.node_id for node in config.nodes):
        raise UsageError("a member of a cluster heals by itself", hint="start it; the others fill it")
    if not config.data_path.is_dir():
        raise UsageError(f"there is no data folder {config.data_path}", hint="check data_dir")
    with DataFolder(config.data_path) as folder:
        return await _Repair(config, folder).run()


class _Repair:
    """One run."""

    def __init__(self, config: NodeConfig, folder: DataFolder) -> None:
        self._config = config
        self._folder = folder
        self._aside = Aside(folder.path, KEPT)
        self._done = Repaired()

    async def run(self) -> Repaired:
        try:
            meta = Healing(self._config, self._folder).trusted()
        except MetaDamaged as damage:
            meta = self._new_metadata(damage)
        with closing(meta):
            await self._database(meta)
            self._cache(meta)
        return self._done

    def _new_metadata(self, damage: MetaDamaged) -> Meta:
        """What they said is told by the files: whose the log is by its segments, the database by its folder."""
        databases = [one for one in self._folder.databases.glob("*/*.db") if NAME.fullmatch(one.parent.name)]
        if len(databases) != 1:
            found = f"{self._folder.databases} holds {len(databases)} databases"
            raise StorageError(f"{damage.message}; and {found}", hint=HINT_BACKUP) from damage
        self._aside.put(self._folder.meta)
        meta = Meta.open(self._folder.meta)
        meta.set_node_id(self._config.node_id)
        meta.set_generation(DB, databases[0].parent.name)
        trust.unstamp(databases[0], ConnectionSettings())
        self._done.lost.append("the metadata: this node forms its cluster anew")
        return meta

    async def _database(self, meta: Meta) -> None:
        """The entries of the log behind the database are applied; then the log begins anew."""
        config, folder = self._config, self._folder
        name = meta.generation(DB)
        path = folder.databases / (name or "") / config.filename_db
        connection = ConnectionSettings(max_entry_bytes=config.max_entry_size)
        try:
            trust.examine(path, connection, meta.cluster_id)
        except SnapshotCorruption as damage:
            raise SnapshotCorruption(damage.message, hint=HINT_BACKUP) from damage
        writer = Writer.open(path, WriterSettings(connection=connection, apply_thread="always"))
        try:
            before = writer.applied_index
            await self._apply(meta, writer)
            self._done.applied_index = writer.applied_index
            self._done.from_log = writer.applied_index - before
            writer.set_synced_index(writer.applied_index)
        finally:
            await writer.close()
        self._aside.put(folder.log(DB) if folder.log_folder.is_dir() else folder.log_folder)
        meta.begin_incarnation(DB, draw())

    async def _apply(self, meta: Meta, writer: Writer) -> None:
        """Up to the first entry that cannot be read."""
        owner, lost = self._owner(meta), self._done.lost
        if owner is None:
            lost.append("the log is gone: entries behind the database may have been acknowledged")
            return
        log, found = WalLog.open(
            self._folder.log(DB),
            meta,
            group=DB,
            identity=owner,
            segment_bytes=self._config.wal_size,
            log_sync=self._config.log_sync,
        )
        index = writer.applied_index + 1
        try:
            if index <= found.base_index:
                place = f"the database ends at entry {index - 1}, the log begins behind entry {found.base_index}"
                raise SnapshotCorruption(place, hint=HINT_BACKUP)
            while index <= found.last_index:
                last, records = await log.read(index, 1)
                term = next(run.term for run in found.runs if run.first <= last <= run.last)
                writer.submit(index, last, term, [records], False)
                await applied(writer, last)
                index = last + 1
            if not found.whole:
                why = found.corrupt or "its newest segment is missing or short"
                lost.append(f"entries from {index} on, if there were any: {why}")
        except LogCorruption as damage:
            lost.append(f"entries {index} to {found.last_index}, and any behind them: {damage.message}")
        finally:
            await log.close()

    def _owner(self, meta: Meta) -> Identity | None:
        """Whose the log is; None where there is nothing of it."""
        incarnation = meta.incarnation(DB)
        lives = lives_in(self._folder.log(DB)) if self._folder.log(DB).is_dir() else set()
        own = {life for node_id, life in lives if node_id == self._config.node_id}
        if incarnation is None and len(own) == 1:
            incarnation = own.pop()
        return Identity(self._config.node_id, incarnation) if lives and incarnation is not None else None

    def _cache(self, meta: Meta) -> None:
        folder = self._folder
        if folder.log(CACHE).exists() or folder.cache.exists():
            self._aside.put(folder.log(CACHE))
            self._aside.put(folder.cache)
            self._done.lost.append("what the cache group held: it begins anew, empty")
        meta.begin_incarnation(CACHE, draw())


async def applied(writer: Writer, index: int) -> None:
    """Until the database holds everything up to `index`. Raises why it stopped."""
    while writer.applied_index < index:
        if writer.failure is not None:
            raise writer.failure
        writer.take()
        await asyncio.sleep(APPLIED_S)
