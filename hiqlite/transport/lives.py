"""One living node per id: who a peer is, by its handshakes, and who is not let in beside it.

Two processes with one id, each with data of its own, would take each other's links away for ever. So while links to a
node stand, another one that gives the same id is refused; the one that is there is asked for a sign of life, and where
none comes its links are closed, so that whoever takes the place of a dead machine comes in at its next try. One that
takes part comes in, whoever is there.
Must not know what a group is. Invariant: a node that was started anew is never refused for what it was before, once
its earlier links have ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from hiqlite import observe
from hiqlite.errors import HiqliteError, Overloaded

from .session import Claims

SIGN_OF_LIFE: Final = "alive"  # name of the request
log = observe.logger("transport")


async def gives_it(_peer_id: int, _payload: Any) -> bool:
    """The answer to that request."""
    return True


class Linked(Protocol):
    """A peer, as far as its links stand."""

    @property
    def has_links(self) -> bool: ...
    def drop(self) -> None: ...


class Lives:
    """Of the peers of one node.

    Args:
        peers: who may come in, by id.
        ask: asks a peer for a sign of life; raises HiqliteError when none comes.
        takes_part: see `Hooks`.
    """

    def __init__(
        self,
        peers: Mapping[int, Linked],
        ask: Callable[[int], Awaitable[object]],
        takes_part: Callable[[int, Mapping[int, int]], bool],
    ) -> None:
        self._peers = peers
        self._ask = ask
        self._takes_part = takes_part
        self._incarnations: dict[int, Mapping[int, int]] = {}  # by peer and group, of its newest handshake
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._told: dict[int, Mapping[int, int]] = {}  # who was refused last, by the id that it gave

    def of(self, peer_id: int, group: int) -> int:
        """0: not heard of, or not in that group."""
        return self._incarnations.get(peer_id, {}).get(group, 0)

    def proven(self, peer_id: int, incarnations: Mapping[int, int]) -> None:
        """A handshake has shown who the peer is."""
        self._incarnations[peer_id] = incarnations

    def met(self, peer_id: int, group: int, incarnation: int) -> None:
        """The peer itself said, over a link, who it is in a group since it made that."""
        self._incarnations[peer_id] = {**self._incarnations.get(peer_id, {}), group: incarnation}

    def admits(self, peer_id: int, claims: Claims) -> str:
        """Why a node that knows the secret is not let in (see `session.REASONS`); empty: it is."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return "unknown_node"
        if not peer.has_links or not self._is_another(peer_id, claims.incarnations):
            return ""
        if self._takes_part(peer_id, claims.incarnations):
            log.warning("node %d is back, and takes the place of another one that gave its id", peer_id)
            peer.drop()
            return ""
        if peer_id not in self._asked:
            work = self._look_after(peer_id, peer, claims.incarnations)
            task = asyncio.get_running_loop().create_task(work, name="hiqlite-sign-of-life")
            self._asked[peer_id] = task
            task.add_done_callback(lambda _task: self._asked.pop(peer_id, None))
        return "double"

    def _is_another(self, peer_id: int, incarnations: Mapping[int, int]) -> bool:
        """Than the one that was proven last. A node that was started anew is the same in the groups that it kept."""
        known = self._incarnations.get(peer_id, {})
        shared = known.keys() & incarnations.keys()
        return len(shared) > 0 and all(known[group] != incarnations[group] for group in shared)

    async def close(self) -> None:
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_after(self, peer_id: int, peer: Linked, double: Mapping[int, int]) -> None:
        try:
            await self._ask(peer_id)
        except Overloaded:
            return  # this node did not even ask, or the other one has much to do: it lives
        except HiqliteError as error:
            log.info("node %d gives no sign of life, its links are closed: %s", peer_id, error)
            peer.drop()
        else:
            if self._told.get(peer_id) != double:  # it will try again and again
                self._told[peer_id] = double
                log.warning("a second node gives the id %d: it is refused while the first one is connected", peer_id)
