"""The network in memory behaves as the real one does, as far as its users can see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conftest import until

from hiqlite.engine.model import Identity, ProbeRequest
from hiqlite.errors import PeerUnreachable, RequestTimeout, UsageError
from hiqlite.transport.memory import MemoryHub, MemoryTransport

PROBE = ProbeRequest(1, Identity(1, 1), 1)


def watched(hub: MemoryHub, node_id: int) -> tuple[MemoryTransport, list[Any]]:
    transport, told = hub.endpoint(node_id), []
    transport.greeting = lambda: {"id": node_id}
    transport.on_message = lambda *what: told.append(("message", *what))
    transport.on_read_end = lambda: told.append(("read_end",))
    transport.on_connected = lambda *what: told.append(("connected", *what))
    transport.on_lost = lambda *what: told.append(("lost", *what))
    transport.on_greeting = lambda *what: told.append(("greeting", *what))
    transport.on_forward = lambda *what: told.append(("forward", *what))
    transport.on_forward_reply = lambda *what: told.append(("reply", *what))
    return transport, told


async def test_messages_arrive_later_and_in_order() -> None:
    """Nothing happens inside `send`; one read event carries what one turn brought."""
    hub = MemoryHub()
    (one, told_one), (two, told_two) = watched(hub, 1), watched(hub, 2)
    await one.start()
    await two.start()
    await until(lambda: one.connected(2) and told_one and told_two)
    assert [event[0] for event in told_one] == ["greeting", "connected"]
    told_two.clear()
    assert one.send(2, 0, PROBE) and one.send_forward(2, 1, b"f") and one.send(2, 1, PROBE, b"body")
    assert told_two == []
    await until(lambda: ("read_end",) in told_two)
    messages = [("message", 0, PROBE, None, 1), ("forward", 1, 1, b"f"), ("message", 1, PROBE, b"body", 1)]
    expected = [*messages, ("read_end",)]
    assert told_two == expected
    assert not one.send(9, 0, PROBE)
    await one.close()
    await two.close()


async def test_a_cut_pair_loses_what_was_on_its_way() -> None:
    """Both ends are told, requests fail, and healing begins a new epoch."""
    hub = MemoryHub()
    (one, told_one), (two, told_two) = watched(hub, 1), watched(hub, 2)
    await one.start()
    await two.start()
    await until(lambda: len(told_one) == 2)
    told_two.clear()
    assert one.send(2, 0, PROBE)
    hub.cut(1, 2)
    await until(lambda: ("lost", 2, False) in told_one and ("lost", 1, False) in told_two)
    assert [event for event in told_two if event[0] == "message"] == []
    assert not one.send(2, 0, PROBE)
    with pytest.raises(PeerUnreachable):
        await one.request(2, "x", None, 1)
    hub.heal(1, 2)
    await until(lambda: told_one[-1][0] == "connected")
    epochs = [event[2] for event in told_one if event[0] == "connected"]
    assert epochs == sorted(set(epochs)) and len(epochs) == 2
    await two.close()
    await until(lambda: told_one[-1] == ("lost", 2, True))
    await one.close()


async def test_requests_are_answered_or_fail_by_name() -> None:
    """As over sockets: answer, error, unknown name, deadline, lost link."""
    hub = MemoryHub()
    (one, told_one), (two, _told) = watched(hub, 1), watched(hub, 2)

    async def echo(peer_id: int, payload: Any) -> Any:
        return [peer_id, payload]

    async def never(peer_id: int, payload: Any) -> Any:
        await asyncio.Event().wait()

    two.serve("echo", echo)
    two.serve("never", never)
    await one.start()
    await two.start()
    await until(lambda: told_one)
    assert await one.request(2, "echo", 5, 1) == [1, 5]
    with pytest.raises(UsageError):
        await one.request(2, "unknown", 5, 1)
    with pytest.raises(RequestTimeout):
        await one.request(2, "never", 5, 0.01)
    waiting = asyncio.ensure_future(one.request(2, "never", 5, 30))
    await asyncio.sleep(0)
    hub.cut(1, 2)
    with pytest.raises(PeerUnreachable):
        await waiting
    await one.close()
    await two.close()
