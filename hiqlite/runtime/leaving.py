"""A leader's farewell: followers hold back what they would send, so that no write is lost in a socket that closes, and
one of them takes over.

The leader says that it leaves; each follower holds its writes for the next leader and answers over the link on which
they travel, so the leader knows that it has read all of them when the answer is there. Must not know what a write is.
Invariant: a farewell never takes longer than its limit; a peer that does not answer is left without one, and no other
peer has to wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from hiqlite import observe
from hiqlite.errors import HiqliteError

from .group import Group

LEAVING, HELD = "leaving", "held"
FAREWELL_S = 0.6  # milliseconds, unless a peer hangs or the machine is very busy
LATE_S = 0.3  # so much longer for the others once a majority holds its writes: time for a busy one, lost on a hung one
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
        self._hold: set[int] = set()  # who answered the farewell
        peers.serve(LEAVING, self._peer_leaves)
        peers.serve(HELD, self._peer_holds)

    async def say(self, peer_ids: Iterable[int]) -> None:
        """Of a leader that takes no writes any more; returns when every peer holds its own, or in time.

        One that hangs keeps nobody waiting once the others hold theirs: what is in its links is sent again to the next
        leader, in the session that makes it happen once.
        """
        if not self._group.leads:
            return
        loop = asyncio.get_running_loop()
        self._hold = set()
        voters = {one.id for one in self._group.engine.membership.voters}
        said = {asyncio.ensure_future(self._say(one)) for one in peer_ids if self._peers.connected(one)}
        waiting, end_s = said, loop.time() + FAREWELL_S
        try:
            while waiting and (left_s := end_s - loop.time()) > 0:
                _, waiting = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if 2 * (1 + len(self._hold & voters)) > len(voters):
                    end_s = min(end_s, loop.time() + LATE_S)
        finally:
            for one in said:
                one.cancel()
            await asyncio.gather(*said, return_exceptions=True)

    async def hand_over(self) -> None:
        """Of a leader whose own writes are done: somebody else leads when this returns, or in time."""
        group = self._group
        now_ns = group.clock.monotonic_ns()
        if not group.leads or not any(group.engine.transfer_leadership(to, now_ns) for to in (self._successor(), 0)):
            return
        group.pump()
        try:
            async with asyncio.timeout(group.settings.election_timeout_max_ms / 1000):
                while group.leads:
                    group.changed.clear()
                    await group.changed.wait()
        except TimeoutError:
            log.warning("nobody took over the leadership in time")

    def _successor(self) -> int:
        """The voter with the longest log of those who answered just now; 0: of all, where those lag behind."""
        engine = self._group.engine
        known = [engine.progress(one.id) for one in engine.membership.voters if one.id in self._hold]
        able = [one for one in known if one is not None and one.match_index >= engine.commit_index]
        return max(able, key=lambda one: one.match_index).peer_id if able else 0

    async def _say(self, peer_id: int) -> None:
        try:
            await self._peers.request(peer_id, LEAVING, None, FAREWELL_S)
            self._hold.add(peer_id)
        except HiqliteError as error:
            log.debug("node %d is left without a farewell: %s", peer_id, error)

    async def _peer_leaves(self, peer_id: int, payload: Any) -> None:
        if not self._peers.connected(peer_id):
            return  # it has left already, and is greeted anew when it comes back
        self._group.proposals.forwarder.hold(peer_id)
        await self._peers.request(peer_id, HELD, None, FAREWELL_S)

    async def _peer_holds(self, peer_id: int, payload: Any) -> None:
        """Every write that the peer had sent before was read from the same link by now."""
