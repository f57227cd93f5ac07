"""Bulk frames that break the rules, from either end: that link is closed, and nothing else happens."""

from __future__ import annotations

import asyncio
import random
import zlib
from typing import Any

import pytest
from conftest import SECRET, Node, Run, quick, until

from hiqlite._accel.frames import FrameReader, encode_header
from hiqlite.errors import HiqliteError, PeerUnreachable, ProtocolError
from hiqlite.transport import bulk_wire
from hiqlite.transport.bulk_wire import CHUNK_BYTES_MAX, Chunk, Sender, Stream
from hiqlite.transport.handshake import Acceptor, Dialler
from hiqlite.transport.link import Refusals
from hiqlite.transport.listener import RaftListener
from hiqlite.transport.rpc import dial
from hiqlite.transport.session import Claims, LinkKind, Session
from hiqlite.transport.wire import FrameType
from tests.transport.bulk_images import CHUNK, IMAGE_ID, Receiver, Sink, Source, noise

ONE, TWO = Sender(0, 1), Sender(0, 2)
STREAM = Stream(1, IMAGE_ID)
DATA = noise(4 * CHUNK)


def offer(number: int = 1) -> bytes:
    return b"".join(bulk_wire.encode_offer(ONE, Stream(number, IMAGE_ID), 0, 3, b"manifest"))


def chunk(offset: int, data: bytes, *, size_bytes: int | None = None, packed: bool = False, number: int = 1) -> bytes:
    size = len(data) if size_bytes is None else size_bytes
    return b"".join(bulk_wire.encode_chunk(ONE, Stream(number, IMAGE_ID), offset, size, data, packed))


def raw(kind: int, body: bytes, **fields: int) -> bytes:
    return (
        encode_header(
            kind, 0, fields.get("flags", 0), 0, 0, fields.get("sender", 1), 0, 0, 1, fields.get("index", 0), 0, 0,
            fields.get("count", 0), body,
        ) + body
    )  # fmt: skip


