"""Hostile bytes on the raft port: each closes its own connection, is counted by its reason, and costs nothing else."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgpack
import pytest
from conftest import SECRET, Node, Run, joined, quick, until

from hiqlite._accel.frames import FrameReader, encode_header
from hiqlite.engine.model import Identity, ProbeRequest
from hiqlite.errors import AuthenticationError, ProtocolError
from hiqlite.transport.handshake import MAGIC, Dialler
from hiqlite.transport.rpc import dial
from hiqlite.transport.session import Claims, LinkKind, Session

PROBE = ProbeRequest(1, Identity(1, 1), 1)


class Stranger:
    """A raw connection; `closed` tells that the other end has hung up."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def come(cls, port: int, data: bytes = b"") -> Stranger:
        stranger = cls(*await asyncio.open_connection("127.0.0.1", port))
        stranger.writer.write(data)
        return stranger

    async def rest(self) -> bytes:
        """What the node still says before it hangs up."""
        try:
            async with asyncio.timeout(20):
                return await self.reader.read()
        except ConnectionError:
            return b""
        finally:
            await self.leave()

    async def leave(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


def hello(node_id: int = 1, wanted: int = 2, nonce: bytes = b"h" * 32) -> bytes:
    dialler = Dialler(("any secret",), "raft", LinkKind.CONTROL, node_id, wanted, Claims, nonce=nonce)
    return dialler.start()


async def unharmed(one: Node, two: Node) -> None:
    """The two nodes still talk over the links they had."""
    count = len(two.messages)
    assert one.network.send(2, 0, PROBE)
    await until(lambda: len(two.messages) == count + 1)
    assert [event for event in two.events if event[0] == "lost"] == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00" * 64, "garbage"),
        (b"GET /ping HTTP/1.1\r\n\r\n", "garbage"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "garbage"),
        (MAGIC + b"\x07", "version"),
        (MAGIC + b"\x01\x01\xff\xff" + b"x" * 70_000, "oversized"),
        (MAGIC + b"\x01\x01\x03\x00abc", "malformed"),
        (encode_header(1, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, b""), "garbage"),
        (hello(wanted=9), "wrong_node"),
        (hello(node_id=2), "reflected"),
    ],
)
def test_bytes_that_are_no_handshake_end_their_connection_only(run: Run, data: bytes, reason: str) -> None:
    async def work() -> None:
        one, two = Node(1), Node(2)
        async with joined(one, two):
            stranger = await Stranger.come(two.network.listen_port, data)
            await stranger.rest()
            await until(lambda: two.network.refusals.counts[reason] == 1)
            assert two.network.metrics()["unproven"] == 0
            await unharmed(one, two)

    run(work())


def test_a_connection_that_ends_or_dawdles_in_the_handshake_is_given_up(run: Run) -> None:
    """A hello cut at every byte; a slow drip; silence: closed by the peer's end or by the deadline."""

    async def work() -> None:
        one, two = Node(1), Node(2, settings=quick(handshake_timeout_s=0.3))
        async with joined(one, two):
            first = hello()
            for cut in range(len(first)):
                await (await Stranger.come(two.network.listen_port, first[:cut])).leave()
            await until(lambda: two.network.refusals.counts["truncated"] == len(first))
            silent = await Stranger.come(two.network.listen_port)
            dripping = await Stranger.come(two.network.listen_port)
            for byte in first[:20]:
                dripping.writer.write(bytes((byte,)))
                await asyncio.sleep(0)
            await dripping.rest()
            await silent.rest()
            await until(lambda: two.network.refusals.counts["timeout"] == 2)
            await unharmed(one, two)

    run(work())


