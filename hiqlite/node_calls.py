"""What clients may ask of a node over its api port, by name.

Part of the composition root: it reads what comes from outside and hands it on. Must not know sockets. Invariant: what
cannot be read is a ProtocolError, and nothing happens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Protocol

from hiqlite.errors import ProtocolError
from hiqlite.node_equality import NodeEquality
from hiqlite.node_members import NodeMembers
from hiqlite.runtime.metrics import Metrics
from hiqlite.runtime.wishes import Wish

TIMEOUT_S_MAX = 86_400.0
Handler = Callable[[int, Any], Awaitable[Any]]


class Answering(Protocol):
    """What of a node can be asked for."""

    members: NodeMembers
    equality: NodeEquality

    def metrics(self) -> Metrics: ...
    async def transfer_leadership(self, to: int, group: str | None, timeout: float) -> None: ...


def calls_of(node: Answering) -> dict[str, Handler]:
    """Handlers by name; the first argument of each says who asks, which is nobody in particular."""

    async def metrics(_client: int, payload: Any) -> Any:
        return node.metrics().as_dict()

    async def members(_client: int, payload: Any) -> Any:
        return {**node.members.shown(), "members": [asdict(one) for one in node.members.members()]}

    async def manage(_client: int, payload: Any) -> None:
        match payload:
            case {"wish": wire, "addresses": [*named], "timeout": timeout}:
                wish, seconds = Wish.from_wire(wire), _seconds(timeout)
            case _:
                raise ProtocolError("a change of members that cannot be read")
        addresses = {}
        for one in named:
            match one:
                case [int(number), str(raft), str(api)]:
                    addresses[number] = raft, api
                case _:
                    raise ProtocolError("an address that cannot be read")
        await node.members.fulfil(wish, addresses, seconds)

    async def transfer(_client: int, payload: Any) -> None:
        match payload:
            case {"to": int(to), "group": str() | None as group, "timeout": timeout} if to >= 0:
                await node.transfer_leadership(to, group, _seconds(timeout))
            case _:
                raise ProtocolError("a transfer that cannot be read")

    async def equality(_client: int, payload: Any) -> Any:
        match payload:
            case {"timeout": timeout}:
                return await node.equality.compare_anywhere(_seconds(timeout))
        raise ProtocolError("a comparison that cannot be read")

    return {"metrics": metrics, "members": members, "manage": manage, "transfer": transfer, "equality": equality}


def _seconds(timeout: Any) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= TIMEOUT_S_MAX:
        raise ProtocolError(f"{timeout!r} is no number of seconds")
    return float(timeout)
