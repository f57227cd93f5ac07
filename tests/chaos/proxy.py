"""The wires between the nodes, as a process of its own: each dials each other node through a port of this proxy.

    python proxy.py '[[1, 2, 4711], ...]'      node 1 dials node 2, which listens on port 4711

It prints the ports, `{"1-2": 40001, ...}`, and obeys lines of JSON, each answered by `{}`:

    {"edge": [1, 2], "mode": MODE, "delay_ms": MS}     what becomes of bytes from node 1 to node 2, whoever dialled
    {"reset": [1, 2]}                                  all connections between the two end by RST

    pass      they go on, after the delay
    hold      they wait until the mode changes, and so does the end of a connection: a partition as TCP sees it
    lose      they are gone, and a connection that lost some ends when the mode changes
    refuse    connections end by RST, and so do new ones

Invariant: bytes of a connection stay in order, and none is left out of a connection that lives on in `pass`.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import socket
import sys
from collections import deque
from typing import Any, cast

import uvloop

HOST = "127.0.0.1"


class Edge:
    """One direction between two nodes."""

    def __init__(self) -> None:
        self.mode = "pass"
        self.delay_s = 0.0
        self.ways: set[Way] = set()

    def set(self, mode: str, delay_s: float) -> None:
        self.mode, self.delay_s = mode, delay_s
        for way in list(self.ways):
            way.mode_changed()


class Way(asyncio.Protocol):
    """One end of a connection, and what it says on its way to the other end."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._queue: deque[tuple[float, bytes | None]] = deque()  # (when due, bytes or the end)
        self._lost_some = False
        self.transport: asyncio.Transport | None = None
        self.ended = False
        self.other: Way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop does not derive its own from it
        self._edge.ways.add(self)
        if self._edge.mode == "refuse":
            self.reset()

    def data_received(self, data: bytes) -> None:
        if self._edge.mode == "lose":
            self._lost_some = True
            return
        self._add(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.ended = True
        self._add(None)

    def _add(self, item: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        self._queue.append((loop.time() + self._edge.delay_s, item))
        self.pump()

    def mode_changed(self) -> None:
        if self._edge.mode == "refuse" or (self._lost_some and self._edge.mode != "lose"):
            self.reset()
        else:
            self.pump()

    def pump(self) -> None:
        """Hands on what is due."""
        loop = asyncio.get_running_loop()
        if self._edge.mode in ("hold", "lose") or (self.other.transport is None and not self.other.ended):
            return  # or the other end is not dialled yet
        while self._queue and self._queue[0][0] <= loop.time():
            item = self._queue.popleft()[1]
            if item is None:
                self._edge.ways.discard(self)
                self.other.close_after_flush()
            elif self.other.transport is not None and not self.other.transport.is_closing():
                self.other.transport.write(item)
        if self._queue:
            loop.call_at(self._queue[0][0], self.pump)

    def close_after_flush(self) -> None:
        if self.transport is not None:
            self.transport.close()

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


class Wires:
    """All edges, and the ports that lead to them."""

    def __init__(self, links: list[tuple[int, int, int]]) -> None:
        self._links = links
        self._edges = {(one, other): Edge() for one, other, _ in links}
        self._dials: set[asyncio.Task[None]] = set()

    async def listen(self) -> dict[str, int]:
        loop = asyncio.get_running_loop()
        ports = {}
        for dialler, target, port in self._links:

            def accepted(dialler: int = dialler, target: int = target, port: int = port) -> Way:
                there, back = Way(self._edges[dialler, target]), Way(self._edges[target, dialler])
                there.other, back.other = back, there
                task = loop.create_task(self._dial(there, back, port))
                self._dials.add(task)
                task.add_done_callback(self._dials.discard)
                return there

            server = await loop.create_server(accepted, HOST, 0)
            ports[f"{dialler}-{target}"] = server.sockets[0].getsockname()[1]
        return ports

    async def _dial(self, there: Way, back: Way, port: int) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: back, HOST, port)
        except OSError:
            back.ended = True
            there.reset()
        else:
            if there.ended:
                there.reset()
            there.pump()  # what was said before somebody listened

    def obey(self, command: dict[str, Any]) -> None:
        if "edge" in command:
            one, other = command["edge"]
            self._edges[one, other].set(command["mode"], command.get("delay_ms", 0) / 1000)
        else:
            one, other = command["reset"]
            for edge in (self._edges[one, other], self._edges[other, one]):
                for way in list(edge.ways):
                    way.reset()


async def serve(links: list[tuple[int, int, int]]) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    wires = Wires(links)
    print(json.dumps(await wires.listen()), flush=True)
    while line := await lines.readline():
        wires.obey(json.loads(line))
        print("{}", flush=True)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with the test
    uvloop.run(serve(json.loads(sys.argv[1])))
