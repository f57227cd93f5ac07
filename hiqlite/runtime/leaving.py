"""A leader's farewell: followers hold back what they would send, so that no write is lost in a socket that closes, and
one of them takes over.

The leader says that it leaves; each follower holds its writes for the next leader and answers over the link on which
they travel, so the leader knows that it has read all of them when the answer is there. Must not know what a write is.
Invariant: a farewell never takes longer than its limit; a peer that does not answer is left without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from hiqlite import observe
from hiqlite.errors import HiqliteError

from .group import Group

LEAVING, HELD = "leaving", "held"
FAREWELL_S = 1.5  # milliseconds, unless a peer hangs or the machine is very busy
log = observe.logger("runtime")


class Peers(Protocol):
    """What a farewell needs of the network."""

    def serve(self, name: str, handler: Callable[[int, Any], Any]) -> None: ...
    def connected(self, peer_id: int) -> bool: ...
    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any: ...


class Leaving:
    """Both sides of the farewell of one group."""

    def __init__(self, group: Group, peers: Peers) -> None:
        self._group = group
        self._peers = peers
        peers.serve(LEAVING, self._peer_leaves)
        peers.serve(HELD, self._peer_holds)

    async def say(self, peer_ids: Iterable[int]) -> None:
        """Of a leader that takes no writes any more; returns when every peer holds its own, or in time."""
        if self._group.leads:
            await asyncio.gather(*(self._say(peer_id) for peer_id in peer_ids if self._peers.connected(peer_id)))

    async def hand_over(self) -> None:
        """Of a leader whose own writes are done: somebody else leads when this returns, or in time."""
        group = self._group
        now_ns = group.clock.monotonic_ns()
        if not group.leads or not group.engine.transfer_leadership(0, now_ns):
            return
        group.pump()
        try:
            async with asyncio.timeout(group.settings.election_timeout_max_ms / 1000):
                while group.leads:
                    group.changed.clear()
                    await group.changed.wait()
        except TimeoutError:
            log.warning("nobody took over the leadership in time")

    async def _say(self, peer_id: int) -> None:
        try:
            await self._peers.request(peer_id, LEAVING, None, FAREWELL_S)
        except HiqliteError as error:
            log.debug("node %d is left without a farewell: %s", peer_id, error)

    async def _peer_leaves(self, peer_id: int, payload: Any) -> None:
        if not self._peers.connected(peer_id):
            return  # it has left already, and is greeted anew when it comes back
        self._group.proposals.forwarder.hold(peer_id)
        await self._peers.request(peer_id, HELD, None, FAREWELL_S)

    async def _peer_holds(self, peer_id: int, payload: Any) -> None:
        """Every write that the peer had sent before was read from the same link by now."""
