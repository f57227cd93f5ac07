"""What the transport's tests share: both event loops, networks on free ports, waiting for a condition."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from hiqlite.transport.network import Network
from hiqlite.transport.settings import NetworkSettings

SECRET = "a secret of the raft port"
DEADLINE_S = 20.0

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of loop; whatever the loop itself complains about fails the test."""

    def go(work: Coroutine[Any, Any, None]) -> None:
        complaints: list[dict[str, Any]] = []
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            runner.run(work)
            gc.collect()  # a future whose error nobody took complains only when it is collected
        assert complaints == []

    return go


async def until(condition: Callable[[], object]) -> None:
    """Waits for a condition, a turn of the loop at a time, with a deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < deadline, "the condition did not come true"
        turn = loop.create_future()
        loop.call_later(0.001, turn.set_result, None)
        await turn


class Node:
    """A network whose hooks write down what they are told."""

    def __init__(self, node_id: int, **options: Any) -> None:
        options.setdefault("listen", ("127.0.0.1", 0))
        options.setdefault("addresses", {})
        options.setdefault("secret", SECRET)
        self.network = Network(node_id, **options)
        self.messages: list[tuple[int, Any, bytes | None, int]] = []
        self.events: list[tuple[Any, ...]] = []
        self.forwards: list[tuple[str, int, int, bytes]] = []
        self.unheard: list[int] = []
        self.reads = 0
        self.network.on_message = lambda *told: self.messages.append(told)
        self.network.on_read_end = self._read_end
        self.network.on_connected = lambda peer, epoch: self.events.append(("connected", peer, epoch))
        self.network.on_lost = lambda peer, refused: self.events.append(("lost", peer, refused))
        self.network.on_unheard = self.unheard.append
        self.network.on_greeting = lambda peer, greeting: self.events.append(("greeting", peer, greeting))
        self.network.on_forward = lambda group, peer, body: self.forwards.append(("forward", group, peer, body))
        self.network.on_forward_reply = lambda group, peer, body: self.forwards.append(("reply", group, peer, body))

    def _read_end(self) -> None:
        self.reads += 1

    def epoch(self, peer_id: int) -> int:
        return next(event[2] for event in reversed(self.events) if event[:2] == ("connected", peer_id))


async def join(*nodes: Node) -> None:
    """Starts the nodes on free ports, tells all of them all addresses, and waits until they are connected."""
    for node in nodes:
        await node.network.start()
    for node in nodes:
        for peer in nodes:
            if peer is not node:
                node.network.set_peer(peer.network.node_id, [("127.0.0.1", peer.network.listen_port)])
    await until(lambda: all(n.network.connected(p.network.node_id) for n in nodes for p in nodes if p is not n))


@contextlib.asynccontextmanager
async def joined(*nodes: Node) -> AsyncIterator[None]:
    try:
        await join(*nodes)
        yield
    finally:
        for node in nodes:
            await node.network.close()


def quick(**changes: Any) -> NetworkSettings:
    """Limits that tests can reach."""
    return NetworkSettings(**changes)
