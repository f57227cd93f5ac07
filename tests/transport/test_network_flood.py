"""Many hostile connections to the raft port at once, and those that take their time: nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgpack
import pytest
from conftest import SECRET, Node, Run, joined, quick, until
from test_network_hostile import Stranger, enter, frame, hello, unharmed

from hiqlite.engine.model import Identity, ProbeRequest
from hiqlite.transport.handshake import MAGIC, Dialler
from hiqlite.transport.session import Claims, LinkKind
from hiqlite.transport.settings import NetworkSettings

CONNECTIONS = 5000
AT_ONCE = 350  # of the crowd's own sockets: more than the port keeps, fewer than a process may open anywhere
PROBE = ProbeRequest(1, Identity(1, 1), 1)


def wrong_proof(nonce: bytes) -> bytes:
    """A hello, and a proof made without the secret, sent without waiting for the challenge."""
    proof = msgpack.packb([b"", [bytes(32)]])
    return hello(nonce=nonce) + MAGIC + b"\x01\x03" + len(proof).to_bytes(2, "little") + proof


def what_comes(number: int) -> bytes:
    """Of each kind of visitor the same share."""
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: b"",
        lambda: number.to_bytes(8, "little") * 8,
        lambda: hello(nonce=number.to_bytes(32, "little"))[: 8 + number % 60],
        lambda: hello(nonce=number.to_bytes(32, "little")),
        lambda: MAGIC + b"\x01\x01\xff\xff" + bytes(1000),
        lambda: wrong_proof(number.to_bytes(32, "little")),
    )
    return kinds[number % len(kinds)]()


async def visit(port: int, number: int, places: asyncio.Semaphore) -> None:
    """Comes, says what it has to say, and stays until it is thrown out."""
    async with places:
        stranger = await Stranger.come(port, what_comes(number))
        await stranger.rest()


def test_five_thousand_connections_keep_nobody_out_and_cost_no_link(run: Run) -> None:
    """With the limits of every node. Two nodes go on talking, a third comes in through the crowd, nothing is left of
    it afterwards."""

    async def work() -> None:
        one, two, three = Node(1), Node(2), Node(3)
        limit = NetworkSettings().unauthenticated_max
        async with joined(one, two):
            places = asyncio.Semaphore(AT_ONCE)
            port = two.network.listen_port
            crowd = [asyncio.ensure_future(visit(port, number, places)) for number in range(CONNECTIONS)]
            sent = heard = most = 0
            came_in = False
            while not all(visitor.done() for visitor in crowd):
                sent += one.network.send(2, 0, PROBE)
                most = max(most, two.network.metrics()["unproven"])
                if sent > 20 and not came_in:  # in the thick of it
                    came_in = True
                    await three.network.start()
                    three.network.set_peer(2, [("127.0.0.1", port)])
                    two.network.set_peer(3, [("127.0.0.1", three.network.listen_port)])
                    await until(lambda: three.network.connected(2) and two.network.connected(3))
                    heard = sum(not visitor.done() for visitor in crowd)
                await asyncio.sleep(0)
            await asyncio.gather(*crowd)
            assert came_in and heard > 0, "the crowd was gone before the third node came"
            await until(lambda: len(two.messages) == sent)
            assert most <= limit
            await until(lambda: two.network.metrics()["unproven"] == 0)
            counts = two.network.refusals.counts
            assert sum(counts.values()) == CONNECTIONS
            assert min(counts[reason] for reason in ("garbage", "oversized", "crowded")) > 0
            await unharmed(one, two)
            await three.network.close()

    run(work())


def test_a_hello_that_drips_does_not_extend_its_deadline(run: Run) -> None:
    """A byte now and then keeps no place: the whole handshake has one deadline."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        one, two = Node(1), Node(2, settings=quick(handshake_timeout_s=0.4))
        async with joined(one, two):
            begun = loop.time()
            dripping = await Stranger.come(two.network.listen_port)
            first, sent = hello(), 0
            ended = asyncio.ensure_future(dripping.rest())
            while not ended.done():
                assert loop.time() < begun + 20
                if sent < len(first) - 1 and loop.time() > begun + 0.02 * sent:
                    dripping.writer.write(first[sent : sent + 1])
                    sent += 1
                await asyncio.sleep(0)
            assert b"timeout" in ended.result() or ended.result() == b""
            assert 0 < sent < len(first) - 1 and loop.time() - begun < 20
            assert two.network.refusals.counts["timeout"] == 1
            await unharmed(one, two)

    run(work())


