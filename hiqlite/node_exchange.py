"""Images between nodes: what one group sends and takes, once its engine turns.

Part of the composition root: it connects a group, the network's bulk links and the files of this node. Invariant: an
offer is refused until the group can judge it, and nothing of an image is under way once `close` has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from hiqlite.clock import Clock
from hiqlite.engine.model import Membership, SendImage
from hiqlite.errors import ProtocolError, SnapshotCorruption
from hiqlite.node_links import GroupLinks
from hiqlite.runtime.group import Group
from hiqlite.runtime.installing import GroupInstaller
from hiqlite.runtime.membership_record import decode_membership, encode_membership
from hiqlite.runtime.receiving import ImageReceiver, IncomingStore, Reception
from hiqlite.runtime.snapshots import ImageFile, ImageSender, OutgoingStore


class GroupImages(OutgoingStore, IncomingStore, Protocol):
    """The images of one group, and how one of them takes its state's place."""

    async def place(self, image: Any, membership: Membership) -> Any: ...
    async def open_placed(self, placed: Any) -> None: ...
    def close_images(self) -> None:
        """Ends what is being made; nothing else uses them any more."""
        ...


class ImageExchange:
    """Both directions of one group's images."""

    def __init__(
        self,
        group: Group,
        images: GroupImages,
        links: GroupLinks,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._group = group
        self._links = links
        self._images = images
        engine = group.engine
        self._sender = ImageSender(
            self._images,
            self,
            engine,
            membership_at=lambda index: encode_membership(engine.membership_at(index)),
            changed=group.pump,
            clock=clock,
            loop=loop,
        )
        installer = GroupInstaller(
            group, engine, self, needs=engine.needs_image, membership_of=membership_of, clock=clock
        )
        self._receiver = ImageReceiver(self._images, installer)
        group.orders.send_image = self._send
        group.purger.pinned_index = lambda: self._sender.pinned_index
        links.on_offer = self._offered

    def role_changed(self) -> None:
        """Who leads has changed: a node that leads no longer sends nothing, and takes nothing of an old leader."""
        engine = self._group.engine
        if not engine.leads:
            self._sender.stop()
        self._receiver.leader_changed(engine.leader_id, engine.term)

    async def close(self) -> None:
        """After the network, so that no offer comes any more; before the storage."""
        await self._receiver.close()
        await self._sender.close()
        self._images.close_images()

    # -- the sender's links

    async def offer_image(
        self, peer_id: int, term: int, image: ImageFile, heard: Callable[[int], None]
    ) -> tuple[int, int]:
        return await self._links.offer_image(peer_id, term, image, heard)

    def _send(self, order: SendImage) -> None:
        self._sender.send(order.peer_id, order.resume_index, self._group.engine.term)

    # -- what the installer needs of the storage

    async def place(self, image: Any, membership: Membership) -> Any:
        placed = await self._images.place(image, membership)
        self._group.configurations.recorded(membership)
        return placed

    async def open_placed(self, placed: Any) -> None:
        await self._images.open_placed(placed)

    async def _offered(self, peer_id: int, term: int, manifest: bytes) -> Reception:
        return await self._receiver.offered(peer_id, term, manifest)


def membership_of(manifest: bytes) -> Membership:
    """Who was in force at an image's index. Raises SnapshotCorruption."""
    try:
        return decode_membership(manifest)
    except ProtocolError as error:
        raise SnapshotCorruption(f"the image's membership cannot be read: {error}") from error
