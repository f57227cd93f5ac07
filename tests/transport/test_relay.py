"""Wires that can be cut: what waits on them is bounded, and arrives whole."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from conftest import until

from hiqlite.transport.relay import HELD_BYTES_MAX, HOST, Relay, Way

READ_BYTES_MAX = 1 << 18  # that the loop hands over at once
SIZE = 48 << 20  # more than the buffers of all sockets on the way hold


class Far:
    """Who is dialled: keeps what it hears, and counts who came."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.came = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        self.writers.append(writer)
        while data := await reader.read(1 << 16):
            self.heard += data


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Relay, Far, asyncio.StreamWriter]]:
    far = Far()
    server = await asyncio.start_server(far.take, HOST, 0)
    relay = Relay({(1, 2): (HOST, server.sockets[0].getsockname()[1])})
    try:
        listening = socket.create_server((HOST, 0))
        await relay.listen({(1, 2): listening})
        _, writer = await asyncio.open_connection(*listening.getsockname())
        try:
            yield relay, far, writer
        finally:
            writer.transport.abort()
    finally:
        await relay.close()
        for one in far.writers:
            one.close()
        server.close()


def there(relay: Relay) -> Way:
    """The end of the one connection that was dialled, and what it says."""
    (way,) = relay._edges[1, 2].ways
    return way


async def test_a_cut_wire_holds_little_and_then_the_sender_waits() -> None:
    """As a path does whose other end takes nothing; afterwards every byte arrives in its order."""
    async with wired() as (relay, far, writer):
        relay.set((1, 2), "hold")
        sent = b"".join(number.to_bytes(4, "big") for number in range(SIZE // 4))
        writer.write(sent)
        drained = asyncio.ensure_future(writer.drain())
        await until(lambda: (way := there(relay).transport) is not None and not way.is_reading())
        assert HELD_BYTES_MAX <= there(relay)._held_bytes <= HELD_BYTES_MAX + READ_BYTES_MAX
        assert not drained.done() and far.heard == b""
        relay.heal()
        await until(lambda: len(far.heard) >= SIZE)
        await drained
        assert far.heard == sent


async def test_nobody_is_dialled_before_something_gets_through() -> None:
    """A broken network does not open connections either."""
    async with wired() as (relay, far, writer):
        relay.set((1, 2), "hold")
        writer.write(b"hello")
        await until(lambda: there(relay)._held_bytes == len(b"hello"))
        assert far.came == 0
        relay.heal()
        await until(lambda: far.heard == b"hello")
        assert far.came == 1


async def test_an_end_is_held_like_bytes() -> None:
    """Who is cut off is not told that the other one is gone."""
    async with wired() as (relay, far, writer):
        writer.write(b"hello")
        await until(lambda: far.heard == b"hello")
        relay.set((1, 2), "hold")
        writer.close()
        await until(lambda: there(relay).ended)
        assert there(relay).other.transport is not None
        relay.heal()
        await until(lambda: not relay._edges[1, 2].ways)
