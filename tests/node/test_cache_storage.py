"""What the cache group of a node keeps, over crashes at its narrowest places."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hiqlite._accel.records import encode_record, seal_records
from hiqlite.cache import state_file
from hiqlite.cache.image import IncomingState, OutgoingState
from hiqlite.cache.state import CacheState
from hiqlite.config import NodeConfig
from hiqlite.engine.model import Identity, Membership
from hiqlite.logstore.folder import CACHE, DataFolder
from hiqlite.logstore.meta import Meta
from hiqlite.node_cache import CacheStorage

A_CENTURY_S = 100 * 366 * 86400


class Folder:
    """One node's data folder, opened and left again and again."""

    def __init__(self, path: Path, *, on_disk: bool) -> None:
        self.config = NodeConfig(data_dir=path, cache_storage_disk=on_disk, wal_size="1 MiB")
        self._folder = DataFolder(path)
        self.meta = Meta.open(self._folder.meta)

    async def open(self) -> CacheStorage:
        return await CacheStorage.open(self.config, self._folder, self.meta, asyncio.get_running_loop())

    def close(self) -> None:
        self.meta.close()
        self._folder.close()


async def received(state: CacheState) -> IncomingState:
    outgoing = OutgoingState.of(state, b"members")
    incoming = IncomingState(outgoing.offer())
    incoming.write(0, outgoing.read(0))
    return incoming


async def test_what_begins_behind_a_founder_of_the_future_is_never_used_again(tmp_path: Path) -> None:
    """The other founder's clock is a century ahead; this node ends before it applied anything."""
    folder = Folder(tmp_path, on_disk=False)
    storage = await folder.open()
    own = storage.identity
    other = Identity(2, own.incarnation + (A_CENTURY_S << 24))
    await storage.record((own, other), bytes(32))
    await storage.form((own, other))
    members = storage.membership()
    assert members is not None
    begun = (await storage.restored(members)).base_index
    assert begun == other.incarnation
    await storage.close()
    again = await folder.open()
    assert again.identity.incarnation > begun
    await again.close()
    folder.close()


async def test_an_image_of_the_future_is_never_used_again(tmp_path: Path) -> None:
    """Who joins takes over indexes that others began with; nothing was applied behind them yet."""
    folder = Folder(tmp_path, on_disk=False)
    storage = await folder.open()
    index = storage.identity.incarnation + (A_CENTURY_S << 24)
    image = await received(CacheState(index, 1, 0, b""))
    await storage.place(image, Membership(index, (storage.identity,)))
    assert folder.meta.token_mark(CACHE) > index
    await storage.close()
    folder.close()


async def test_a_state_that_is_kept_late_does_not_take_the_place_of_an_image(tmp_path: Path) -> None:
    """The log begins anew behind the image: a state from before it would never meet its log again."""
    folder = Folder(tmp_path, on_disk=True)
    storage = await folder.open()
    record = bytearray(encode_record(1, 8, b""))
    seal_records(record, 1, 1, 0, 0, 1)
    storage.cache.submit(1, 1, 1, [bytes(record)], False)
    await asyncio.sleep(0)
    image = await received(CacheState(500, 3, 9, b"list"))
    placing = asyncio.create_task(storage.place(image, Membership(400, (storage.identity,))))
    while not (tmp_path / "cache" / "state").exists():
        await asyncio.sleep(0)
    storage.cache.set_synced_index(1)  # the log's own news, while the image is on its way
    storage.cache.make_durable()
    placed = await placing
    await storage.open_placed(placed)
    assert storage.cache.durable_index == 500
    assert state_file.read(tmp_path / "cache" / "state", storage.identity).applied_index == 500
    await storage.close()
    folder.close()


async def test_who_forgets_the_group_does_not_come_back_to_it(tmp_path: Path) -> None:
    """A node lost its log and waited to be taken back; then the group is kept in memory, which nobody comes back to:
    on disk again it is a fresh node, that founds the group with the others."""
    folder = Folder(tmp_path, on_disk=True)
    folder.meta.begin_incarnation(CACHE, 7, returns=True)
    storage = await folder.open()
    assert storage.returns and storage.identity.incarnation == 7
    assert storage.lost == " in the cache group"
    (tmp_path / "aside" / "1-log-cache").mkdir(parents=True)
    assert storage.lost == f" in the cache group (see {tmp_path / 'aside'})"
    await storage.close()
    folder.close()
    for on_disk in (False, True):
        folder = Folder(tmp_path, on_disk=on_disk)
        storage = await folder.open()
        assert not storage.returns and not folder.meta.returns(CACHE)
        await storage.close()
        folder.close()


async def test_a_flag_that_memory_mode_left_behind_counts_no_more(tmp_path: Path) -> None:
    """An earlier release kept it there; and whoever forms a group has nothing to come back to."""
    folder = Folder(tmp_path, on_disk=True)
    folder.meta.begin_incarnation(CACHE, 7, in_memory=True, returns=True)
    storage = await folder.open()
    assert not storage.returns
    folder.meta.begin_incarnation(CACHE, 9, returns=True)
    await storage.record((Identity(1, 9),), bytes(32))
    assert not folder.meta.returns(CACHE)
    await storage.close()
    folder.close()
