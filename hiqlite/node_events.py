"""What a node's network tells, handed on to the group that it is about, or to each of them.

Part of the composition root. Must not know what any of it means. Invariant: after a read event exactly those groups
turn that it told something.
"""

from __future__ import annotations

from collections.abc import Mapping

from hiqlite.engine.model import Identity, Message
from hiqlite.errors import UsageError
from hiqlite.node_group import NodeGroup
from hiqlite.node_links import GroupLinks
from hiqlite.node_members import NodeMembers
from hiqlite.node_watch import NodeWatch
from hiqlite.runtime.receiving import Reception
from hiqlite.transport.network import Network


def hand_on(
    network: Network,
    groups: dict[int, NodeGroup],
    links: dict[int, GroupLinks],
    members: NodeMembers,
    watch: NodeWatch,
) -> None:
    """Sets the hooks of `network`. A group that begins anew takes its place in `groups` itself."""
    heard: list[NodeGroup] = []  # of whom this read event told something: only they have to turn

    def of(number: int) -> NodeGroup | None:
        group = groups.get(number)
        if group is not None and group not in heard:
            heard.append(group)
        return group

    def message(number: int, message: Message, body: bytes | None, sender: int) -> None:
        if (group := of(number)) is not None:
            group.receive(message, body)

    def read_end() -> None:
        for group in heard:
            group.group.pump()
        heard.clear()

    def connected(peer_id: int, epoch: int) -> None:
        for group in groups.values():
            group.connected(peer_id, epoch)
        members.connected(peer_id)
        watch.watch.connected(peer_id)

    def lost(peer_id: int, refused: bool) -> None:
        for group in groups.values():
            group.lost(peer_id, refused)

    def unheard(peer_id: int) -> None:
        for group in groups.values():
            group.remote.lost(peer_id)

    def forward(number: int, peer_id: int, body: bytes) -> None:
        if (group := of(number)) is not None:
            group.remote.received(peer_id, body)

    def forward_reply(number: int, peer_id: int, body: bytes) -> None:
        if (group := of(number)) is not None:
            group.group.forward_replied(peer_id, body)

    async def offer(peer_id: int, number: int, term: int, image_id: bytes, manifest: bytes) -> Reception:
        if number not in links:
            raise UsageError(f"there is no group {number} on this node")
        return await links[number].on_offer(peer_id, term, manifest)

    def takes_part(peer_id: int, incarnations: Mapping[int, int]) -> bool:
        return any(group.has_voter(Identity(peer_id, incarnations.get(number, 0))) for number, group in groups.items())

    network.takes_part = takes_part
    network.on_message, network.on_read_end = message, read_end
    network.on_connected, network.on_lost = connected, lost
    network.on_unheard = unheard
    network.on_forward, network.on_forward_reply = forward, forward_reply
    network.bulk.on_offer = offer
