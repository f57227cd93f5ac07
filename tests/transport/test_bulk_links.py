"""Images over real bulk links, on both loops: bounded, resumed, refused, and never in the way of anything else."""

from __future__ import annotations

import asyncio
import threading

import pytest
from conftest import Node, Run, joined, quick, until

from hiqlite.engine.model import Identity, ProbeRequest
from hiqlite.errors import HiqliteError, PeerUnreachable, SnapshotCorruption, StorageError, UsageError
from hiqlite.transport.session import LinkKind
from tests.transport.bulk_images import CHUNK, IMAGE_ID, MANIFEST, Receiver, Sink, Source, noise


@pytest.mark.parametrize(
    "data",
    [noise(10 * CHUNK + 17), b"a page of text " * 100_000, b"x", noise(CHUNK)],
    ids=["noise", "text", "one", "chunk"],
)
def test_an_image_arrives_byte_for_byte(run: Run, data: bytes) -> None:
    """What compresses and what does not, of any length; the offerer hears where the other stands."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            sink, source = Sink(len(data)), Source(data)
            receiver = Receiver(two, sink)
            heard: list[int] = []
            assert await one.network.offer_image(2, 1, 9, source, heard.append) == (77, 5)
            assert receiver.offers == [(1, 1, 9, IMAGE_ID, MANIFEST)]
            assert bytes(sink.data) == data and sink.finished and sink.closed == 1
            assert heard == source.reads == list(range(0, len(data), CHUNK))

    run(work())


def test_text_travels_compressed(run: Run) -> None:
    """Fewer bytes leave than the image has."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = b"a page of text " * 100_000
            Receiver(two, Sink(len(data)))
            await one.network.offer_image(2, 0, 1, Source(data))
            assert one.network.metrics()["peers"][2]["links"]["bulk_out"]["bytes_out"] < len(data) // 10

    run(work())


def test_images_go_both_ways_at_once(run: Run) -> None:
    """Each node dials a bulk link of its own for what it offers."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(20 * CHUNK)
            there, back = Sink(len(data)), Sink(len(data))
            Receiver(two, there)
            Receiver(one, back)
            await asyncio.gather(
                one.network.offer_image(2, 0, 1, Source(data)), two.network.offer_image(1, 0, 1, Source(data))
            )
            assert there.data == back.data == data

    run(work())


def test_a_slow_disk_bounds_what_is_under_way_and_delays_nothing_else(run: Run) -> None:
    """Not more than the window is read at the one end and held at the other; control messages go on meanwhile."""

    async def work() -> None:
        settings = quick(bulk_window_bytes=4 * CHUNK)
        one, two = Node(1, settings=settings), Node(2, settings=settings)
        async with joined(one, two):
            data = noise(60 * CHUNK)
            sink, source = Sink(len(data)), Source(data)
            Receiver(two, sink)
            sink.gate.clear()
            sending = asyncio.ensure_future(one.network.offer_image(2, 0, 1, source))
            await until(lambda: len(source.reads) == 4)
            for number in range(200):
                assert one.network.send(2, 0, ProbeRequest(1, Identity(1, 1), number))
                await until(lambda count=number + 1: len(two.messages) == count)
            assert len(source.reads) == 4 and not sending.done()
            sink.gate.set()
            await sending
            assert sink.data == data

    run(work())


def test_a_cut_line_costs_the_window_only(run: Run) -> None:
    """The offer fails as unreachable; offered again, it goes on from where the receiver is."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(100 * CHUNK)
            first, source = Sink(len(data)), Source(data)
            receiver = Receiver(two, first)
            sending = asyncio.ensure_future(one.network.offer_image(2, 0, 1, source))
            await until(lambda: len(first.data) >= 30 * CHUNK)
            link = next(link for link in two.network._links if link.kind is LinkKind.BULK)
            link.transport.abort()
            with pytest.raises(PeerUnreachable):
                await sending
            await until(lambda: first.closed == 1)
            assert not first.finished and one.network.connected(2)
            again, rest = Sink(len(data), received=bytes(first.data)), Source(data)
            receiver.sinks.append(again)
            assert await one.network.offer_image(2, 0, 1, rest) == (77, 5)
            assert again.data == data and rest.reads[0] == len(first.data)
            assert [event for event in one.events + two.events if event[0] == "lost"] == []

    run(work())


