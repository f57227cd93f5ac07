"""Offline: a node that is alone and whose log or metadata are damaged is made to start again, with what can be read.

Nobody else has its data, so nothing may be guessed: the database stays what it is, the entries behind it that the log
holds whole are applied, in order, up to the first one that is damaged; then the log begins anew. What was acknowledged
behind that is lost, and the report says so. Part of the composition root. Invariants: nothing is deleted, all that is
not used any more lies in `kept/`, which no start removes; a member of a cluster is never repaired, it heals by itself,
unless its majority is lost for good (`node_recovery.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hiqlite.config import NodeConfig
from hiqlite.engine.change import members_of
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import LogCorruption, SnapshotCorruption, StorageError, UsageError
from hiqlite.logstore.aside import Aside
from hiqlite.logstore.folder import CACHE, DB, DataFolder
from hiqlite.logstore.meta import Meta, first_of
from hiqlite.logstore.meta_file import MetaDamaged
from hiqlite.logstore.segments import lives_in
from hiqlite.logstore.wal import WalLog
from hiqlite.node_generations import check_name, names_of
from hiqlite.node_group_storage import HINT_BACKUP
from hiqlite.node_healing import Healing
from hiqlite.runtime.renouncing import first_life
from hiqlite.statemachine import trust
from hiqlite.statemachine.connection import ConnectionSettings
from hiqlite.statemachine.writer import Writer, WriterSettings

KEPT: Final = "kept"
HEALS: Final = "heals by itself"
HINT_MEMBER: Final = "start it with the cluster's config: the others fill it; is their majority lost: `hiqlite recover`"
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
        raise UsageError(f"a member of a cluster {HEALS}", hint=HINT_MEMBER)
    if not config.data_path.is_dir():
        raise UsageError(f"there is no data folder {config.data_path}", hint="check data_dir")
    with DataFolder(config.data_path) as folder:
        return await _Repair(config, folder).run()


async def repair_survivor(config: NodeConfig, cluster_id: bytes) -> Repaired:
    """The same for a member that nobody is left to heal: afterwards it is a cluster of its own, of that id.

    Whoever calls it knows that the majority is lost for good. Until the last step the node returns, if it is started.
    """
    with DataFolder(config.data_path) as folder:
        return await _Repair(config, folder, cluster_id).run()


class _Repair:
    """One run; of a survivor, which begins the cluster of that id, where one is given."""

    def __init__(self, config: NodeConfig, folder: DataFolder, cluster_id: bytes | None = None) -> None:
        self._config = config
        self._folder = folder
        self._cluster_id = cluster_id
        self._aside = Aside(folder.path, KEPT)
        self._done = Repaired()

    async def run(self) -> Repaired:
        try:
            return await self._run()
        except SnapshotCorruption as damage:
            raise SnapshotCorruption(damage.message, hint=HINT_BACKUP) from damage

    async def _run(self) -> Repaired:
        try:
            meta = Healing(self._config, self._folder).trusted()
        except MetaDamaged as damage:
            meta = self._new_metadata(damage)
        with closing(meta):
            if self._cluster_id is None:
                self._refuse_members(meta)
            path = await self._database(meta)
            self._cache(meta)
            incarnation = meta.incarnation(DB)
            if self._cluster_id is not None and incarnation is not None:
                trust.unstamp(path, ConnectionSettings())  # it is of the cluster that is given up
                alone = Membership(self._done.applied_index, (Identity(self._config.node_id, incarnation),))
                meta.begin_cluster(self._cluster_id, {DB: alone})
        return self._done

    def _refuse_members(self, meta: Meta) -> None:
        """Whatever the config says: who others have formed a cluster with would be a second one of the same id."""
        own = self._config.node_id
        if meta.node_id not in (None, own):
            raise UsageError(
                f"the data folder is that of node {meta.node_id}, this is node {own}", hint="check node_id"
            )
        members = meta.membership(DB)
        known = members_of(members) if members is not None else meta.recorded_set(DB) or ()
        others = sorted({one.id for one in known if one.id != own})
        if others:
            raise UsageError(
                f"a member of a cluster (with node {', '.join(map(str, others))}) {HEALS}", hint=HINT_MEMBER
            )

    def _new_metadata(self, damage: MetaDamaged) -> Meta:
        """What they said is told by the files: whose the log is by its segments, the database by its folder."""
        try:
            generation = self._only_generation()
        except StorageError as missing:
            raise StorageError(f"{damage.message}; and {missing.message}", hint=HINT_BACKUP) from damage
        # First: nobody would remember the cluster whose it says it is; and where it is damaged nothing is touched.
        trust.unstamp(self._path(generation), ConnectionSettings())
        self._aside.put(self._folder.meta)
        returns = self._cluster_id is not None
        meta = Meta.open(self._folder.meta, first_of(self._config.node_id, generation, returns=returns))
        self._done.lost.append("the metadata: this node forms its cluster anew")
        return meta

    def _only_generation(self) -> str:
        """Where nothing says which database counts: there must be exactly one. Raises StorageError."""
        found = names_of(self._folder.databases, self._config.filename_db)
        if len(found) != 1:
            what = f"{self._folder.databases} holds {len(found)} databases {self._config.filename_db}"
            raise StorageError(what, hint=HINT_BACKUP)
        return found[0]

    def _path(self, generation: str) -> Path:
        return self._folder.databases / generation / self._config.filename_db

    async def _database(self, meta: Meta) -> Path:
        """The entries of the log behind the database are applied; then the log begins anew. Gives where it is."""
        folder = self._folder
        if (name := meta.generation(DB)) is None:
            name = self._only_generation()
            meta.set_generation(DB, name)
        path = self._path(name)
        check_name(path)
        connection = ConnectionSettings()
        trust.examine(path, connection, meta.cluster_id)
        writer = Writer.open(path, WriterSettings(connection=connection, apply_thread="always"))
        try:
            before = writer.applied_index
            await self._apply(meta, writer)
            self._done.applied_index = writer.applied_index
            self._done.from_log = writer.applied_index - before
            writer.set_synced_index(writer.applied_index)
            writer.make_durable()
            await reached(lambda: writer.durable_index, writer.applied_index, writer)
        finally:
            await writer.close()
        self._aside.put(folder.log(DB) if folder.log_folder.is_dir() else folder.log_folder)
        meta.begin_incarnation(DB, first_life(), returns=self._cluster_id is not None)
        return path

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
                raise SnapshotCorruption(place)
            while index <= found.last_index:
                last, records = await log.read(index, 1)
                term = next(run.term for run in found.runs if run.first <= last <= run.last)
                writer.submit(index, last, term, [records], False)
                await reached(lambda: writer.applied_index, last, writer)
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
        meta.begin_incarnation(CACHE, first_life())


async def reached(where: Callable[[], int], index: int, writer: Writer) -> None:
    """Until the database is at `index`. Raises why it stopped."""
    while where() < index:
        if writer.failure is not None:
            raise writer.failure
        writer.take()
        await asyncio.sleep(APPLIED_S)