def test_a_wrong_secret_is_refused_and_logged_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Both ends say so, in one line per end however often it is tried; no session ever begins."""
    caplog.set_level(logging.WARNING)

    async def work() -> None:
        one, two = Node(1), Node(2, secret="this is another secret")
        for node in (one, two):
            await node.network.start()
        one.network.set_peer(2, [("127.0.0.1", two.network.listen_port)])
        two.network.set_peer(1, [("127.0.0.1", one.network.listen_port)])
        await until(lambda: all(node.network.refusals.counts["wrong_secret"] >= 8 for node in (one, two)))
        assert [event for event in one.events + two.events if event[0] != "lost"] == []
        for node in (one, two):
            await node.network.close()

    run(work())
    assert len([record for record in caplog.records if "wrong_secret" in record.getMessage()]) == 2


def test_a_replayed_handshake_is_worth_nothing(run: Run) -> None:
    """All that a real dialler sent, recorded on its way and sent again, opens no link."""

    async def work() -> None:
        one, two = Node(1), Node(2)
        recorded: list[bytes] = []
        real_write: Any = None

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Between the two nodes; writes down what the dialler says."""
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", two.network.listen_port)

            async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: bool) -> None:
                while data := await source.read(4096):
                    if record:
                        recorded.append(data)
                    sink.write(data)
                sink.close()

            await asyncio.gather(carry(reader, far_writer, True), carry(far_reader, writer, False))

        async with joined(one, two):
            relayed = await asyncio.start_server(relay, "127.0.0.1", 0)
            port = relayed.sockets[0].getsockname()[1]
            taken: list[tuple[Session, asyncio.Transport]] = []
            await dial(
                "127.0.0.1", port,
                lambda _t: Dialler((SECRET,), "raft", LinkKind.LOG, 1, 2, Claims),
                lambda session, transport, leftover: taken.append((session, transport)), quick(),
            )  # fmt: skip
            assert real_write is None and len(recorded) == 2
            taken[0][1].abort()
            before = len(two.network._links)
            await until(lambda: len(two.network._links) <= before)
            again = await Stranger.come(two.network.listen_port, recorded[0])
            assert (await again.reader.read(4096))[:4] == MAGIC
            again.writer.write(recorded[1])
            assert b"wrong_secret" in await again.rest()
            assert two.network.refusals.counts["wrong_secret"] == 1
            relayed.close()
            await relayed.wait_closed()

    run(work())


def test_a_reflected_handshake_is_worth_nothing(run: Run) -> None:
    """Who sends a node's own messages back to it gets nowhere: a hello is answered by a challenge, never by a proof."""

    async def work() -> None:
        one = Node(1)

        async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(4096):
                writer.write(data)
            writer.close()

        server = await asyncio.start_server(mirror, "127.0.0.1", 0)
        one.network.set_peer(2, [("127.0.0.1", server.sockets[0].getsockname()[1])])
        await one.network.start()
        await until(lambda: one.network.refusals.counts["malformed"] >= 2)
        assert one.events == []
        await one.network.close()
        server.close()
        await server.wait_closed()

    run(work())


async def enter(node: Node, kind: LinkKind) -> tuple[asyncio.Transport, list[Exception | None]]:
    """A proven link of node 1 to `node`, in the hands of the test; the list fills when it is closed."""
    closed: list[Exception | None] = []

    class Watch(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            closed.append(exc)

    taken: list[asyncio.Transport] = []

    def take(session: Session, transport: asyncio.Transport, leftover: bytes) -> None:
        transport.set_protocol(Watch())
        taken.append(transport)

    def make(transport: asyncio.Transport) -> Dialler:
        return Dialler((SECRET,), "raft", kind, 1, node.network.node_id, Claims)

    await dial("127.0.0.1", node.network.listen_port, make, take, quick())
    return taken[0], closed


def frame(kind: int, body: bytes = b"", sender: int = 1, count: int = 0) -> bytes:
    return encode_header(kind, 0, 0, 0, 5, sender, 0, 0, 0, 3, 0, 0, count, body) + body


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (LinkKind.LOG, frame(2)),  # an answer to what was never asked
        (LinkKind.LOG, frame(10, msgpack.packb([3, 1]))),  # a control message on the log link
        (LinkKind.LOG, frame(1, b"no records at all", count=1)),
        (LinkKind.LOG, frame(1, b"", count=4)),
        (LinkKind.LOG, b"\xff" * 200),
        (LinkKind.CONTROL, frame(1)),  # an append on the control link
        (LinkKind.CONTROL, frame(10, b"\xc1")),
        (LinkKind.CONTROL, frame(10, msgpack.packb([3, 1]), sender=3)),  # in another node's name
        (LinkKind.CONTROL, frame(11, b"\xc1")),
        (LinkKind.CONTROL, frame(12, b"\xc1")),
        (LinkKind.CONTROL, frame(77)),
        (LinkKind.CONTROL, frame(10, bytes(1 << 20))),
    ],
)
def test_a_proven_peer_that_sends_nonsense_loses_that_link_only(run: Run, kind: LinkKind, data: bytes) -> None:
    """Knowing the secret does not make a frame right; the node closes the link and hands on nothing."""

    async def work() -> None:
        two = Node(2, settings=quick(max_entry_bytes=1 << 18))
        two.network.set_peer(1, [("127.0.0.1", 1)])
        await two.network.start()
        transport, closed = await enter(two, kind)
        transport.write(data)
        await until(lambda: closed)
        await until(lambda: two.network.refusals.counts["frame"] == 1)
        assert (two.messages, two.forwards) == ([], [])
        again, closed_again = await enter(two, LinkKind.CONTROL)
        again.write(frame(13, b"good"))
        await until(lambda: two.forwards == [("forward", 0, 1, b"good")])
        assert closed_again == []
        again.abort()
        await two.network.close()

    run(work())


