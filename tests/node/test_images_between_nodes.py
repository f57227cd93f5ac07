"""Everything between one node's database and another's: an image made while writes go on, over real TCP, cut, resumed
and installed; the log behind it is applied on top, and both are the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import hiqlite
from hiqlite.clock import Clock
from hiqlite.config import NodeConfig
from hiqlite.node_images import NodeImages
from hiqlite.node_storage import Storage
from hiqlite.runtime.receiving import ImageReceiver
from hiqlite.runtime.snapshots import ImageSender
from hiqlite.statemachine.image_files import IncomingImage
from hiqlite.transport.network import Network
from hiqlite.transport.session import LinkKind
from tests.waiting import until

SECRET = "a secret of the raft port"
DEADLINE_S = 60.0
TERM = 1


class Behind:
    """A node's rooms without an engine: it takes images from node 1, as an installer it knows its own database only."""

    def __init__(self, storage: Storage, network: Network) -> None:
        self.storage, self.network = storage, network
        self.images = NodeImages(storage.db)
        self.receiver = ImageReceiver(self.images, self)
        network.bulk.on_offer = self._offered
        self.membership = b""

    async def _offered(self, peer_id: int, group: int, term: int, image_id: bytes, manifest: bytes) -> Any:
        return await self.receiver.offered(peer_id, term, manifest)

    def check_sender(self, peer_id: int, term: int) -> None:
        assert (peer_id, term) == (1, TERM)

    def standing(self, image: IncomingImage) -> tuple[int, int] | None:
        writer = self.storage.db.writer
        return (writer.applied_index, writer.applied_term) if image.applied_index <= writer.applied_index else None

    async def install(self, image: IncomingImage) -> tuple[int, int]:
        await self.storage.db.switch_to(image)
        self.membership = image.membership
        return self.storage.db.writer.applied_index, self.storage.db.writer.applied_term

    @property
    def received_bytes(self) -> int:
        now = self.receiver._now
        return now.offset if now is not None and now._image is not None else 0

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path):
        async with AsyncExitStack() as stack:
            config = NodeConfig.from_mapping({"data_dir": str(folder), "node_id": 2, "wal_size": "1 MiB"})
            storage = await Storage.open(config, asyncio.get_running_loop())
            stack.push_async_callback(storage.close)
            network = Network(2, addresses={}, listen=("127.0.0.1", 0), secret=SECRET)
            network.set_peer(1, [("127.0.0.1", 1)])
            behind = cls(storage, network)
            stack.callback(behind.images.close_images)
            stack.push_async_callback(behind.receiver.close)
            await network.start()
            stack.push_async_callback(network.close)
            yield behind

    async def catch_up(self, leader: Storage) -> None:
        """Applies what the leader's log holds behind the image."""
        writer = self.storage.db.writer
        while writer.applied_index < leader.db.writer.applied_index:
            first = writer.applied_index + 1
            last, records = await leader.db.log.read(first, 1 << 20)
            last = min(last, leader.db.writer.applied_index)
            writer.submit(first, last, TERM, [records], False)
            await until(lambda last=last: writer.applied_index >= last)


class Reports:
    """What the sender tells the engine."""

    applied_index = 0

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def image_started(self, peer_id: int, index: int, now_ns: int) -> bool:
        self.told.append(("started", index))
        return True

    def image_progressed(self, peer_id: int, oldest_sent_ns: int) -> None: ...

    def image_finished(self, peer_id: int, now_ns: int) -> None:
        self.told.append(("finished",))

    def image_failed(self, peer_id: int, resumable: bool, now_ns: int) -> None:
        self.told.append(("failed", resumable))


class Links:
    def __init__(self, network: Network) -> None:
        self._network = network

    async def offer_image(self, peer_id: int, term: int, image: Any, heard: Callable[[int], None]) -> tuple[int, int]:
        return await self._network.offer_image(peer_id, 0, term, image, heard)


