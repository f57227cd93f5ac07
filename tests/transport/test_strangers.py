"""Nodes with one secret and different clusters: they refuse each other, and each is told who the other one was."""

from __future__ import annotations

import pytest
from conftest import Node, Run, joined, until

from hiqlite.engine.model import Identity, ProbeRequest

OWN, OTHER = b"c" * 32, b"o" * 32


class Told(Node):
    """Writes down the strangers that it met."""

    def __init__(self, node_id: int, cluster_id: bytes) -> None:
        super().__init__(node_id, cluster_id=cluster_id)
        self.strangers: set[tuple[int, bytes]] = set()
        self.network.on_stranger = lambda peer_id, cluster_id: self.strangers.add((peer_id, cluster_id))


async def introduce(one: Told, two: Told) -> None:
    for node in (one, two):
        await node.network.start()
    for node, peer in ((one, two), (two, one)):
        node.network.set_peer(peer.network.node_id, [("127.0.0.1", peer.network.listen_port)])


def test_both_ends_are_told_of_a_node_of_another_cluster(run: Run) -> None:
    """Who was dialled has it proven, which cluster that is; who dialled is only told so. No link ever comes of it."""

    async def work() -> None:
        one, two = Told(1, OWN), Told(2, OTHER)
        try:
            await introduce(one, two)
            await until(lambda: len(one.strangers) == len(two.strangers) == 2)
            assert one.strangers == {(2, b""), (2, OTHER)} and two.strangers == {(1, b""), (1, OWN)}
            assert [event for event in one.events + two.events if event[0] != "lost"] == []
            assert not one.network.send(2, 0, ProbeRequest(1, Identity(1, 1), 1))
        finally:
            for node in (one, two):
                await node.network.close()

    run(work())


@pytest.mark.parametrize("other", [OWN, b""])
def test_a_node_of_this_cluster_or_of_none_is_no_stranger(run: Run, other: bytes) -> None:
    """One that has not formed yet may become a member."""

    async def work() -> None:
        one, two = Told(1, OWN), Told(2, other)
        async with joined(one, two):
            assert one.strangers == two.strangers == set()

    run(work())