def test_a_later_link_of_the_same_peer_replaces_the_older(run: Run) -> None:
    """Who dials again has lost the older one, even when this side has not heard of it."""

    async def work() -> None:
        two = Node(2)
        two.network.set_peer(1, [("127.0.0.1", 1)])
        await two.network.start()
        first, first_closed = await enter(two, LinkKind.CONTROL)
        second, second_closed = await enter(two, LinkKind.CONTROL)
        await until(lambda: first_closed)
        assert two.network.send_forward_reply(1, 0, b"to the second")
        assert second_closed == []
        second.abort()
        first.abort()
        await two.network.close()

    run(work())


def test_five_hundred_silent_connections_keep_nobody_out(run: Run) -> None:
    """A bounded number is kept, the oldest goes first, and a node comes in through the crowd."""

    async def work() -> None:
        two = Node(2, settings=quick(unauthenticated_max=100))
        await two.network.start()
        crowd = [await Stranger.come(two.network.listen_port, b"HQ") for _ in range(500)]
        await until(lambda: two.network.refusals.counts["crowded"] == 400)
        assert two.network.metrics()["unproven"] == 100
        one = Node(1)
        await one.network.start()
        one.network.set_peer(2, [("127.0.0.1", two.network.listen_port)])
        two.network.set_peer(1, [("127.0.0.1", one.network.listen_port)])
        await until(lambda: one.network.connected(2) and two.network.connected(1))
        await unharmed(one, two)
        for stranger in crowd:
            await stranger.leave()
        for node in (one, two):
            await node.network.close()

    run(work())


def test_a_dial_that_is_answered_by_something_else_fails_by_name(run: Run) -> None:
    """Garbage, a refusal, a hang-up, and a stranger without the secret, on the dialling side."""

    async def work() -> None:
        answers: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(4096)
            writer.write(answers[-1])
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        packed = msgpack.packb("wrong_secret")
        for said, kind in [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolError),
            (MAGIC + b"\x01\x05" + len(packed).to_bytes(2, "little") + packed, AuthenticationError),
            (b"", Exception),
        ]:
            answers.append(said)
            with pytest.raises(kind):
                await dial(
                    "127.0.0.1", port, lambda _t: Dialler((SECRET,), "raft", LinkKind.LOG, 1, 2, Claims),
                    lambda *_: None, quick(),
                )  # fmt: skip
        server.close()
        await server.wait_closed()

    run(work())


def test_frames_that_drip_in_byte_by_byte_are_taken(run: Run) -> None:
    """A slow link is a link: nothing is lost at any cut of a frame."""

    async def work() -> None:
        two = Node(2)
        two.network.set_peer(1, [("127.0.0.1", 1)])
        await two.network.start()
        transport, _closed = await enter(two, LinkKind.CONTROL)
        for byte in frame(13, b"dripping"):
            transport.write(bytes((byte,)))
            await asyncio.sleep(0)
        await until(lambda: two.forwards == [("forward", 0, 1, b"dripping")])
        transport.abort()
        await two.network.close()

    run(work())


def test_a_reader_survives_any_portion_after_its_end() -> None:
    """A loop may still deliver what it had read when the link was closed."""
    reader = FrameReader(lambda _frame: None, lambda: None, lambda _error: None, 1 << 20)
    reader.feed(encode_header(13, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, bytes(50_000))[:96])
    reader.stop()
    window = reader.get_buffer(-1)
    assert len(window) > 0
    reader.buffer_updated(len(window))
    assert len(reader.get_buffer(-1)) > 0
