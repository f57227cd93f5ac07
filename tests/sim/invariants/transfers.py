"""Leadership is handed to one whose log is whole, and only who was told may pass over stickiness.

Raft thesis 3.10; consensus.md rule 10.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import TimeoutNow, VoteRequest

from .base import Invariant, of

MS = 1_000_000


class Transfers(Invariant):
    name = "transfers"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.told: set[tuple[int, int]] = set()  # (node, term of the leader that told it)
        self.since: dict[int, tuple[int, int]] = {}  # leader -> (target, since when)
        self.limit_ns = (cluster.profile.settings.election_timeout_max_ms + 5) * MS * 1000 // min(cluster.profile.rates)

    @of(TimeoutNow, VoteRequest)
    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if type(message) is TimeoutNow:
            if not node.raft.leads and node.led_term != message.term:
                self.fail(f"node {node.id} hands over term {message.term}, which it never led")
            peer = self.cluster.nodes[peer_id]
            if node.raft.transfer_id == peer_id and not self.whole(node, peer):
                self.fail(f"node {node.id} hands over to node {peer_id}, whose log is shorter")
        elif message.transfer and (node.id, message.term - 1) not in self.told:
            self.fail(f"node {node.id} says that it was told to campaign in term {message.term}")

    def whole(self, node: Any, peer: Any) -> bool:
        """Who lost its disk is somebody else; that its successor comes to the ears of the leader takes a while."""
        known = node.raft.progress(peer.id)
        if known is None or known.identity != peer.identity:
            return True
        return peer.identity in self.cluster.lost or peer.disk.holds(node.raft.last_index, node.raft.last_term)

    @of(TimeoutNow)
    def receiving(self, node: Any, message: Any) -> None:
        self.told.add((node.id, message.term))

    def created(self, node: Any, first: int, count: int) -> None:
        if node.raft.transfer_id and node.values[first] and node.values[first] not in self.cluster.memberships:
            self.fail(f"node {node.id} takes proposals while it hands over to node {node.raft.transfer_id}")

    def became_leader(self, node: Any) -> None:
        self.since.pop(node.id, None)

    def led(self, node: Any) -> None:
        """It ends within the upper election timeout."""
        target = node.state.transfer_id
        if not target:
            if self.since:
                self.since.pop(node.id, None)
            return
        since = self.since.get(node.id)
        if since is None or since[0] != target or node.state.disk_full:  # a full disk tries again and again
            self.since[node.id] = (target, self.world.now_ns)
        elif self.world.now_ns - since[1] > self.limit_ns and node.now() <= node.state.now_ns:
            self.late(node, since[1])

    def late(self, node: Any, since_ns: int) -> None:
        if node.woke_ns <= since_ns:
            self.fail(f"node {node.id} hands over since {(self.world.now_ns - since_ns) / 1e6:.0f} ms")
