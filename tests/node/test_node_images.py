"""A node's database is replaced by an image: durable before it is named, the old one gone only afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

import hiqlite
from hiqlite.errors import SnapshotCorruption, UsageError
from hiqlite.logstore.folder import DB
from hiqlite.node_database import DatabaseStorage
from hiqlite.node_images import NodeImages
from hiqlite.statemachine import trust
from hiqlite.statemachine.image_files import IncomingImage, OutgoingImage
from tests.node.storage_opener import storage_of

GO_ON = threading.Event()  # never set


async def filled(folder: Path, rows: int) -> str:
    """A node that lived and left this data; the content hash of its database."""
    async with hiqlite.open(folder, wal_size="1 MiB") as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        for first in range(0, rows, 10):  # so that more rows are more entries
            await db.execute_many("INSERT INTO t VALUES (?, 'x')", [(first + n,) for n in range(min(10, rows - first))])
        return await db.content_hash()


async def forked(folder: Path) -> None:
    """`leader` and `behind` of one cluster, as if they had parted after it formed."""
    async with hiqlite.open(folder / "leader", wal_size="1 MiB"):
        pass
    shutil.copytree(folder / "leader", folder / "behind")


async def received(outgoing: OutgoingImage, storage: DatabaseStorage) -> IncomingImage:
    incoming = storage.images.begin(outgoing.offer(), GO_ON)
    while not incoming.complete:
        incoming.write(incoming.offset, outgoing.read(incoming.offset))
    incoming.finish(GO_ON)
    return incoming


def generations(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "db").iterdir() if path.name != "images")


async def test_an_installed_image_is_the_database_also_after_a_restart(tmp_path: Path):
    """Content, index and term are the image's; one generation is left, and no file of the transfer."""
    await forked(tmp_path)
    wanted = await filled(tmp_path / "leader", 500)
    await filled(tmp_path / "behind", 3)
    async with storage_of(tmp_path / "leader") as leader, storage_of(tmp_path / "behind") as behind:
        before = generations(tmp_path / "behind")
        outgoing = leader.images.make(leader.database, GO_ON)
        await behind.switch_to(await received(outgoing, behind))
        position = (behind.writer.applied_index, behind.writer.applied_term)
        assert position == (outgoing.applied_index, outgoing.applied_term)
        assert behind.writer.equality_hash == leader.writer.equality_hash
        assert await behind.content_hash() == wanted
        assert await behind.reader.query("SELECT count(*) FROM t") == [(500,)]
        after = generations(tmp_path / "behind")
        assert len(after) == 1 and after != before
        assert trust.mark_path(behind.database).exists()  # its checkpoints are marked from the first one on
        assert list((tmp_path / "behind" / "db" / "images").iterdir()) == []
        outgoing.remove()
    async with storage_of(tmp_path / "behind") as again:
        assert (again.writer.applied_index, again.writer.applied_term) == position
        assert again.recovered.last_index == again.recovered.base_index == position[0]
        assert await again.content_hash() == wanted
    assert generations(tmp_path / "behind") == after


async def test_an_entry_of_the_log_that_never_was_committed_goes_with_the_database_that_lacked_it(tmp_path: Path):
    """A crash between the switch and the log's cut: where the image stands the log holds an entry of another term."""
    await forked(tmp_path)
    await filled(tmp_path / "leader", 50)
    async with hiqlite.open(tmp_path / "leader", wal_size="1 MiB") as db:  # one more term
        await db.execute("DELETE FROM t WHERE id = 7")
    async with hiqlite.open(tmp_path / "behind", wal_size="1 MiB") as db:
        for number in range(20):
            await db.execute(f"CREATE TABLE other{number} (a)")
    async with storage_of(tmp_path / "leader") as leader, storage_of(tmp_path / "behind") as behind:
        outgoing = leader.images.make(leader.database, GO_ON)
        assert outgoing.applied_index < behind.recovered.last_index
        await behind.switch_to(await received(outgoing, behind))
        wanted = await leader.content_hash()
    async with storage_of(tmp_path / "behind") as again:
        found = again.recovered
        assert (found.base_index, found.base_term, found.runs) == (outgoing.applied_index, outgoing.applied_term, ())
        assert await again.content_hash() == wanted


async def test_a_log_that_holds_the_images_entry_is_kept(tmp_path: Path):
    """The same history further on: nothing is cut, and the node goes on from its own log."""
    await filled(tmp_path / "data", 5)
    async with storage_of(tmp_path / "data") as storage:
        outgoing = storage.images.make(storage.database, GO_ON)
        kept = (tmp_path / "image").write_bytes(outgoing.path.read_bytes()), outgoing.manifest
    async with hiqlite.open(tmp_path / "data", wal_size="1 MiB") as db:
        await db.execute("INSERT INTO t VALUES (1000, 'later')")
        wanted = await db.content_hash()
    async with storage_of(tmp_path / "data") as storage:
        incoming = storage.images.begin(kept[1].encode(), GO_ON)
        data = (tmp_path / "image").read_bytes()
        while not incoming.complete:
            size = incoming.manifest.chunk_size(incoming.offset)
            incoming.write(incoming.offset, data[incoming.offset : incoming.offset + size])
        incoming.finish(GO_ON)
        await storage.switch_to(incoming)
        assert storage.writer.applied_index == kept[1].applied_index
    async with hiqlite.open(tmp_path / "data", wal_size="1 MiB") as db:
        assert await db.query_value("SELECT count(*) FROM t", consistency="linearizable") == 6
        assert await db.content_hash() == wanted