class Enemy(asyncio.Protocol):
    """One proven end of a bulk link, in the hands of the test; counts the asks that come."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.closed = False
        self.frames: list[Any] = []
        self._reader = FrameReader(self.frames.append, lambda: None, lambda _error: None, 1 << 25)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    def asks(self) -> int:
        return sum(frame.type == FrameType.IMAGE_WANT for frame in self.frames)

    @classmethod
    async def come(cls, node: Node) -> Enemy:
        enemy = cls()

        def take(session: Session, transport: asyncio.Transport, leftover: bytes) -> None:
            enemy.transport = transport
            transport.set_protocol(enemy)

        def make(transport: asyncio.Transport) -> Dialler:
            return Dialler((SECRET,), "raft", LinkKind.BULK, 1, node.network.node_id, Claims)

        await dial("127.0.0.1", node.network.listen_port, make, take, quick())
        return enemy


BEFORE_ASKING = {
    "chunk without an offer": chunk(0, DATA[:CHUNK]),
    "gone without an offer": b"".join(bulk_wire.encode_gone(ONE, STREAM)),
    "no id": raw(FrameType.IMAGE_CHUNK, b"short"),
    "nothing": raw(FrameType.IMAGE_OFFER, b""),
    "offer without a manifest": raw(FrameType.IMAGE_OFFER, IMAGE_ID),
    "offer that is too long": raw(FrameType.IMAGE_OFFER, IMAGE_ID + bytes(17 << 20)),
    "ask on the wrong end": b"".join(bulk_wire.encode_want(ONE, STREAM, 0)),
    "done on the wrong end": b"".join(bulk_wire.encode_done(ONE, STREAM, 1, 1)),
    "an append": raw(FrameType.APPEND, b""),
    "an unknown type": raw(99, IMAGE_ID),
    "another node's name": raw(FrameType.IMAGE_OFFER, IMAGE_ID + b"manifest", sender=3),
    "noise": noise(5000),
}
AFTER_ASKING = {
    "two offers": offer(2),
    "a chunk of another place": chunk(CHUNK, DATA[CHUNK : 2 * CHUNK]),
    "a chunk that is too short": chunk(0, DATA[:100]),
    "a chunk that is empty": raw(FrameType.IMAGE_CHUNK, IMAGE_ID, count=CHUNK),
    "a chunk that grew": raw(FrameType.IMAGE_CHUNK, IMAGE_ID + bytes(CHUNK + 1), count=CHUNK),
    "a chunk beyond all sizes": raw(FrameType.IMAGE_CHUNK, IMAGE_ID + b"x", count=CHUNK_BYTES_MAX + 1),
    "unknown flags": raw(FrameType.IMAGE_CHUNK, IMAGE_ID + DATA[:CHUNK], count=CHUNK, flags=2),
    "an offset beyond all": raw(FrameType.IMAGE_CHUNK, IMAGE_ID + DATA[:CHUNK], count=CHUNK, index=1 << 63),
    "a bomb": chunk(0, zlib.compress(bytes(50 << 20), 9), size_bytes=CHUNK, packed=True),
    "too little inside": chunk(0, zlib.compress(bytes(100)), size_bytes=CHUNK, packed=True),
    "cut compression": chunk(0, zlib.compress(noise(CHUNK))[:-10], size_bytes=CHUNK, packed=True),
    "something behind": chunk(0, zlib.compress(bytes(CHUNK)) + b"x", size_bytes=CHUNK, packed=True),
    "no compression at all": chunk(0, noise(1000), size_bytes=CHUNK, packed=True),
    "another stream's chunk": chunk(0, DATA[:CHUNK], number=2),
    "the same chunk twice": chunk(0, DATA[:CHUNK]) * 2,
}


async def unharmed(node: Node) -> None:
    """An image still comes in whole over a new link."""
    sink = Sink(len(DATA))
    Receiver(node, sink)
    friend = Node(1)
    await friend.network.start()
    friend.network.set_peer(2, [("127.0.0.1", node.network.listen_port)])
    assert await friend.network.offer_image(2, 0, 1, Source(DATA)) == (77, 5)
    assert sink.data == DATA
    await friend.network.close()


@pytest.mark.parametrize("name", [*BEFORE_ASKING, *AFTER_ASKING])
def test_an_offerer_that_breaks_the_rules_loses_its_link(run: Run, name: str) -> None:
    """The receiver closes it, gives its sink back, finishes nothing, and takes the next image."""

    async def work() -> None:
        two = Node(2)
        two.network.set_peer(1, [("127.0.0.1", 1)])
        await two.network.start()
        sink = Sink(len(DATA))
        receiver = Receiver(two, sink)
        enemy = await Enemy.come(two)
        if name in AFTER_ASKING:
            enemy.transport.write(offer())
            await until(lambda: enemy.asks() == 4)
        enemy.transport.write({**BEFORE_ASKING, **AFTER_ASKING}[name])
        await until(lambda: enemy.closed)
        await until(lambda: sink.closed == len(receiver.offers))
        assert not sink.finished and len(receiver.offers) <= 1
        assert two.network.refusals.counts["frame"] == 1
        await unharmed(two)
        await two.network.close()

    run(work())


def ask(offset: int) -> bytes:
    return b"".join(bulk_wire.encode_want(TWO, STREAM, offset))


@pytest.mark.parametrize(
    "answers",
    [
        [ask(1)],
        [ask(len(DATA))],
        [ask(1 << 62)],
        [raw(FrameType.IMAGE_WANT, IMAGE_ID, sender=2, index=(1 << 64) - 1)],
        [ask(0), ask(0)],
        [ask(CHUNK), ask(0)],
        [raw(FrameType.IMAGE_WANT, b"", sender=2)],
        [raw(FrameType.IMAGE_DONE, IMAGE_ID + b"\xc1", sender=2, flags=1)],
        [raw(FrameType.IMAGE_DONE, IMAGE_ID + b"trailing", sender=2)],
        [raw(FrameType.IMAGE_CHUNK, IMAGE_ID + b"x", sender=2, count=1)],
        [raw(FrameType.IMAGE_OFFER, IMAGE_ID + b"x", sender=2)],
        [raw(FrameType.REQUEST, IMAGE_ID, sender=2)],
        [noise(3000)],
        [b""],
    ],
)
def test_a_receiver_that_breaks_the_rules_ends_its_own_transfer(run: Run, answers: list[bytes]) -> None:
    """The offerer raises one typed error and closes that link."""

    async def work() -> None:
        one = Node(1)
        enemies: list[Enemy] = []

        def proven(session: Session, transport: asyncio.Transport) -> None:
            if session.kind is not LinkKind.BULK:
                transport.abort()
                return
            enemy = Enemy()
            enemy.transport = transport
            transport.set_protocol(enemy)
            enemies.append(enemy)

        kinds = frozenset(LinkKind)
        listener = RaftListener(
            "127.0.0.1", 0, lambda _t: Acceptor((SECRET,), "raft", kinds, 2, Claims), proven, quick(), Refusals()
        )
        await listener.start()
        await one.network.start()
        one.network.set_peer(2, [("127.0.0.1", listener.port)])
        sending = asyncio.ensure_future(one.network.offer_image(2, 0, 1, Source(DATA)))
        await until(lambda: enemies and enemies[0].frames)
        enemies[0].transport.write(b"".join(answers))
        if answers == [b""]:
            enemies[0].transport.abort()
        with pytest.raises((PeerUnreachable, ProtocolError)):
            await sending
        await until(lambda: enemies[0].closed)
        await one.network.close()
        await listener.close()

    run(work())


def test_any_bytes_in_any_bulk_frame_are_an_error_of_one_kind() -> None:
    """Frames that are whole by their checksums, of random content: a value or a ProtocolError comes out."""
    chance = random.Random(11)
    decoders = (bulk_wire.stream_of, bulk_wire.decode_offer, bulk_wire.decode_chunk, bulk_wire.decode_done)
    outcomes = {"value": 0, "error": 0}
    for _ in range(3000):
        body = chance.randbytes(chance.choice((0, 3, 16, 17, 40, 200)))
        frames: list[Any] = []
        fields = {"flags": chance.choice((0, 1, 2)), "count": chance.choice((0, 1, 5, 200, 1 << 31))}
        index = chance.choice((0, 5, 1 << 63))
        reader = FrameReader(frames.append, lambda: None, lambda _error: None, 1 << 20)
        reader.feed(raw(chance.choice((20, 21, 22, 23, 24)), body, index=index, **fields))
        for decode in decoders:
            try:
                value = decode(frames[0])
                if isinstance(value, Chunk):
                    value.unpack()
                assert not isinstance(value, HiqliteError) or value.code
                outcomes["value"] += 1
            except ProtocolError:
                outcomes["error"] += 1
    assert min(outcomes.values()) > 100
