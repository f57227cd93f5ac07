"""What a start does about parts of the data folder that cannot be trusted, when others have the same data.

What this node promised with them is gone: it throws them out of its way and comes back under a new incarnation, which
joins as whoever was never there (semantics.md section 10). Without other members there is nobody to get anything from:
then the start says what is wrong and changes nothing. Part of the composition root. Invariants: nothing is thrown away
because a disk or a permission refused; nothing is deleted before a majority has confirmed that this node has all that
is committed; an incarnation that is over never acts, wherever a crash comes between two steps.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from hiqlite import observe
from hiqlite.config import NodeConfig
from hiqlite.errors import HiqliteError, LogCorruption, SnapshotCorruption, StorageError
from hiqlite.logstore.aside import Aside
from hiqlite.logstore.folder import CACHE, DB, GROUP_NAMES, DataFolder
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.meta_file import MetaDamaged
from hiqlite.logstore.segments import list_segments, lives_in
from hiqlite.node_group import NodeGroup
from hiqlite.node_group_storage import HINT_ALONE, HINT_REFUSED, INCARNATION_BITS
from hiqlite.runtime.renouncing import next_life

T = TypeVar("T")
TRIES: Final = 3  # the log, then the state, then whole
log = observe.logger("node")


class Healing:
    """Of one node's folder, before it says anything to anybody. Not `heals`: as if it were alone."""

    def __init__(self, config: NodeConfig, folder: DataFolder, *, heals: bool = True) -> None:
        self._config = config
        self._has_peers = heals and any(node.id != config.node_id for node in config.nodes)
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
            for path in (self._folder.log_folder, self._folder.databases, self._folder.cache, self._folder.meta):
                self._aside.put(path)
            meta = Meta.open(self._folder.meta)
        if meta.fresh and self._has_peers and self._aside.holds_anything:
            for group in (DB, CACHE):
                meta.begin_incarnation(group, draw(), returns=True)
        return meta

    def trusted(self) -> Meta:
        """The metadata as they are, or new ones where there are no data. Raises MetaDamaged."""
        folder = self._folder
        if not (folder.meta / "data.mdb").exists() and self._has_data():
            raise MetaDamaged(f"the metadata are missing in {folder.path}, while other data are there")
        meta = Meta.open(folder.meta)
        try:
            for group in (DB, CACHE):
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
        generations = (one for one in folder.databases.glob("*/*") if one.parent != folder.images)
        return any(list_segments(folder.log(group)) for group in (DB, CACHE)) or any(True for _ in generations)

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

    def leave_set(self, meta: Meta, group: int) -> None:
        """Another incarnation takes the place of one that recorded a set which never forms; with the group closed."""
        own = meta.incarnation(group)
        assert own is not None and meta.membership(group) is None, "who has formed stays what it is"
        self._put_aside(group)
        meta.begin_incarnation(group, next_life(own), renounced=meta.renounced(group))

    def _begin_anew(self, meta: Meta, group: int, damage: StorageError) -> None:
        """The log goes in any case: its promises are those of an incarnation that is over. It goes first: without it
        the old incarnation is known to be over (its newest segment is missing) if a crash comes in between."""
        log.error("%s: %s; this node comes back as a new member", GROUP_NAMES[group], damage.message)
        self._put_aside(group)
        if group == DB and isinstance(damage, SnapshotCorruption):
            self._aside.put(self._folder.databases)
        returns = meta.membership(group) is not None or meta.returns(group)  # who never acted may still found it
        meta.begin_incarnation(group, draw(), returns=returns)

    def _put_aside(self, group: int) -> None:
        folder = self._folder
        self._aside.put(folder.log(group) if folder.log_folder.is_dir() else folder.log_folder)
        if group == CACHE:  # its state says whose it is, and is small
            self._aside.put(folder.cache)


async def clear_aside(folder: DataFolder, joining: asyncio.Task[None], groups: Iterable[NodeGroup]) -> None:
    """What was moved away goes, once this node has all that is committed, as a majority confirms; else it stays."""
    aside = Aside(folder.path)
    if not aside.holds_anything:
        return
    await asyncio.wait([joining])
    try:
        for group in groups:
            await group.until_leader()
    except HiqliteError as error:
        log.warning("%s is kept: %s", aside.folder, error)
    else:
        await asyncio.to_thread(aside.clear)


def draw() -> int:
    """Number of a new incarnation."""
    return secrets.randbits(INCARNATION_BITS) | 1
