"""The contract of ports.Transport and the hooks beside it, over every implementation: sockets and memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hiqlite._accel.records import encode_record
from hiqlite.engine.model import AppendReply, AppendRequest, Identity, ProbeReply, ProbeRequest, TermRun, VoteRequest
from hiqlite.errors import NotLeader, PeerUnreachable, RequestTimeout, UsageError
from hiqlite.transport.memory import MemoryHub, MemoryTransport
from hiqlite.transport.network import Network

DEADLINE_S = 20.0
SECRET = "a secret of the raft port"
A, B = Identity(1, 100), Identity(2, 200)


class End:
    """One end, and everything that it was told."""

    def __init__(self, transport: Network | MemoryTransport) -> None:
        self.transport = transport
        self.messages: list[tuple[int, Any, bytes | None, int]] = []
        self.events: list[tuple[Any, ...]] = []
        self.forwards: list[tuple[str, int, int, bytes]] = []
        self.greetings: list[tuple[int, Any]] = []
        self.read_ends = 0
        transport.greeting = lambda: {"id": transport.node_id}
        transport.on_message = lambda *told: self.messages.append(told)
        transport.on_read_end = self._read_end
        transport.on_connected = lambda *told: self.events.append(("connected", *told))
        transport.on_lost = lambda *told: self.events.append(("lost", *told))
        transport.on_greeting = lambda *told: self.greetings.append(told)
        transport.on_forward = lambda group, peer, body: self.forwards.append(("forward", group, peer, bytes(body)))
        transport.on_forward_reply = lambda group, peer, body: self.forwards.append(("reply", group, peer, bytes(body)))

    def _read_end(self) -> None:
        self.read_ends += 1

    @property
    def epochs(self) -> list[int]:
        return [event[2] for event in self.events if event[0] == "connected"]


class Kind:
    """Makes ends 1 and 2 of one implementation and connects them."""

    ends: list[End]

    async def open(self, node_id: int) -> End:
        raise NotImplementedError


class OverSockets(Kind):
    def __init__(self) -> None:
        self.ends = []
        self.ports: dict[int, int] = {}
        for node_id in (1, 2):
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.ports[node_id] = free.getsockname()[1]

    async def open(self, node_id: int) -> End:
        addresses = {peer: [("127.0.0.1", port)] for peer, port in self.ports.items()}
        listen = ("127.0.0.1", self.ports[node_id])
        end = End(Network(node_id, listen=listen, addresses=addresses, secret=SECRET))
        self.ends.append(end)
        await end.transport.start()
        return end


class InMemory(Kind):
    def __init__(self) -> None:
        self.ends = []
        self.hub = MemoryHub()

    async def open(self, node_id: int) -> End:
        end = End(self.hub.endpoint(node_id))
        self.ends.append(end)
        await end.transport.start()
        return end


async def until(condition: Callable[[], object]) -> None:
    async def wait() -> None:
        while not condition():
            turn = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.001, turn.set_result, None)
            await turn

    await asyncio.wait_for(wait(), DEADLINE_S)


@asynccontextmanager
async def connected(kind: Kind) -> AsyncIterator[tuple[End, End]]:
    one, two = await kind.open(1), await kind.open(2)
    try:
        await until(lambda: one.epochs and two.epochs)
        yield one, two
    finally:
        for end in kind.ends:
            await end.transport.close()


@pytest.fixture(params=[OverSockets, InMemory])
def kind(request: pytest.FixtureRequest) -> Kind:
    made: Kind = request.param()
    return made


async def test_messages_arrive_whole_later_and_in_order(kind: Kind) -> None:
    """Group, body and sender with them; nothing happens inside `send`; a read event ends what came together."""
    async with connected(kind) as (one, two):
        body = b"".join(encode_record(1, 1, b"payload", 3, index) for index in (11, 12))
        append = AppendRequest(3, A, 10, 2, 9, 12, (TermRun(3, 11, 12),), one.epochs[-1], 1)
        reply = AppendReply(3, B, True, 12, 0, 0, one.epochs[-1], 1)
        assert one.transport.send(2, 1, append, body)
        probes = [ProbeRequest(3, A, token) for token in range(1, 50)]
        assert all(one.transport.send(2, 0, probe) for probe in probes)
        assert one.transport.send(2, 0, VoteRequest(4, A, False, 12, 3))
        assert two.messages == []
        await until(lambda: len(two.messages) == 51)
        assert [told for told in two.messages if told[0] == 1] == [(1, append, body, 1)]
        others = [told for told in two.messages if told[0] == 0]
        assert others == [*((0, probe, None, 1) for probe in probes), (0, VoteRequest(4, A, False, 12, 3), None, 1)]
        await until(lambda: two.read_ends > 0)
        assert two.transport.send(1, 1, reply) and two.transport.send(1, 0, ProbeReply(3, B, 7))
        await until(lambda: len(one.messages) == 2)
        assert sorted(one.messages, key=repr) == sorted(
            [(1, reply, None, 2), (0, ProbeReply(3, B, 7), None, 2)], key=repr
        )


async def test_forwarded_writes_and_their_answers_are_bytes_with_a_sender(kind: Kind) -> None:
    """Each in the order it was sent."""
    async with connected(kind) as (one, two):
        item = b"\0" * 16 + encode_record(1, 1, b"payload", 0, 0)
        bodies = [item * count for count in (1, 3, 2)]
        assert all(one.transport.send_forward(2, 1, body) for body in bodies)
        await until(lambda: len(two.forwards) == 3)
        assert two.forwards == [("forward", 1, 1, body) for body in bodies]
        answer = b"\1\0\0\0\0\0\0\0" + b"\2\0\0\0\0\0\0\0" + b"\0" * 8
        assert two.transport.send_forward_reply(1, 1, answer)
        await until(lambda: one.forwards)
        assert one.forwards == [("reply", 1, 2, answer)]


async def test_what_cannot_be_sent_is_refused_and_forgotten(kind: Kind) -> None:
    """A peer that nobody knows: no exception, no later surprise; a request fails by name."""
    async with connected(kind) as (one, two):
        assert not one.transport.send(9, 0, ProbeRequest(3, A, 1))
        assert not one.transport.send_forward(9, 0, b"")
        assert not one.transport.send_forward_reply(9, 0, b"")
        with pytest.raises(PeerUnreachable):
            await one.transport.request(9, "echo", None, 1)
        assert one.transport.connected(2) and not one.transport.connected(9)
        assert two.messages == []


async def test_requests_end_with_an_answer_or_an_error_of_their_own(kind: Kind) -> None:
    """An answer, the error of the handler as itself, an unknown name, a deadline, a lost peer."""
    async with connected(kind) as (one, two):

        async def echo(peer_id: int, payload: Any) -> Any:
            return [peer_id, payload]

        async def fails(peer_id: int, payload: Any) -> Any:
            raise NotLeader("not here")

        async def never(peer_id: int, payload: Any) -> Any:
            await asyncio.Event().wait()

        for name, handler in (("echo", echo), ("fails", fails), ("never", never)):
            two.transport.serve(name, handler)
        answers = await asyncio.gather(*(one.transport.request(2, "echo", number, 10) for number in range(20)))
        assert answers == [[1, number] for number in range(20)]
        with pytest.raises(NotLeader, match="not here"):
            await one.transport.request(2, "fails", None, 10)
        with pytest.raises(UsageError):
            await one.transport.request(2, "unknown", None, 10)
        with pytest.raises(RequestTimeout):
            await one.transport.request(2, "never", None, 0.01)
        waiting = asyncio.ensure_future(one.transport.request(2, "never", None, 60))
        await asyncio.sleep(0)
        await two.transport.close()
        with pytest.raises(PeerUnreachable):
            await waiting


async def test_a_lost_peer_is_told_and_comes_back_under_a_new_epoch(kind: Kind) -> None:
    """First that the links ended, then that it refuses; after its restart a greeting and a higher epoch."""
    async with connected(kind) as (one, two):
        before = one.epochs[-1]
        await until(lambda: one.greetings)
        assert one.greetings[-1] == (2, {"id": 2}) and two.greetings[-1] == (1, {"id": 1})
        one.events.clear()  # a dial before the peer listened was refused too
        await two.transport.close()
        await until(lambda: ("lost", 2, True) in one.events)
        assert one.events[0] == ("lost", 2, False)
        assert not one.transport.connected(2) and not one.transport.send(2, 0, ProbeRequest(3, A, 1))
        again = await kind.open(2)
        await until(lambda: one.epochs and again.epochs)
        assert one.epochs[0] > before
        assert one.transport.send(2, 0, ProbeRequest(3, A, 2))
        await until(lambda: again.messages)
        assert again.messages == [(0, ProbeRequest(3, A, 2), None, 1)] and two.messages == []