@pytest.mark.parametrize("kind", [LinkKind.LOG, LinkKind.CONTROL, LinkKind.BULK])
def test_a_proven_peer_that_hangs_up_in_a_frame_is_only_gone(run: Run, kind: LinkKind) -> None:
    """Cut at any byte: nothing of the frame is handed on, and the peer may come again."""

    async def work() -> None:
        two = Node(2)
        two.network.set_peer(1, [("127.0.0.1", 1)])
        await two.network.start()
        whole = frame(13, b"half of this is worth nothing")
        for cut in (1, 4, 40, len(whole) // 2, len(whole) - 1):
            transport, closed = await enter(two, kind)
            transport.write(whole[:cut])
            transport.close()
            await until(lambda closed=closed: closed)
            await until(lambda: not [link for link in two.network._links if link.kind is kind])
        assert (two.messages, two.forwards) == ([], [])
        assert two.network.refusals.counts["frame"] == 0
        again, _ = await enter(two, LinkKind.CONTROL)
        again.write(frame(13, b"good"))
        await until(lambda: two.forwards == [("forward", 0, 1, b"good")])
        again.abort()
        await two.network.close()

    run(work())


def test_a_frame_that_announces_too_much_ends_its_link_before_it_comes(run: Run) -> None:
    """By its header alone: no memory is set aside for what somebody says will follow."""

    async def work() -> None:
        two = Node(2, settings=quick(max_entry_bytes=1 << 18))
        two.network.set_peer(1, [("127.0.0.1", 1)])
        await two.network.start()
        for size in (1 << 19, 1 << 24, 1 << 31):
            transport, closed = await enter(two, LinkKind.CONTROL)
            announced = bytearray(frame(13, b"x"))
            announced[:4] = size.to_bytes(4, "little")
            transport.write(bytes(announced[:96]))
            await until(lambda closed=closed: closed)
        assert two.network.refusals.counts["frame"] == 3 and two.forwards == []
        await two.network.close()

    run(work())


def test_what_was_recorded_of_a_link_opens_no_other_and_says_nothing_twice(run: Run) -> None:
    """The bytes of a whole session, handshake and frames, sent again: the challenge is another one by then."""

    async def work() -> None:
        two = Node(2)
        two.network.set_peer(1, [("127.0.0.1", 1)])
        await two.network.start()
        recorded: list[bytes] = []

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", two.network.listen_port)

            async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: bool) -> None:
                while data := await source.read(4096):
                    if record:
                        recorded.append(data)
                    sink.write(data)
                sink.close()

            await asyncio.gather(carry(reader, far_writer, True), carry(far_reader, writer, False))

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        dialler = Dialler((SECRET,), "raft", LinkKind.CONTROL, 1, 2, Claims)
        writer.write(dialler.start())
        while dialler.session is None:
            writer.write(dialler.receive(await reader.read(4096)))
        writer.write(frame(13, b"transfer everything"))
        await until(lambda: len(two.forwards) == 1)
        writer.close()
        await until(lambda: not two.network._links)
        for portions in (recorded, [b"".join(recorded)]):
            thief = await Stranger.come(two.network.listen_port)
            for portion in portions:
                thief.writer.write(portion)
            await thief.rest()
        assert len(two.forwards) == 1
        assert two.network.refusals.counts["wrong_secret"] == 2
        server.close()
        await server.wait_closed()
        await two.network.close()

    run(work())
