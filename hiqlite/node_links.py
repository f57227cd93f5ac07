"""The network as one group of a node sees it: everything under the group's number or name.

Part of the composition root. Invariant: what comes for a group that this node does not host, or whose runtime is not
there yet, has no effect: a message is dropped, a request or an image is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from hiqlite.engine.model import Identity, Message
from hiqlite.errors import ClusterError, PeerUnreachable
from hiqlite.logstore.folder import GROUP_NAMES
from hiqlite.runtime.receiving import Reception
from hiqlite.runtime.snapshots import ImageFile
from hiqlite.transport.network import Network
from hiqlite.transport.rpc import Handler

OnOffer = Callable[[int, int, bytes], Awaitable[Reception]]  # peer id, term, manifest


class GroupLinks:
    """One group's side of the network; all calls say what they say to nobody when there is no network."""

    def __init__(self, network: Network | None, group: int) -> None:
        self._network = network
        self._group = group
        self.on_offer: OnOffer = takes_none
        self._handlers: dict[str, Handler] = {}

    def send(self, peer_id: int, message: Message, body: bytes | None) -> bool:
        return self._network is not None and self._network.send(peer_id, self._group, message, body)

    def send_forward(self, peer_id: int, body: bytes) -> bool:
        return self._network is not None and self._network.send_forward(peer_id, self._group, body)

    def send_forward_reply(self, peer_id: int, body: bytes) -> bool:
        return self._network is not None and self._network.send_forward_reply(peer_id, self._group, body)

    def answers(self, peer_id: int) -> bool:
        """Whether there is a link for answers to that peer."""
        return self._network is not None and self._network.answers(peer_id)

    def hang_up(self, peer_id: int) -> None:
        """Ends that link: the peer does not read what it asked for."""
        if self._network is not None:
            self._network.hang_up(peer_id)

    def connected(self, peer_id: int) -> bool:
        return self._network is not None and self._network.connected(peer_id)

    def reached(self) -> list[int]:
        """Who can be asked something now."""
        return [] if self._network is None else list(self._network.epochs())

    def troubles(self) -> str:
        """Which peers are not reached, and why, for people; empty: none."""
        known = {} if self._network is None else self._network.troubles()
        return "; ".join(f"node {number}: {why}" for number, why in sorted(known.items()))

    def incarnation_of(self, peer_id: int) -> int:
        """Who that node is in this group by its newest handshake; 0: unknown."""
        return 0 if self._network is None else self._network.incarnation_of(peer_id, self._group)

    def met(self, identity: Identity) -> None:
        """The node itself said who it is in this group."""
        if self._network is not None:
            self._network.met(identity.id, self._group, identity.incarnation)

    def serve(self, name: str, handler: Handler) -> None:
        """`handler` answers from now on; a group that begins anew takes the place of the one before."""

        async def answer(peer_id: int, payload: Any) -> Any:
            return await self._handlers[name](peer_id, payload)

        if self._network is not None and name not in self._handlers:
            self._network.serve(self._named(name), answer)
        self._handlers[name] = handler

    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any:
        if self._network is None:
            raise PeerUnreachable("this node has no peers")
        return await self._network.request(peer_id, self._named(name), payload, timeout)

    async def offer_image(
        self, peer_id: int, term: int, image: ImageFile, heard: Callable[[int], None]
    ) -> tuple[int, int]:
        if self._network is None:
            raise PeerUnreachable("this node has no peers")
        return await self._network.offer_image(peer_id, self._group, term, image, heard)

    def _named(self, name: str) -> str:
        return f"{GROUP_NAMES[self._group]}/{name}"


async def takes_none(peer_id: int, term: int, manifest: bytes) -> Reception:
    raise ClusterError(f"an image of node {peer_id} is not taken: this group is not there yet")
