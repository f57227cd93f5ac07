"""A network in one process, for tests: the hooks and calls of `Network`, without sockets.

Knows messages as values; must not know frames or handshakes. Invariant: what two endpoints exchange arrives in the
order it was sent, in a later turn of the loop, and never over a pair that was cut meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hiqlite.engine.model import Message
from hiqlite.errors import PeerUnreachable, RequestTimeout, UsageError

from .hooks import Hooks

Handler = Callable[[int, Any], Awaitable[Any]]


class MemoryHub:
    """Connects the endpoints of one test; links can be cut and healed."""

    def __init__(self) -> None:
        self.endpoints: dict[int, MemoryTransport] = {}
        self._cut: set[frozenset[int]] = set()
        self._epoch = 0

    def endpoint(self, node_id: int) -> MemoryTransport:
        """A new endpoint; one of the same id replaces the older, as a restarted process does."""
        older = self.endpoints.get(node_id)
        assert older is None or not older.running, "close the endpoint before another takes its place"
        self.endpoints[node_id] = MemoryTransport(self, node_id)
        return self.endpoints[node_id]

    def cut(self, one: int, other: int) -> None:
        """Ends the links between two nodes, both ways; nothing of what is on its way arrives."""
        self._cut.add(frozenset((one, other)))
        self.settle(one, other)

    def heal(self, one: int, other: int) -> None:
        self._cut.discard(frozenset((one, other)))
        self.settle(one, other)

    def settle(self, one: int, other: int) -> None:
        """Makes both ends see the truth about their links."""
        first, second = self.endpoints.get(one), self.endpoints.get(other)
        if first is None or second is None:
            return
        up = first.running and second.running and frozenset((one, other)) not in self._cut
        for own, peer in ((first, second), (second, first)):
            if up and peer.node_id not in own.epochs:
                self._epoch += 1
                own.connect(peer.node_id, self._epoch)
            elif not up and peer.node_id in own.epochs:
                own.disconnect(peer.node_id, refused=not peer.running)


class MemoryTransport(Hooks):
    """One node's end of a `MemoryHub`; an `engine.ports.Transport`."""

    def __init__(self, hub: MemoryHub, node_id: int) -> None:
        super().__init__()
        self.node_id = node_id
        self.running = False
        self.epochs: dict[int, int] = {}
        self._hub = hub
        self._handlers: dict[str, Handler] = {}
        self._waiting: dict[asyncio.Future[Any], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reads_end = False

    async def start(self) -> None:
        self.running = True
        for peer_id in list(self._hub.endpoints):
            if peer_id != self.node_id:
                self._hub.settle(self.node_id, peer_id)

    async def close(self) -> None:
        self.running = False
        for peer_id in list(self._hub.endpoints):
            if peer_id != self.node_id:
                self._hub.settle(self.node_id, peer_id)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def connected(self, peer_id: int) -> bool:
        return peer_id in self.epochs

    def serve(self, name: str, handler: Handler) -> None:
        self._handlers[name] = handler

    def redial_beat(self, peer_id: int) -> None:
        """There are no beat connections in memory."""

    def send(self, peer_id: int, group: int, message: Message, body: bytes | None = None) -> bool:
        return self._deliver(peer_id, lambda peer: peer.on_message(group, message, body, self.node_id))

    def send_forward(self, peer_id: int, group: int, body: bytes) -> bool:
        return self._deliver(peer_id, lambda peer: peer.on_forward(group, self.node_id, body))

    def send_forward_reply(self, peer_id: int, group: int, body: bytes) -> bool:
        return self._deliver(peer_id, lambda peer: peer.on_forward_reply(group, self.node_id, body))

    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not self._deliver(peer_id, lambda peer: peer.answer(self.node_id, name, payload, answer)):
            raise PeerUnreachable(f"there is no link to node {peer_id}")
        self._waiting[answer] = peer_id
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise RequestTimeout(f"no answer to {name!r} within {timeout:g} s") from None
        finally:
            self._waiting.pop(answer, None)

    # ---- the hub's side

    def connect(self, peer_id: int, epoch: int) -> None:
        self.epochs[peer_id] = epoch
        greeting = dict(self._hub.endpoints[peer_id].greeting())
        asyncio.get_running_loop().call_soon(self._opened, peer_id, epoch, greeting)

    def disconnect(self, peer_id: int, *, refused: bool) -> None:
        del self.epochs[peer_id]
        for answer, asked in list(self._waiting.items()):
            if asked == peer_id and not answer.done():
                answer.set_exception(PeerUnreachable("the link ended"))
        if self.running:
            asyncio.get_running_loop().call_soon(self.on_unheard, peer_id)
            asyncio.get_running_loop().call_soon(self.on_lost, peer_id, False)
            if refused:
                asyncio.get_running_loop().call_soon(self.on_lost, peer_id, True)

    def answer(self, asker_id: int, name: str, payload: Any, answer: asyncio.Future[Any]) -> None:
        """Serves a request of another endpoint."""
        handler = self._handlers.get(name)
        if handler is None:
            if not answer.done():
                answer.set_exception(UsageError(f"nothing here answers {name!r}"))
            return
        task = asyncio.get_running_loop().create_task(self._serve(handler, asker_id, payload, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, handler: Handler, asker_id: int, payload: Any, answer: asyncio.Future[Any]) -> None:
        try:
            value = await handler(asker_id, payload)
        except Exception as error:  # it belongs to the asker, as over a real link
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(value)

    def _opened(self, peer_id: int, epoch: int, greeting: dict[str, Any]) -> None:
        if self.epochs.get(peer_id) == epoch:
            self.on_greeting(peer_id, greeting)
            self.on_connected(peer_id, epoch)

    def _deliver(self, peer_id: int, act: Callable[[MemoryTransport], None]) -> bool:
        epoch = self.epochs.get(peer_id)
        peer = self._hub.endpoints.get(peer_id)
        if epoch is None or peer is None:
            return False
        asyncio.get_running_loop().call_soon(self._arrive, peer, epoch, act)
        return True

    def _arrive(self, peer: MemoryTransport, epoch: int, act: Callable[[MemoryTransport], None]) -> None:
        if self.epochs.get(peer.node_id) != epoch or not peer.running:
            return
        act(peer)
        peer.end_read()

    def end_read(self) -> None:
        """One read event per turn of the loop, however many messages it brought."""
        if not self._reads_end:
            self._reads_end = True
            asyncio.get_running_loop().call_soon(self._read_ended)

    def _read_ended(self) -> None:
        self._reads_end = False
        if self.running:
            self.on_read_end()