def test_an_offer_that_is_taken_back_ends_at_both_ends(run: Run) -> None:
    """Cancelled in the middle of a write: the sink is closed after it, and the same image may be offered again."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(50 * CHUNK)
            first, second = Sink(len(data)), Sink(len(data))
            receiver = Receiver(two, first, second)
            first.gate.clear()
            source = Source(data)
            sending = asyncio.ensure_future(one.network.offer_image(2, 0, 1, source))
            await until(lambda: len(source.reads) >= 2)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            again = asyncio.ensure_future(one.network.offer_image(2, 0, 1, Source(data)))
            await until(lambda: len(receiver.offers) == 2)
            assert first.closed == 0  # its thread still writes
            first.gate.set()
            await until(lambda: first.closed == 1)
            assert await again == (77, 5)
            assert not first.finished and second.data == data
            assert two.network.refusals.counts["frame"] == 0

    run(work())


@pytest.mark.parametrize("end", ["arrived", "refused", "cancelled", "cut"])
def test_images_of_two_groups_go_to_one_node_one_after_the_other(run: Run, end: str) -> None:
    """The second waits for the first, however that ends, and fails with nothing; who gives up waiting is forgotten."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(20 * CHUNK)
            first, second = Sink(len(data)), Sink(len(data))
            receiver = Receiver(two, first, second)
            first.gate.clear()
            of_db = asyncio.ensure_future(one.network.offer_image(2, 0, 1, Source(data)))
            await until(lambda: len(receiver.offers) == 1)
            left = asyncio.ensure_future(one.network.offer_image(2, 1, 1, Source(data)))
            of_cache = asyncio.ensure_future(one.network.offer_image(2, 1, 1, Source(data)))
            await asyncio.sleep(0)
            left.cancel()
            if end == "refused":
                first.give_up(UsageError("not now"))
            elif end == "cancelled":
                of_db.cancel()
            elif end == "cut":
                next(link for link in two.network._links if link.kind is LinkKind.BULK).transport.abort()
            assert not of_cache.done() and len(receiver.offers) == 1
            first.gate.set()
            assert await of_cache == (77, 5) and second.data == data
            expected = {"refused": UsageError, "cancelled": asyncio.CancelledError, "cut": PeerUnreachable}
            ends = await asyncio.gather(of_db, left, return_exceptions=True)
            assert isinstance(ends[0], expected.get(end, tuple)) and isinstance(ends[1], asyncio.CancelledError)
            assert [offer[1] for offer in receiver.offers] == [0, 1]
            await until(lambda: first.closed == 1)
            assert two.network.refusals.counts["frame"] == 0

    run(work())


def test_a_network_that_closes_ends_offers_that_wait(run: Run) -> None:
    """Whose turn has not come hears that there is no link."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(100 * CHUNK)
            receiver = Receiver(two, Sink(len(data)), Sink(len(data)))
            offers = [asyncio.ensure_future(one.network.offer_image(2, group, 1, Source(data))) for group in (0, 1)]
            await until(lambda: len(receiver.offers) == 1)
            await one.network.close()
            ends = await asyncio.gather(*offers, return_exceptions=True)
            assert [type(end) for end in ends] == [PeerUnreachable] * 2 and len(receiver.offers) == 1

    run(work())


@pytest.mark.parametrize("error", [SnapshotCorruption("no image"), UsageError("not now", hint="later")])
def test_a_refused_offer_raises_what_the_other_end_said(run: Run, error: HiqliteError) -> None:
    """Code, message and hint travel; the link stays and the next offer is judged anew."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(3 * CHUNK)
            Receiver(two, error, Sink(len(data)))
            with pytest.raises(type(error), match=error.message) as caught:
                await one.network.offer_image(2, 0, 1, Source(data))
            assert caught.value.hint == error.hint
            assert await one.network.offer_image(2, 0, 1, Source(data)) == (77, 5)

    run(work())


def test_a_node_that_takes_no_images_says_so(run: Run) -> None:
    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            with pytest.raises(UsageError, match="takes no images"):
                await one.network.offer_image(2, 0, 1, Source(b"x"))

    run(work())


