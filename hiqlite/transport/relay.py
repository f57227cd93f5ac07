"""Wires between nodes that can be cut: each node dials each other one through a port of a relay. For tests.

What becomes of bytes from one node to another, whoever dialled:

    pass      they go on, after the delay
    hold      they wait until the mode changes, and so does the end of a connection: a partition as TCP sees it
    lose      they are gone, and a connection that lost some ends when the mode changes
    refuse    connections end by RST, and so do new ones

As a program (see `RelayProcess`) it obeys lines of JSON, each answered by an empty line:

    {"edges": [[1, 2], ...], "mode": MODE, "delay_s": S}    what becomes of bytes from node 1 to node 2
    {"reset": [1, 2]}                                       all connections between the two end by RST

Knows sockets; must not know frames, nor who the nodes are. Invariants: bytes of a connection stay in order, and none is
left out of a connection that lives on in `pass`; who is dialled hears of it with the first byte that gets through; no
more than `HELD_BYTES_MAX` and one read wait per direction of a connection, then the sender's own buffers fill.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

HOST = "127.0.0.1"
HELD_BYTES_MAX = 1 << 20
MODES = ("pass", "hold", "lose", "refuse")
Pair = tuple[int, int]  # (from, to)
Target = tuple[str, int]


class Edge:
    """One direction between two nodes."""

    def __init__(self) -> None:
        self.mode = "pass"
        self.delay_s = 0.0
        self.ways: set[Way] = set()

    def set(self, mode: str, delay_s: float) -> None:
        assert mode in MODES
        self.mode, self.delay_s = mode, delay_s
        for way in list(self.ways):
            way.mode_changed()


class Way(asyncio.Protocol):
    """One end of a connection, and what it says on its way to the other end.

    Args:
        dial: makes the other end, once there is something to say to it; None for the end that is dialled.
    """

    def __init__(self, edge: Edge, dial: Callable[[], None] | None = None) -> None:
        self._edge = edge
        self._dial = dial
        self._queue: deque[tuple[float, bytes | None]] = deque()  # (when due, bytes or the end)
        self._held_bytes = 0
        self._lost_some = False
        self._congested = False  # the other end takes no more for now
        self.transport: asyncio.Transport | None = None
        self.ended = False
        self.other: Way

    # -- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop does not derive its own from it
        self._edge.ways.add(self)
        if self._edge.mode == "refuse":
            self.reset()

    def data_received(self, data: bytes) -> None:
        if self._edge.mode == "lose":
            self._lost_some = True
            return
        self._held_bytes += len(data)
        self._add(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.ended = True
        self._add(None)

    def pause_writing(self) -> None:
        self.other._congested = True

    def resume_writing(self) -> None:
        self.other._congested = False
        self.other.pump()

    # -- the way

    def mode_changed(self) -> None:
        if self._edge.mode == "refuse" or (self._lost_some and self._edge.mode != "lose"):
            self.reset()
        else:
            self.pump()

    def pump(self) -> None:
        """Hands on what is due."""
        loop = asyncio.get_running_loop()
        while self._queue and self._queue[0][0] <= loop.time() and self._open_for(self._queue[0][1]):
            item = self._queue.popleft()[1]
            if item is None:
                self._edge.ways.discard(self)
                self.other._close_after_flush()
                continue
            self._held_bytes -= len(item)
            if self.other.transport is not None and not self.other.transport.is_closing():
                self.other.transport.write(item)
        self._read_on(self._held_bytes < HELD_BYTES_MAX)
        if self._queue and self._queue[0][0] > loop.time():
            loop.call_at(self._queue[0][0], self.pump)

    def reset(self) -> None:
        """Both ends get an RST, at once."""
        for way in (self, self.other):
            way._edge.ways.discard(way)
            way._queue.clear()
            transport, way.transport = way.transport, None
            way.ended = True
            if transport is None:
                continue
            if not transport.is_closing():
                endpoint = transport.get_extra_info("socket")
                # Linger 0: closing sends RST.
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            transport.abort()

    # -- parts

    def _add(self, item: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        self._queue.append((loop.time() + self._edge.delay_s, item))
        self.pump()

    def _open_for(self, item: bytes | None) -> bool:
        """Whether it can go on now; who was not dialled yet is dialled when it could."""
        if self._edge.mode in ("hold", "lose"):
            return False
        if self.other.transport is not None or self.other.ended:
            return item is None or not self._congested
        dial, self._dial = self._dial, None
        if dial is not None and item is None:
            self.other.ended = True  # nobody said a word: there is nothing to dial for
            return True
        if dial is not None:
            dial()
        return False

    def _read_on(self, wanted: bool) -> None:
        transport = self.transport
        if transport is None or transport.is_closing() or transport.is_reading() is wanted:
            return
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _close_after_flush(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Relay:
    """All edges, and the ports that lead to them; lives in one loop.

    Args:
        targets: (who dials, who is dialled) -> where that one listens.
    """

    def __init__(self, targets: Mapping[Pair, Target]) -> None:
        self._targets = dict(targets)
        self._edges = {pair: Edge() for one, other in targets for pair in ((one, other), (other, one))}
        self._servers: list[asyncio.Server] = []
        self._dials: set[asyncio.Task[None]] = set()

    async def listen(self, listening: Mapping[Pair, socket.socket]) -> None:
        """Takes the connections to these ports: through which one node dials another."""
        loop = asyncio.get_running_loop()
        for pair, target in self._targets.items():

            def accepted(pair: Pair = pair, target: Target = target) -> Way:
                def dial() -> None:
                    task = loop.create_task(self._dial(there, back, target))
                    self._dials.add(task)
                    task.add_done_callback(self._dials.discard)

                there, back = Way(self._edges[pair], dial), Way(self._edges[pair[::-1]])
                there.other, back.other = back, there
                return there

            self._servers.append(await loop.create_server(accepted, sock=listening[pair]))

    def set(self, pair: Pair, mode: str, delay_s: float = 0.0) -> None:
        self._edges[pair].set(mode, delay_s)

    def reset(self, one: int, other: int) -> None:
        """All connections between the two end by RST."""
        for edge in (self._edges[one, other], self._edges[other, one]):
            for way in list(edge.ways):
                way.reset()

    def heal(self) -> None:
        for edge in self._edges.values():
            edge.set("pass", 0.0)

    async def close(self) -> None:
        """All connections end, and no port is left."""
        for server in self._servers:
            server.close()
        for task in self._dials:
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for one, other in self._targets:
            self.reset(one, other)
        await asyncio.sleep(0)  # sockets are closed in the loop's next turn

    async def _dial(self, there: Way, back: Way, target: Target) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: back, *target)
        except OSError:
            back.ended = True
            there.reset()
        else:
            if there.ended and not there._queue:
                there.reset()
            there.pump()  # what was said before somebody listened


def obey(relay: Relay, words: dict[str, Any]) -> None:
    if "reset" in words:
        relay.reset(*words["reset"])
        return
    for one, other in words["edges"]:
        relay.set((one, other), words["mode"], words["delay_s"])


async def serve(words: socket.socket, relay: Relay, listening: Mapping[Pair, socket.socket]) -> None:
    """Until nobody holds the other end of `words`."""
    await relay.listen(listening)
    reader, writer = await asyncio.open_connection(sock=words)
    while line := await reader.readline():
        obey(relay, json.loads(line))
        writer.write(b"\n")
    os._exit(0)  # all connections end with it


def main(words: int, edges: list[tuple[int, int, str, int, int]]) -> None:
    """As a program. `words` and the last of each edge are descriptors: of a stream, and of the port that listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the owner ends this one
    targets = {(one, other): (host, port) for one, other, host, port, _ in edges}
    listening = {(one, other): socket.socket(fileno=number) for one, other, _, _, number in edges}
    asyncio.run(serve(socket.socket(fileno=words), Relay(targets), listening))


if __name__ == "__main__":  # by its path: importing the package would take far longer than this does
    main(*json.loads(sys.argv[1]))