class Leader:
    """A running node with an image sender and a network beside it."""

    def __init__(self, db: Any, network: Network) -> None:
        self.db, self.network = db, network
        self.storage: Storage = db._services.node.storage
        self.images = NodeImages(self.storage.db)
        self.reports = Reports()
        self.sender = ImageSender(
            self.images, Links(network), self.reports, membership_at=lambda index: b"members at %d" % index,
            changed=lambda: None, clock=Clock(), loop=asyncio.get_running_loop(),
        )  # fmt: skip
        self.rows = 0
        self._writing: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, rows: int):
        async with AsyncExitStack() as stack:
            db = await stack.enter_async_context(hiqlite.open(folder, wal_size="4 MiB"))
            await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
            network = Network(1, addresses={}, listen=None, secret=SECRET)
            leader = cls(db, network)
            await leader.write(rows)
            stack.callback(leader.images.close_images)
            await network.start()
            stack.push_async_callback(network.close)
            stack.push_async_callback(leader.sender.close)
            stack.push_async_callback(leader.rest)
            yield leader

    async def write(self, rows: int) -> None:
        end = self.rows + rows
        while self.rows < end:
            numbers = range(self.rows, min(end, self.rows + 500))
            some = [(number, f"{number * 7919 % 10007:0>400}") for number in numbers]
            await self.db.execute_many("INSERT INTO t VALUES (?, ?)", some)
            self.rows += len(some)

    def go_on_writing(self) -> None:
        async def write() -> None:
            while True:
                await self.write(1)

        self._writing = asyncio.ensure_future(write())

    async def rest(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None

    async def told(self, count: int) -> None:
        await until(lambda: len(self.reports.told) >= count)


async def check_same(leader: Leader, behind: Behind) -> None:
    await leader.rest()
    await leader.db.execute("INSERT INTO t VALUES (-1, 'the last one')")
    await behind.catch_up(leader.storage)
    assert behind.storage.db.writer.equality_hash == leader.storage.db.writer.equality_hash
    assert await behind.storage.db.content_hash() == await leader.db.content_hash()
    assert list((leader.storage.db.images.folder).iterdir()) == []
    assert list((behind.storage.db.images.folder).iterdir()) == []


async def test_an_image_goes_over_and_the_log_goes_on_behind_it(tmp_path: Path) -> None:
    """Writes never pause; the membership goes along; nothing is left of the transfer on either side."""
    async with Leader.open(tmp_path / "leader", 10_000) as leader, Behind.open(tmp_path / "behind") as behind:
        leader.network.set_peer(2, [("127.0.0.1", behind.network.listen_port)])
        leader.go_on_writing()
        before = leader.rows
        leader.sender.send(2, 0, TERM)
        await leader.told(2)
        index = leader.reports.told[0][1]
        assert leader.reports.told == [("started", index), ("finished",)]
        assert leader.rows > before and leader.storage.db.writer.applied_index > index
        assert behind.storage.db.writer.applied_index == index and behind.membership == b"members at %d" % index
        await until(lambda: leader.sender.images == 0 and not list(leader.storage.db.images.folder.iterdir()))
        await check_same(leader, behind)


async def test_a_line_that_is_cut_in_the_middle_is_taken_up_again(tmp_path: Path) -> None:
    """Again and again: each try goes on where the one before it ended, with the same image."""
    async with Leader.open(tmp_path / "leader", 40_000) as leader, Behind.open(tmp_path / "behind") as behind:
        leader.network.set_peer(2, [("127.0.0.1", behind.network.listen_port)])
        leader.go_on_writing()
        resumed = 0
        for part in (1, 2, 3):
            leader.sender.send(2, resumed, TERM)
            await leader.told(2 * part - 1)
            await until(lambda part=part: behind.received_bytes > part * (2 << 20))
            link = next(link for link in behind.network._links if link.kind is LinkKind.BULK)
            link.transport.abort()
            await leader.told(2 * part)
            resumed = leader.reports.told[0][1]
            assert leader.reports.told[-2:] == [("started", resumed), ("failed", True)]
        leader.sender.send(2, resumed, TERM)
        await leader.told(8)
        assert leader.reports.told[-2:] == [("started", resumed), ("finished",)]
        assert behind.storage.db.writer.applied_index == resumed
        await until(lambda: leader.sender.images == 0 and not list(leader.storage.db.images.folder.iterdir()))
        await check_same(leader, behind)


async def test_a_receiver_that_restarts_goes_on_with_what_it_has(tmp_path: Path) -> None:
    """Its process ends in the middle: the next life offers its file's whole chunks, and gets the rest only."""
    async with Leader.open(tmp_path / "leader", 40_000) as leader:
        async with Behind.open(tmp_path / "behind") as behind:
            leader.network.set_peer(2, [("127.0.0.1", behind.network.listen_port)])
            leader.sender.send(2, 0, TERM)
            await until(lambda: behind.received_bytes > 4 << 20)
            await behind.network.close()
        await leader.told(2)
        index = leader.reports.told[0][1]
        async with Behind.open(tmp_path / "behind") as behind:
            leader.network.set_peer(2, [("127.0.0.1", behind.network.listen_port)])
            bytes_before = sum(path.stat().st_size for path in behind.storage.db.images.folder.glob("*.db"))
            assert bytes_before >= 4 << 20
            leader.sender.send(2, index, TERM)
            await leader.told(4)
            assert leader.reports.told[2:] == [("started", index), ("finished",)]
            assert behind.storage.db.writer.applied_index == index
            await until(lambda: leader.sender.images == 0 and not list(leader.storage.db.images.folder.iterdir()))
            await check_same(leader, behind)


async def test_a_node_that_needs_no_image_says_so_and_is_sent_none(tmp_path: Path) -> None:
    async with Leader.open(tmp_path / "leader", 2_000) as leader, Behind.open(tmp_path / "behind") as behind:
        leader.network.set_peer(2, [("127.0.0.1", behind.network.listen_port)])
        await behind.catch_up(leader.storage)
        leader.sender.send(2, 0, TERM)
        await leader.told(2)
        assert leader.reports.told[-1] == ("finished",) and behind.membership == b""


async def test_a_sender_whose_peer_is_not_there_fails_and_keeps_its_image(tmp_path: Path) -> None:
    """The image is made by then; it waits for the next try, and goes with the node."""
    async with Leader.open(tmp_path / "leader", 2_000) as leader:
        leader.sender.send(2, 0, TERM)
        await leader.told(2)
        assert leader.reports.told[-1] == ("failed", True) and leader.sender.images == 1
    assert list((tmp_path / "leader" / "db" / "images").iterdir()) == []


async def test_an_image_that_is_being_made_is_given_up_with_the_node(tmp_path: Path) -> None:
    """Closed at once: no thread, no file is left."""
    async with Leader.open(tmp_path / "leader", 20_000) as leader:
        leader.sender.send(2, 0, TERM)
        await asyncio.sleep(0)
    assert list((tmp_path / "leader" / "db" / "images").iterdir()) == []
    assert not [one for one in threading.enumerate() if one.name.startswith("hiqlite-image")]
