"""An image that is received: one at a time, given up for a newer leader, installed once it is whole, never half."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from hiqlite.errors import LeadershipLost, NotLeader, Overloaded, ShuttingDown, SnapshotCorruption, StorageError
from hiqlite.runtime.receiving import ImageReceiver, Reception

DEADLINE_S = 20.0


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0)


class File:
    """An image of three chunks in memory; its manifest is its index as text."""

    size_bytes, chunk_bytes, applied_term, membership = 30, 10, 4, b"members"

    def __init__(self, index: int) -> None:
        self.applied_index = index
        self.offset = 0
        self.closed = False

    def write(self, offset: int, data: bytes) -> None:
        assert not self.closed and offset == self.offset
        self.offset += len(data)

    def close(self) -> None:
        self.closed = True


class Store:
    def __init__(self) -> None:
        self.files: list[File] = []
        self.checking = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.corrupt = False

    async def begin(self, manifest: bytes, stop: threading.Event) -> File:
        if not manifest.isdigit():
            raise SnapshotCorruption("no manifest")
        assert all(file.closed for file in self.files), "two receptions at once"
        self.files.append(File(int(manifest)))
        return self.files[-1]

    async def finish(self, image: File, stop: threading.Event) -> None:
        assert image.offset == image.size_bytes and not image.closed
        self.checking.set()
        while not self.gate.is_set():
            if stop.is_set():
                raise ShuttingDown("given up")
            await asyncio.sleep(0)
        if self.corrupt:
            raise SnapshotCorruption("damaged")


class Installer:
    def __init__(self) -> None:
        self.term = 5
        self.index = 10
        self.installed: list[int] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: StorageError | None = None

    def check_sender(self, peer_id: int, term: int) -> None:
        if term < self.term:
            raise NotLeader("an older term")

    def standing(self, image: File) -> tuple[int, int] | None:
        return (self.index, 4) if image.applied_index <= self.index else None

    async def install(self, image: File) -> tuple[int, int]:
        assert not image.closed
        self.begun.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.index = image.applied_index
        self.installed.append(self.index)
        return self.index, image.applied_term


class Bench:
    def __init__(self) -> None:
        self.store, self.installer = Store(), Installer()
        self.receiver = ImageReceiver(self.store, self.installer)

    async def offered(self, index: int, *, peer_id: int = 1, term: int = 5) -> Reception:
        return await self.receiver.offered(peer_id, term, b"%d" % index)


def fill(reception: Reception) -> None:
    while reception.offset < reception.size_bytes:
        reception.write(reception.offset, bytes(reception.chunk_bytes))


async def test_a_complete_image_is_checked_and_installed() -> None:
    """Then this node says where it stands, and the file is let go."""
    bench = Bench()
    reception = await bench.offered(50)
    fill(reception)
    assert await reception.finish() == (50, 4)
    reception.close()
    await until(lambda: bench.store.files[0].closed)
    assert bench.installer.installed == [50]
    await bench.receiver.close()


async def test_an_image_that_is_not_needed_is_not_transferred() -> None:
    """This node is further on: it asks for nothing and says where it stands."""
    bench = Bench()
    reception = await bench.offered(10)
    assert reception.size_bytes == reception.offset == 0
    assert await reception.finish() == (10, 4)
    reception.close()
    assert bench.installer.installed == [] and bench.store.files[0].closed


async def test_an_old_leader_is_turned_away() -> None:
    """Before any file is touched; and a manifest that is none leaves room for the next offer."""
    bench = Bench()
    with pytest.raises(NotLeader):
        await bench.offered(50, term=4)
    with pytest.raises(SnapshotCorruption):
        await bench.receiver.offered(1, 5, b"no manifest")
    reception = await bench.offered(50)
    reception.close()
    assert len(bench.store.files) == 1


async def test_a_newer_leader_takes_the_place_of_an_older_one() -> None:
    """The older reception is woken and told; the newer begins once its file is let go. Not the other way round."""
    bench = Bench()
    first = await bench.offered(50, peer_id=1, term=5)
    woken = asyncio.Event()
    first.watch(woken.set)
    with pytest.raises(Overloaded):
        await bench.offered(60, peer_id=3, term=5)
    second = asyncio.ensure_future(bench.offered(60, peer_id=3, term=6))
    await woken.wait()
    with pytest.raises(LeadershipLost):
        first.check()
    with pytest.raises(LeadershipLost):
        first.write(0, bytes(10))
    assert not second.done()
    first.close()
    reception = await second
    fill(reception)
    assert await reception.finish() == (60, 4)
    reception.close()


async def test_the_same_leader_may_offer_again() -> None:
    """Its line was cut and this side has not noticed: the reception before it ends first."""
    bench = Bench()
    first = await bench.offered(50)
    second = asyncio.ensure_future(bench.offered(50))
    await until(lambda: first._reason is not None)
    first.close()
    (await second).close()
    assert len(bench.store.files) == 2


async def test_a_reception_ends_when_another_node_leads() -> None:
    """Not for a leader that is unknown, nor for the very node that sends."""
    bench = Bench()
    reception = await bench.offered(50)
    bench.receiver.leader_changed(0, 6)
    bench.receiver.leader_changed(1, 6)
    reception.check()
    bench.receiver.leader_changed(3, 7)
    with pytest.raises(LeadershipLost):
        reception.check()
    reception.close()


async def test_a_check_that_takes_long_is_given_up() -> None:
    """The reason is what the sender hears, not that of the thread that was stopped."""
    bench = Bench()
    bench.store.gate.clear()
    reception = await bench.offered(50)
    fill(reception)
    finishing = asyncio.ensure_future(reception.finish())
    await bench.store.checking.wait()
    bench.receiver.leader_changed(3, 7)
    with pytest.raises(LeadershipLost):
        await finishing
    reception.close()
    assert bench.installer.installed == []


async def test_a_damaged_image_is_not_installed() -> None:
    bench = Bench()
    bench.store.corrupt = True
    reception = await bench.offered(50)
    fill(reception)
    with pytest.raises(SnapshotCorruption):
        await reception.finish()
    reception.close()
    assert bench.installer.installed == []


async def test_an_install_that_has_begun_is_brought_to_its_end() -> None:
    """The sender's line is cut, or this node stops, in its middle: both wait for it, and its file stays till then."""
    bench = Bench()
    bench.installer.gate.clear()
    reception = await bench.offered(50)
    fill(reception)
    finishing = asyncio.ensure_future(reception.finish())
    await bench.installer.begun.wait()
    finishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finishing
    reception.close()
    closing = asyncio.ensure_future(bench.receiver.close())
    next_offer = asyncio.ensure_future(bench.offered(60))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done() and not next_offer.done() and not bench.store.files[0].closed
    bench.installer.gate.set()
    await closing
    assert bench.installer.installed == [50] and bench.store.files[0].closed
    with pytest.raises(ShuttingDown):
        await next_offer


