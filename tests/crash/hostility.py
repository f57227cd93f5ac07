"""Who attacks a raft port without knowing the secret, and who listens on the way between two nodes.

Every visit is one connection to one node; it gives back what the node said until it hung up.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from hiqlite.errors import TransportError
from hiqlite.transport.handshake import HEADER_BYTES, MAGIC, PROOF, Dialler
from hiqlite.transport.loopback import HOST
from hiqlite.transport.session import Claims, LinkKind
from hiqlite.transport.settings import NetworkSettings

HANG_UP_S = 20.0  # several times what a node has patience for
DRIP_S = 0.05
# Silent connections to one port: more than it keeps. Those to three ports are fewer than a process may open anywhere.
AT_ONCE = NetworkSettings().unauthenticated_max + 40
KINDS = (LinkKind.LOG, LinkKind.CONTROL, LinkKind.BEAT, LinkKind.BULK)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def messages(data: bytes) -> list[bytes]:
    """The whole handshake messages that `data` begins with."""
    found = []
    while data[:4] == MAGIC and len(data) >= (end := HEADER_BYTES + int.from_bytes(data[6:8], "little")):
        found.append(data[:end])
        data = data[end:]
    return found


def steps(said: bytes) -> list[int]:
    """Which messages a node has said; a welcome: it took the connection for a peer's."""
    return [message[5] for message in messages(said)]


class Wiretap:
    """A port that leads to a node's, and notes each handshake of who dials through it. Leave it after the nodes end."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._said: list[bytearray] = []
        self._carrying: set[asyncio.Task[None]] = set()

    @property
    def recorded(self) -> list[tuple[bytes, bytes]]:
        """(hello, proof) of each."""
        return [(heard[0], heard[1]) for said in self._said if len(heard := messages(bytes(said))) == 2]

    async def __aenter__(self) -> Wiretap:
        self._server = await asyncio.start_server(self._accepted, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await asyncio.gather(*self._carrying)
        await self._server.wait_closed()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._to_port)
        except ConnectionError:  # that node does not listen yet
            writer.close()
        else:
            self._said.append(said := bytearray())
            await asyncio.gather(self._carry(reader, far_writer, said), self._carry(far_reader, writer, None))
        self._carrying.discard(task)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, said: bytearray | None) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if said is not None and len(said) < 1 << 15:  # the handshake comes first, and is shorter
                    said += data
                sink.write(data)
                await sink.drain()
        sink.close()


class Attacker:
    """Of one node.

    Args:
        recorded: what diallers said in their handshakes, (hello, proof) each.
    """

    def __init__(self, node_id: int, port: int, recorded: list[tuple[bytes, bytes]]) -> None:
        self.node_id = node_id
        self.port = port
        self.recorded = recorded
        self.random = random.Random(node_id)

    @property
    def visits(self) -> list[Callable[[], Awaitable[bytes]]]:
        """Each kind several times; those that last until the node's patience ends come first."""
        slow = [self.silent, self.dripping] * 4
        quick = [self.garbage, self.oversized, self.truncated, self.guessed, self.echoed] * 20
        replays = [
            partial(self.replayed, number, at_once=at_once)
            for number in range(len(self.recorded))
            for at_once in (False, True)
        ]
        return [*slow, *quick, *replays * 3]

    async def garbage(self) -> bytes:
        reader, writer = await self._come(self.random.randbytes(self.random.randint(1, 3000)))
        return await self._until_hung_up(reader, writer)

    async def oversized(self) -> bytes:
        """Announces a longer message than there is, and pours far more."""
        reader, writer = await self._come(MAGIC + b"\x01\x01\xff\xff")
        with suppress(ConnectionError):
            for _ in range(64):
                writer.write(bytes(1 << 16))
                await writer.drain()
        return await self._until_hung_up(reader, writer)

    async def truncated(self) -> bytes:
        hello = self._dialler().start()
        reader, writer = await self._come(hello[: self.random.randrange(len(hello))])
        writer.write_eof()
        return await self._until_hung_up(reader, writer)

    async def guessed(self) -> bytes:
        """A whole handshake, with a wrong secret."""
        dialler = self._dialler()
        reader, writer = await self._come(dialler.start())
        said = await self._heard(reader)
        with suppress(TransportError):  # no challenge: it refuses
            writer.write(dialler.receive(said))
        return said + await self._until_hung_up(reader, writer)

    async def echoed(self) -> bytes:
        """Answers with what the node itself said."""
        reader, writer = await self._come(self._dialler().start())
        said = await self._heard(reader)
        writer.write(said)
        return said + await self._until_hung_up(reader, writer)

    async def silent(self) -> bytes:
        return await self._until_hung_up(*await self._come(b""))

    async def dripping(self) -> bytes:
        """A hello and then a proof without end, byte by byte."""
        endless = self._dialler().start() + MAGIC + bytes((1, PROOF)) + (16_000).to_bytes(2, "little") + bytes(16_000)
        reader, writer = await self._come(b"")
        said = b""
        async with asyncio.timeout(HANG_UP_S):
            with suppress(ConnectionError):
                for byte in endless:
                    writer.write(bytes((byte,)))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(DRIP_S):
                            if not (more := await reader.read(4096)):
                                break
                            said += more
        await self._leave(writer)
        return said

    async def replayed(self, number: int, *, at_once: bool) -> bytes:
        """One of the recorded handshakes, as its dialler sent it, or without waiting for the challenge."""
        hello, proof = self.recorded[number]
        reader, writer = await self._come(hello + proof if at_once else hello)
        said = b""
        if not at_once:
            said = await self._heard(reader)
            writer.write(proof)
        return said + await self._until_hung_up(reader, writer)

    async def crowd(self, count: int) -> bytes:
        """So many connections that never say a word; `AT_ONCE` are open, and the oldest must go for the next.

        When the port is full somebody says hello: what the node said to that one is given back.
        """
        assert count > AT_ONCE
        said = b""
        held: deque[Streams] = deque()
        for number in range(count):
            if number == AT_ONCE:
                said = await self.guessed()
            if len(held) == AT_ONCE:
                await self._until_hung_up(*held.popleft())
            held.append(await self._come(b""))
        for _, writer in held:
            await self._leave(writer)
        return said

    # ---- one connection

    def _dialler(self) -> Dialler:
        peer = self.random.choice([number for number in (1, 2, 3) if number != self.node_id])
        kind = self.random.choice(KINDS)
        return Dialler(("a secret that somebody guessed",), "raft", kind, peer, self.node_id, Claims)

    async def _come(self, data: bytes) -> Streams:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(data)
        return reader, writer

    async def _heard(self, reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(HANG_UP_S):
            with suppress(ConnectionError):
                return await reader.read(4096)
        return b""

    async def _until_hung_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        said = b""
        while more := await self._heard(reader):
            said += more
        await self._leave(writer)
        return said

    async def _leave(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
