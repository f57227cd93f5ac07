"""A leader that no majority can answer stops within one upper election timeout (rule 17)."""

from __future__ import annotations

from typing import Any

from .base import Invariant

MS = 1_000_000
FAR = 2**62


class QuorumLoss(Invariant):
    name = "a leader without a quorum steps down"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.alone_since: dict[int, int] = {}
        self.cut_off: dict[tuple[int, int], int] = {}
        self.led_since: dict[int, int] = {}
        self.limit_ns = (cluster.profile.settings.election_timeout_max_ms + 5) * MS * 1000 // min(cluster.profile.rates)

    def reach_changed(self) -> None:
        """Since when each node lacks a majority: a peer counts until the moment at which it was cut off last."""
        cluster, now_ns = self.cluster, self.world.now_ns
        voters = cluster.voter_ids
        present = {node.id for node in cluster.voters()}  # a lost disk is a voter that is gone for good
        need = len(cluster.voter_ids) // 2 + 1
        self.alone_since.clear()
        for node in voters:
            until = [FAR]
            for peer in voters:
                if peer == node:
                    continue
                if peer in present and cluster.reaches(node, peer):
                    self.cut_off.pop((node, peer), None)
                    until.append(FAR)
                else:
                    until.append(self.cut_off.setdefault((node, peer), now_ns))
            until.sort(reverse=True)
            since = until[need - 1] if need <= len(until) else 0
            if since != FAR:
                self.alone_since[node] = since

    def became_leader(self, node: Any) -> None:
        self.led_since[node.id] = self.world.now_ns

    def stepped(self, node: Any) -> None:
        since = self.alone_since.get(node.id)
        if since is None or not node.raft.leads:
            return
        floor_ns = node.state.quorum_floor_ns * 1000 // node.rate
        since = max(since, self.led_since.get(node.id, 0), floor_ns - self.limit_ns + 5 * MS)
        if self.world.now_ns > since + self.limit_ns:
            self.fail(f"node {node.id} leads {(self.world.now_ns - since) / 1e6:.0f} ms without a quorum")
