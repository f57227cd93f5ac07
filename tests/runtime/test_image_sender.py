"""Images that are sent: made once for all who need one, kept while somebody may go on with one, and bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from hiqlite.clock import Clock
from hiqlite.errors import DiskFull, HiqliteError, Overloaded, PeerUnreachable, SnapshotCorruption
from hiqlite.runtime.snapshots import ImageSender

DEADLINE_S = 20.0


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0)


class Image:
    """An image of 10 chunks."""

    size_bytes, chunk_bytes = 100, 10

    def __init__(self, index: int) -> None:
        self.applied_index = index
        self.image_id = index.to_bytes(16, "big")

    def offer(self) -> bytes:
        return b"manifest"

    def read(self, offset: int) -> bytes:
        return bytes(10)


class Store:
    """Makes images, each one index further on; `gate` is what making waits for."""

    def __init__(self) -> None:
        self.made: list[Image] = []
        self.removed: list[Image] = []
        self.members: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: HiqliteError | None = None

    async def make(self, membership_at: Callable[[int], bytes]) -> Image:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        image = Image(100 + len(self.made))
        self.members.append(membership_at(image.applied_index))
        self.made.append(image)
        return image

    async def remove(self, image: Image) -> None:
        assert image in self.made and image not in self.removed
        self.removed.append(image)


class Links:
    """Offers that the test answers."""

    def __init__(self) -> None:
        self.offers: list[tuple[int, int, Image, Callable[[int], None], asyncio.Future[tuple[int, int]]]] = []

    async def offer_image(
        self, peer_id: int, term: int, image: Image, heard: Callable[[int], None]
    ) -> tuple[int, int]:
        answer: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self.offers.append((peer_id, term, image, heard, answer))
        return await answer

    def image(self, number: int) -> Image:
        return self.offers[number][2]

    def done(self, number: int) -> None:
        image = self.image(number)
        self.offers[number][4].set_result((image.applied_index, 1))

    def fail(self, number: int, error: HiqliteError) -> None:
        self.offers[number][4].set_exception(error)


class Engine:
    """Writes down what it is told; agrees to images from `base_index` on."""

    def __init__(self) -> None:
        self.base_index = 0
        self.applied_index = 90
        self.told: list[tuple[Any, ...]] = []

    def image_started(self, peer_id: int, index: int, now_ns: int) -> bool:
        if index < self.base_index:
            return False
        self.told.append(("started", peer_id, index))
        return True

    def image_progressed(self, peer_id: int, oldest_sent_ns: int) -> None:
        self.told.append(("progressed", peer_id, oldest_sent_ns > 0))

    def image_finished(self, peer_id: int, now_ns: int) -> None:
        self.told.append(("finished", peer_id))

    def image_failed(self, peer_id: int, resumable: bool, now_ns: int) -> None:
        self.told.append(("failed", peer_id, resumable))


class Bench:
    def __init__(self, kept_s: float = 60.0) -> None:
        self.store, self.links, self.engine = Store(), Links(), Engine()
        self.turns = 0
        self.sender = ImageSender(
            self.store, self.links, self.engine, membership_at=lambda index: b"members at %d" % index,
            changed=self._turn, clock=Clock(), loop=asyncio.get_running_loop(), kept_s=kept_s,
        )  # fmt: skip

    def _turn(self) -> None:
        self.turns += 1

    async def offered(self, count: int) -> None:
        await until(lambda: len(self.links.offers) == count)

    async def close(self) -> None:
        await self.sender.close()
        assert self.store.removed == self.store.made and self.sender.images == 0


async def test_an_image_is_made_sent_reported_and_removed() -> None:
    """The engine hears that it began, that the peer takes, that it stands there; nothing is left."""
    bench = Bench()
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    peer_id, term, image, heard, _ = bench.links.offers[0]
    assert (peer_id, term, image.applied_index) == (2, 7, 100)
    assert bench.store.members == [b"members at 100"]
    heard(0)
    heard(90)  # the last chunk: nothing is outstanding behind it
    bench.links.done(0)
    await until(lambda: bench.store.removed)
    assert bench.engine.told == [
        ("started", 2, 100), ("progressed", 2, True), ("progressed", 2, False), ("finished", 2),
    ]  # fmt: skip
    assert bench.turns == 1
    await bench.close()


async def test_all_that_need_an_image_share_it() -> None:
    """Asked for while it is made, and while it is on its way: one file, removed behind the last of them."""
    bench = Bench()
    bench.store.gate.clear()
    bench.sender.send(2, 0, 7)
    bench.sender.send(3, 0, 7)
    bench.sender.send(3, 0, 7)  # asked for twice: it is on its way already
    bench.store.gate.set()
    await bench.offered(2)
    bench.sender.send(4, 0, 7)
    await bench.offered(3)
    assert len(bench.store.made) == 1
    bench.links.done(0)
    bench.links.done(1)
    await until(lambda: len([told for told in bench.engine.told if told[0] == "finished"]) == 2)
    assert bench.store.removed == []
    bench.links.done(2)
    await until(lambda: bench.store.removed)
    await bench.close()


async def test_a_cut_line_keeps_the_image_for_the_next_try() -> None:
    """The very same file is offered again, so that the peer goes on from where it was."""
    bench = Bench()
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    bench.links.fail(0, PeerUnreachable("the line was cut"))
    await until(lambda: ("failed", 2, True) in bench.engine.told)
    assert bench.store.removed == []
    bench.sender.send(2, 100, 7)
    await bench.offered(2)
    assert bench.links.image(1) is bench.links.image(0)
    bench.links.done(1)
    await until(lambda: bench.store.removed)
    await bench.close()


async def test_an_image_that_nobody_comes_back_for_expires() -> None:
    """Its file does not stay for ever."""
    bench = Bench(kept_s=0.01)
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    bench.links.fail(0, PeerUnreachable("the line was cut"))
    await until(lambda: bench.store.removed)
    await bench.close()


async def test_an_image_that_is_older_than_the_log_is_replaced() -> None:
    """The engine has no use for it: a new one is made, and the old one goes unless somebody still takes it."""
    bench = Bench()
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    bench.engine.base_index = 101
    bench.sender.send(3, 0, 7)
    await bench.offered(2)
    assert bench.links.image(1).applied_index == 101 and bench.store.removed == []
    bench.links.done(0)
    bench.links.done(1)
    await until(lambda: len(bench.store.removed) == 2)
    await bench.sender.close()


async def test_two_images_at_most_exist() -> None:
    """A third need, while both are on their way, has to wait: nothing is started, and nothing grows."""
    bench = Bench()
    for peer_id, base in ((2, 0), (3, 101), (4, 102)):
        bench.engine.base_index = base
        bench.sender.send(peer_id, 0, 7)
        await until(lambda peer_id=peer_id: len(bench.links.offers) == min(peer_id - 1, 2))
    await until(lambda: ("failed", 4, False) in bench.engine.told)
    assert len(bench.store.made) == 2
    bench.links.done(0)
    await until(lambda: len(bench.store.removed) == 1)
    bench.sender.send(4, 0, 7)
    await bench.offered(3)
    assert bench.links.image(2).applied_index == 102
    await bench.close()


async def test_nobody_needs_it_any_more_once_it_is_made() -> None:
    """The peer was served otherwise, or this node leads no longer: the file goes, and nothing is sent."""
    bench = Bench()
    bench.engine.base_index = 1000
    bench.sender.send(2, 0, 7)
    await until(lambda: bench.store.removed)
    assert bench.links.offers == [] and bench.engine.told == []
    await bench.close()


async def test_an_image_that_the_peer_finds_damaged_is_not_offered_again() -> None:
    """The next try is another image."""
    bench = Bench()
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    bench.links.fail(0, SnapshotCorruption("the image is damaged"))
    await until(lambda: bench.store.removed)
    assert ("failed", 2, False) in bench.engine.told
    bench.sender.send(2, 100, 7)
    await bench.offered(2)
    assert bench.links.image(1) is not bench.links.image(0)
    await bench.close()


async def test_a_peer_that_stands_below_the_image_has_not_got_it() -> None:
    """Whatever it says: it is a failure, not an end."""
    bench = Bench()
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    bench.links.offers[0][4].set_result((99, 1))
    await until(lambda: ("failed", 2, False) in bench.engine.told)
    assert not any(told[0] == "finished" for told in bench.engine.told)
    await bench.close()


async def test_a_disk_without_room_for_an_image_fails_the_request() -> None:
    """It is reported, and tried again when it is asked for again."""
    bench = Bench()
    bench.store.failure = DiskFull("no space for an image")
    bench.sender.send(2, 0, 7)
    await until(lambda: bench.engine.told == [("failed", 2, False)])
    bench.store.failure = None
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    await bench.close()


async def test_a_busy_peer_is_asked_again_with_the_same_image() -> None:
    bench = Bench()
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    bench.links.fail(0, Overloaded("another image is being received"))
    await until(lambda: ("failed", 2, True) in bench.engine.told)
    assert bench.store.removed == []
    await bench.close()


async def test_who_leads_no_longer_sends_no_longer() -> None:
    """Stopped at any point: nothing is reported, and the files go."""
    bench = Bench()
    bench.sender.send(2, 0, 7)
    await bench.offered(1)
    bench.sender.stop()
    await until(lambda: bench.store.removed)
    assert bench.links.offers[0][4].cancelled() and bench.engine.told == [("started", 2, 100)]
    bench.store.gate.clear()
    bench.sender.send(2, 0, 8)
    await asyncio.sleep(0)
    bench.sender.stop(2)
    bench.store.gate.set()
    await until(lambda: len(bench.store.made) == 2)
    assert len(bench.links.offers) == 1
    await bench.close()


async def test_the_log_is_pinned_from_the_beginning_of_an_image_on() -> None:
    """While it is made, and as long as it is kept: else no image would be of use under steady load."""
    bench = Bench()
    assert bench.sender.pinned_index == -1
    bench.store.gate.clear()
    bench.sender.send(2, 0, 5)
    await until(lambda: bench.sender.pinned_index == 90)
    bench.engine.applied_index = 95
    assert bench.sender.pinned_index == 90
    bench.store.gate.set()
    await until(lambda: bench.links.offers)
    assert bench.sender.pinned_index == 100
    bench.links.done(0)
    await until(lambda: bench.sender.pinned_index == -1)
    await bench.sender.close()


async def test_whatever_goes_wrong_the_engine_is_told() -> None:
    """Else it would wait for an image that is not on its way."""
    bench = Bench()
    bench.store.failure = RuntimeError("a fault of our own")  # type: ignore[assignment]  # what nobody thought of
    bench.sender.send(2, 0, 5)
    await until(lambda: bench.engine.told)
    assert bench.engine.told == [("failed", 2, False)]
    await bench.sender.close()
