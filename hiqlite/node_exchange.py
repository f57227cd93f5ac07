"""Images between nodes: what one group sends and takes, once its engine turns.

Part of the composition root: it connects a group, the network's bulk links and the files of this node. Invariant: an
offer is refused until the group can judge it, and nothing of an image is under way once `close` has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hiqlite.clock import Clock
from hiqlite.engine.model import Membership, SendImage
from hiqlite.errors import ProtocolError, SnapshotCorruption, UsageError
from hiqlite.node_images import NodeImages
from hiqlite.node_storage import Storage
from hiqlite.runtime.group import Group
from hiqlite.runtime.installing import GroupInstaller
from hiqlite.runtime.membership_record import decode_membership, encode_membership
from hiqlite.runtime.receiving import ImageReceiver, Reception
from hiqlite.runtime.snapshots import ImageFile, ImageSender
from hiqlite.transport.network import Network


class ImageExchange:
    """Both directions of one group's images."""

    def __init__(
        self,
        number: int,
        group: Group,
        storage: Storage,
        network: Network,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._number = number
        self._group = group
        self._storage = storage
        self._network = network
        self._images = NodeImages(storage)
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
        network.bulk.on_offer = self._offered

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
        self._images.close()

    # -- the sender's links

    async def offer_image(
        self, peer_id: int, term: int, image: ImageFile, heard: Callable[[int], None]
    ) -> tuple[int, int]:
        return await self._network.offer_image(peer_id, self._number, term, image, heard)

    def _send(self, order: SendImage) -> None:
        self._sender.send(order.peer_id, order.resume_index, self._group.engine.term)

    # -- what the installer needs of the storage

    async def place(self, image: Any, membership: Membership) -> Path:
        path = await self._storage.place(image, membership)
        self._group.configurations.recorded(membership)
        return path

    async def open_placed(self, placed: Path) -> None:
        await self._storage.open_placed(placed)

    async def _offered(self, peer_id: int, group: int, term: int, image_id: bytes, manifest: bytes) -> Reception:
        if group != self._number:
            raise UsageError(f"there is no group {group} on this node")
        return await self._receiver.offered(peer_id, term, manifest)


def membership_of(manifest: bytes) -> Membership:
    """Who was in force at an image's index. Raises SnapshotCorruption."""
    try:
        return decode_membership(manifest)
    except ProtocolError as error:
        raise SnapshotCorruption(f"the image's membership cannot be read: {error}") from error