async def test_an_install_that_fails_is_told() -> None:
    bench = Bench()
    bench.installer.failure = StorageError("the disk failed")
    reception = await bench.offered(50)
    fill(reception)
    with pytest.raises(StorageError, match="the disk failed"):
        await reception.finish()
    reception.close()
    await bench.receiver.close()


async def test_what_has_ended_keeps_nobody_out() -> None:
    """Whatever term it was offered in."""
    bench = Bench()
    one = await bench.offered(20, peer_id=3, term=1 << 62)
    one.close()
    two = await bench.offered(21, peer_id=2, term=9)
    fill(two)
    assert await two.finish() == (21, 4)
    two.close()


async def test_an_offer_that_waited_until_its_sender_led_no_longer_is_turned_away() -> None:
    """It stood behind another one; the offer of whoever leads now would wait for the whole of it."""
    bench = Bench()
    first = await bench.offered(50, peer_id=1, term=5)
    late = asyncio.ensure_future(bench.offered(60, peer_id=1, term=5))
    await until(lambda: first._reason is not None)
    bench.installer.term = 6
    bench.receiver.leader_changed(3, 6)
    first.close()
    with pytest.raises(NotLeader):
        await late
    newer = await bench.offered(70, peer_id=3, term=6)
    newer.close()
    assert [file.applied_index for file in bench.store.files] == [50, 70]
