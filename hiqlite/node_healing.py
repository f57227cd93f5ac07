"""What a start does about parts of the data folder that cannot be trusted, when others have the same data.

What this node promised with them is gone: it throws them out of its way and comes back under a new incarnation, which
joins as whoever was never there (semantics.md section 10). Without other members there is nobody to get anything from:
then the start says what is wrong and changes nothing. Part of the composition root. Invariants: nothing is thrown away
because a disk or a permission refused; nothing is deleted before a majority has confirmed that this node has all that
is committed, in the cluster that the data are of; an incarnation that is over never acts, wherever a crash comes
between two steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from hiqlite import durable, observe
from hiqlite.config import NodeConfig
from hiqlite.errors import HiqliteError, LogCorruption, SnapshotCorruption, StorageError
from hiqlite.logstore.aside import NOBODY_KNOWS, Aside
from hiqlite.logstore.folder import CACHE, DB, GROUP_NAMES, DataFolder
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.meta_file import MetaDamaged
from hiqlite.logstore.segments import list_segments, lives_in
from hiqlite.node_generations import names_of
from hiqlite.node_group import NodeGroup
from hiqlite.node_group_storage import HINT_ALONE, HINT_REFUSED, cluster_of
from hiqlite.runtime.renouncing import first_life, next_life
from hiqlite.statemachine import trust
from hiqlite.statemachine.connection import ConnectionSettings

T = TypeVar("T")
TRIES: Final = 3  # the log, then the state, then whole
log = observe.logger("node")


class Healing:
    """Of one node's folder, before it says anything to anybody. Not `heals`: as if it were alone."""

    def __init__(self, config: NodeConfig, folder: DataFolder, *, heals: bool = True) -> None:
        self._config = config
        self._names_peers = any(node.id != config.node_id for node in config.nodes)
        self._has_peers = heals and self._names_peers
        self._folder = folder
        self._aside = Aside(folder.path)

    def open_metadata(self) -> Meta:
        """The metadata; of a member of a cluster that lost them, new ones.

        Raises:
            StorageError: they cannot be trusted, and nobody else has this node's data; or the disk refuses.
        """
        try:
            return self._opened()
        except OSError as error:
            where = error.filename or self._folder.path
            raise StorageError(f"cannot use {where}: {error.strerror}", hint=HINT_REFUSED) from error

    def _opened(self) -> Meta:
        try:
            meta = self.trusted()
        except MetaDamaged as damage:
            if not self._has_peers:
                raise StorageError(damage.message, hint=HINT_ALONE) from damage
            log.error("%s; this node comes back as a new member, filled by the others", damage.message)
            self._aside.say_whose(*self._stamps())
            # The metadata first: a crash behind that finds data without them, and does the rest.
            for path in (self._folder.meta, self._folder.log_folder, self._folder.databases, self._folder.cache):
                self._aside.put(path)
            meta = Meta.open(self._folder.meta)
        # Judged by what is there, also by who only looks: wherever a crash came, what lies aside is no fresh node's.
        if meta.incarnation(DB) is None and self._names_peers and self._aside.holds_anything:
            meta.begin_to_return({group: first_life() for group in (DB, CACHE)})
        return meta

    def _stamps(self) -> list[str]:
        """What databases say of their cluster, where the metadata cannot."""
        databases = self._folder.databases
        names = names_of(databases, self._config.filename_db)
        found = [trust.stamp_in(databases / name / self._config.filename_db, ConnectionSettings()) for name in names]
        return [NOBODY_KNOWS if one is None else one for one in found or [None] if one != ""]

    def trusted(self, place: Path | None = None) -> Meta:
        """The metadata as they are, or new ones where there are no data; `place`: of a copy. Raises MetaDamaged."""
        folder = self._folder
        place = place or folder.meta
        if not durable.exists(place / "data.mdb") and self._has_data():
            raise MetaDamaged(f"the metadata are missing in {folder.path}, while other data are there")
        meta = Meta.open(place)
        try:
            for group in (DB, CACHE):
                if meta.in_memory(group):
                    continue  # a log that lies there is that of an earlier life, on its way to be removed
                lives = lives_in(folder.log(group))
                own = (meta.node_id, meta.incarnation(group))
                if None not in own and lives and own not in lives:
                    raise MetaDamaged(f"the metadata and the log in {folder.log(group)} are not of the same node")
        except BaseException:
            meta.close()
            raise
        return meta

    def _has_data(self) -> bool:
        """Whether there is what only a node with metadata can have written."""
        folder = self._folder
        generations = (folder.databases / name for name in durable.names(folder.databases))
        return any(list_segments(folder.log(group)) for group in (DB, CACHE)) or any(
            durable.names(one) for one in generations if one != folder.images
        )

    async def open_group(self, meta: Meta, group: int, open_parts: Callable[[], Awaitable[T]]) -> T:
        """What `open_parts` gives; after something was damaged, of a new incarnation.

        Raises:
            LogCorruption, SnapshotCorruption: nobody else has this node's data. StorageError: the disk refuses.
        """
        for _ in range(TRIES - 1):
            try:
                return await open_parts()
            except (LogCorruption, SnapshotCorruption) as damage:
                if not self._others_have(meta, group):
                    raise
                self._begin_anew(meta, group, damage)
        return await open_parts()

    def _others_have(self, meta: Meta, group: int) -> bool:
        """Whether there are other voters, who have all that was acknowledged."""
        if not self._has_peers:
            return False
        membership = meta.membership(group)
        if membership is None:
            return True  # never a member, or about to come back: nothing of this incarnation counts anywhere
        return any(one.id != self._config.node_id for one in (*membership.voters, *membership.outgoing))

    def leave_earlier_life(self, meta: Meta) -> None:
        """Of a folder that is known to be of one: nothing of it is used. The database's group last, it remembers."""
        if not (self._has_peers and meta.replaced(DB)):
            return
        for group in (CACHE, DB):
            self._begin_anew(meta, group, SnapshotCorruption("the data are of an earlier life of this node"))

    def leave_set(self, meta: Meta, group: int) -> None:
        """Another incarnation takes the place of one that recorded a set which never forms; with the group closed."""
        own = meta.incarnation(group)
        assert own is not None and meta.membership(group) is None, "who has formed stays what it is"
        self._aside.say_whose()  # its set never formed: nothing of it counts anywhere
        self._put_aside(group)
        meta.begin_incarnation(group, next_life(own), renounced=meta.renounced(group))

    def _begin_anew(self, meta: Meta, group: int, damage: StorageError) -> None:
        """The log goes in any case: its promises are those of an incarnation that is over. It goes first: without it
        the old incarnation is known to be over (its newest segment is missing) if a crash comes in between."""
        log.error("%s: %s; this node comes back as a new member", GROUP_NAMES[group], damage.message)
        self._aside.say_whose(*cluster_of(meta))
        self._put_aside(group)
        if group == DB and isinstance(damage, SnapshotCorruption):
            self._aside.put(self._folder.databases)
        returns = meta.membership(group) is not None or meta.returns(group)  # who never acted may still found it
        meta.begin_incarnation(group, first_life(), returns=returns)

    def _put_aside(self, group: int) -> None:
        folder = self._folder
        self._aside.put(folder.log(group) if folder.log_folder.is_dir() else folder.log_folder)
        if group == CACHE:  # its state says whose it is, and is small
            self._aside.put(folder.cache)


async def clear_aside(folder: DataFolder, meta: Meta, joining: asyncio.Task[None], groups: Iterable[NodeGroup]) -> None:
    """What was moved away goes, once this node has all that is committed, as a majority confirms; else it stays. So
    does what is of another cluster than the one that was joined: nobody there has it."""
    aside = Aside(folder.path)
    try:
        if not aside.holds_anything:
            return
        await asyncio.wait([joining])
        for group in groups:
            await group.until_leader()
        is_known = aside.clusters <= set(cluster_of(meta))
        if is_known:
            await asyncio.to_thread(aside.clear)
    except HiqliteError as error:
        log.warning("%s is kept: %s", aside.folder, error)
        return
    if not is_known:
        log.warning(
            "%s is kept: for all that is known its data are of another cluster than the one that this node is in now; "
            "remove it when nobody needs them",
            aside.folder,
        )