async def test_leftovers_of_a_crash_go_with_the_next_start(tmp_path: Path):
    """A folder that was never named, one that was not removed yet, images: all but the named generation."""
    await filled(tmp_path / "data", 5)
    (current,) = generations(tmp_path / "data")
    for name in ("0123456789abcdef", "fedcba9876543210"):
        (tmp_path / "data" / "db" / name).mkdir()
        (tmp_path / "data" / "db" / name / "hiqlite.db").write_bytes(b"anything")
    (tmp_path / "data" / "db" / "images" / "out-1.db").write_bytes(b"anything")
    async with storage_of(tmp_path / "data") as storage:
        assert await storage.reader.query("SELECT count(*) FROM t") == [(5,)]
        assert generations(tmp_path / "data") == [current]
        assert list((tmp_path / "data" / "db" / "images").iterdir()) == []


async def test_a_refused_image_leaves_the_database_as_it_is(tmp_path: Path):
    """Garbled on its way: it is found before anything was switched."""
    wanted = await filled(tmp_path / "behind", 3)
    await filled(tmp_path / "leader", 500)
    async with storage_of(tmp_path / "leader") as leader, storage_of(tmp_path / "behind") as behind:
        outgoing = leader.images.make(leader.database, GO_ON)
        incoming = behind.images.begin(outgoing.offer(), GO_ON)
        incoming.write(0, outgoing.read(0))
        if not incoming.complete:
            incoming.write(incoming.offset, outgoing.read(incoming.offset))
        with incoming.path.open("r+b") as file:
            file.seek(9000)
            file.write(b"garbled")
        with pytest.raises(SnapshotCorruption):
            incoming.finish(GO_ON)
        assert await behind.content_hash() == wanted


async def test_the_new_file_is_protected_and_the_old_one_is_not(tmp_path: Path):
    """The standard library's sqlite3 is kept away from the database in use."""
    import sqlite3

    await filled(tmp_path / "leader", 5)
    async with storage_of(tmp_path / "leader") as leader, storage_of(tmp_path / "behind") as behind:
        await behind.switch_to(await received(leader.images.make(leader.database, GO_ON), behind))
        (folder,) = generations(tmp_path / "behind")
        with pytest.raises(UsageError):
            sqlite3.connect(folder / "hiqlite.db")
        assert behind.meta.generation(DB) == folder.name


async def test_a_rest_that_cannot_be_removed_does_not_undo_an_install(tmp_path: Path):
    """The metadata name the image by then: the node goes over to it."""
    wanted = await filled(tmp_path / "leader", 50)
    async with storage_of(tmp_path / "leader") as leader, storage_of(tmp_path / "behind") as behind:
        image = await received(leader.images.make(leader.database, GO_ON), behind)
        manifest = image.path.with_suffix(".manifest")
        manifest.unlink()
        manifest.mkdir()  # what unlink refuses
        await behind.switch_to(image)
        assert behind.meta.generation(0) == behind.database.parent.name
        assert await behind.content_hash() == wanted
        manifest.rmdir()


async def test_a_generation_that_cannot_be_removed_stops_no_node(tmp_path: Path):
    """It is garbage: an install goes over it, and so does every start."""
    wanted = await filled(tmp_path / "leader", 50)
    async with storage_of(tmp_path / "leader") as leader, storage_of(tmp_path / "behind") as behind:
        refusing = behind.generations.folder / ("0" * 16)
        refusing.symlink_to(tmp_path)  # what rmtree refuses
        await behind.switch_to(await received(leader.images.make(leader.database, GO_ON), behind))
        assert await behind.content_hash() == wanted
    async with storage_of(tmp_path / "behind") as again:
        assert await again.content_hash() == wanted
        refusing.unlink()


async def test_an_image_that_nobody_waits_for_any_more_leaves_no_file_behind(tmp_path: Path):
    """Whoever asked may give up in the moment in which it was done."""
    await filled(tmp_path / "node", 3)
    async with storage_of(tmp_path / "node") as storage:
        images = NodeImages(storage)
        making = asyncio.create_task(images.make(lambda index: b""))
        await asyncio.sleep(0)
        images._making.submit(int).result()  # it is done, and the loop has not heard of it
        assert (tmp_path / "node" / "db" / "images" / "out-1.db").exists()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert list((tmp_path / "node" / "db" / "images").glob("out-*")) == []
        images.close_images()


async def test_an_offer_that_nobody_waits_for_any_more_holds_no_file_open(tmp_path: Path):
    """Its part stays for the next offer, the descriptor does not."""
    await filled(tmp_path / "node", 3)
    async with storage_of(tmp_path / "node") as storage:
        outgoing, images = storage.images.make(storage.database, GO_ON), NodeImages(storage)
        before = len(os.listdir("/proc/self/fd"))
        beginning = asyncio.create_task(images.begin(outgoing.offer(), threading.Event()))
        await asyncio.sleep(0)
        images._receiving.submit(int).result()  # it is done, and the loop has not heard of it
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert len(os.listdir("/proc/self/fd")) == before
        images.close_images()