def test_a_chunk_that_is_not_what_was_promised_ends_the_transfer(run: Run) -> None:
    """The sink finds it; the offerer hears of it, what comes after is dropped, and nothing is finished."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(40 * CHUNK)
            bad, good = Sink(len(data), corrupt_at=5 * CHUNK), Sink(len(data))
            Receiver(two, bad, good)
            with pytest.raises(SnapshotCorruption):
                await one.network.offer_image(2, 0, 1, Source(data))
            assert not bad.finished and bad.closed == 1
            await one.network.offer_image(2, 0, 1, Source(data))
            assert good.data == data and two.network.refusals.counts["frame"] == 0

    run(work())


def test_a_receiver_that_does_not_want_it_any_more_ends_the_transfer(run: Run) -> None:
    """At once, also while it waits for a chunk; the offerer hears why."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(10 * CHUNK)
            sink, source = Sink(len(data)), Source(data)
            Receiver(two, sink)
            source.gate.clear()
            sending = asyncio.ensure_future(one.network.offer_image(2, 0, 1, source))
            await until(lambda: source.reads)
            sink.give_up(UsageError("another one leads"))
            await until(lambda: sink.closed == 1)
            source.gate.set()
            with pytest.raises(UsageError, match="another one leads"):
                await sending
            assert two.network.refusals.counts["frame"] == 0

    run(work())


def test_an_image_that_cannot_be_read_ends_the_offer(run: Run) -> None:
    """The offerer raises what its disk said; the receiver gives up what it began."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(10 * CHUNK)
            sink = Sink(len(data))
            Receiver(two, sink)
            with pytest.raises(StorageError, match="the disk is gone"):
                await one.network.offer_image(2, 0, 1, Source(data, fails_at=3 * CHUNK))
            await until(lambda: sink.closed == 1)
            # What had arrived and was not written yet when the offer was taken back is dropped.
            assert len(sink.data) in (0, CHUNK, 2 * CHUNK, 3 * CHUNK) and not sink.finished

    run(work())


def test_a_bulk_link_is_dialled_when_it_is_needed_and_closed_when_it_is_not(run: Run) -> None:
    """Its coming and going is no news about the peer."""

    async def work() -> None:
        settings = quick(bulk_idle_s=0.05)
        one, two = Node(1, settings=settings), Node(2)

        def bulk_links() -> int:
            return sum(link.kind is LinkKind.BULK for node in (one, two) for link in node.network._links)

        async with joined(one, two):
            assert bulk_links() == 0
            Receiver(two, *(Sink(10) for _ in range(3)))
            for _ in range(3):
                await one.network.offer_image(2, 0, 1, Source(bytes(10)))
                await until(lambda: bulk_links() == 0)
            assert [event for event in one.events + two.events if event[0] == "lost"] == []

    run(work())


def test_there_is_no_offer_to_nobody(run: Run) -> None:
    """An unknown node, one that listens no more, and one that goes in the middle."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(100 * CHUNK)
            with pytest.raises(PeerUnreachable):
                await one.network.offer_image(3, 0, 1, Source(data))
            sink, source = Sink(len(data)), Source(data)
            Receiver(two, sink)
            sending = asyncio.ensure_future(one.network.offer_image(2, 0, 1, source))
            await until(lambda: len(sink.data) > 10 * CHUNK)
            await two.network.close()
            with pytest.raises(PeerUnreachable):
                await sending
            assert sink.closed == 1
            with pytest.raises(PeerUnreachable):
                await one.network.offer_image(2, 0, 1, source)

    run(work())


def test_a_network_that_closes_ends_its_offers(run: Run) -> None:
    """Nobody waits for ever, and no thread stays."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            data = noise(100 * CHUNK)
            sink = Sink(len(data))
            Receiver(two, sink)
            sending = asyncio.ensure_future(one.network.offer_image(2, 0, 1, Source(data)))
            await until(lambda: len(sink.data) > 10 * CHUNK)
            await one.network.close()
            with pytest.raises(PeerUnreachable):
                await sending
            with pytest.raises(PeerUnreachable):
                await one.network.offer_image(2, 0, 1, Source(data))
            await until(lambda: sink.closed == 1)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("hiqlite-bulk")]

    run(work())
