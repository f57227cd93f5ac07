"""A leader that no majority can answer stops within one upper election timeout (rule 17)."""

from __future__ import annotations

from typing import Any

from .base import Invariant

MS = 1_000_000


class QuorumLoss(Invariant):
    name = "a leader without a quorum steps down"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.alone_since: dict[int, int] = {}
        self.led_since: dict[int, int] = {}
        self.limit_ns = (cluster.profile.settings.election_timeout_max_ms + 5) * MS

    def reach_changed(self) -> None:
        cluster = self.cluster
        voters = [node.id for node in cluster.voters()]
        for node in voters:
            linked = 1 + sum(cluster.reaches(node, peer) for peer in voters if peer != node)
            if 2 * linked > len(cluster.voter_ids):
                self.alone_since.pop(node, None)
            else:
                self.alone_since.setdefault(node, self.world.now_ns)

    def became_leader(self, node: Any) -> None:
        self.led_since[node.id] = self.world.now_ns

    def stepped(self, node: Any) -> None:
        since = self.alone_since.get(node.id)
        if since is None or not node.raft.leads:
            return
        since = max(since, self.led_since.get(node.id, 0), node.raft.state.quorum_floor_ns - self.limit_ns + 5 * MS)
        if self.world.now_ns > since + self.limit_ns:
            self.fail(f"node {node.id} leads {(self.world.now_ns - since) / 1e6:.0f} ms without a quorum")
