"""A leader that no majority can answer stops within one upper election timeout.

consensus.md rule 17; Raft thesis 6.2.
"""

from __future__ import annotations

from typing import Any

from tests.sim.voters import voter_sets

from .base import Invariant

MS = 1_000_000
FAR = 2**62


class QuorumLoss(Invariant):
    name = "a leader without a quorum steps down"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.pairs = [(a, b) for a in cluster.nodes for b in cluster.nodes if a < b]
        self.cut_off: dict[tuple[int, int], int] = {}
        self.led_since: dict[int, int] = {}
        self.config_since: dict[int, tuple[Any, int]] = {}
        # node -> (version, configuration, alone since)
        self.known: dict[int, tuple[int, Any, int]] = dict.fromkeys(cluster.nodes, (-1, None, FAR))
        self.version = 0
        self.limit_ns = (cluster.profile.settings.election_timeout_max_ms + 5) * MS * 1000 // min(cluster.profile.rates)

    def reach_changed(self) -> None:
        """Until when each pair could talk: a peer counts until the moment at which it was cut off last."""
        cluster, now_ns, cut_off = self.cluster, self.world.now_ns, self.cut_off
        self.version += 1
        for a, b in self.pairs:
            if not cluster.reaches(a, b):
                cut_off.setdefault((a, b), now_ns)
            elif cut_off:
                cut_off.pop((a, b), None)

    def alone_since(self, node: Any, membership: Any) -> int:
        """Since when the node lacks a majority of some set of voters; FAR when it has all."""
        since = FAR
        for voters in voter_sets(membership):
            until = sorted((self.reached_until(node, one) for one in voters), reverse=True)
            since = min(since, until[len(voters) // 2])
        return since

    def reached_until(self, node: Any, identity: Any) -> int:
        """A lost disk is a voter that is gone for good."""
        if identity == node.identity:
            return FAR
        lost = self.cluster.lost.get(identity)
        if lost is not None:
            return int(lost)
        return self.cut_off.get((min(node.id, identity.id), max(node.id, identity.id)), FAR)

    def became_leader(self, node: Any) -> None:
        self.led_since[node.id] = self.world.now_ns

    def led(self, node: Any) -> None:
        membership = node.state.config.membership
        version, known, since = self.known[node.id]
        if known is not membership:
            self.config_since[node.id] = (membership, self.world.now_ns)
        if known is not membership or version != self.version:
            since = self.alone_since(node, membership)
            self.known[node.id] = (self.version, membership, since)
        if since == FAR:
            return
        floor_ns = node.state.quorum_floor_ns * 1000 // node.rate
        since = max(since, self.led_since.get(node.id, 0), floor_ns - self.limit_ns + 5 * MS)
        since = max(since, self.config_since[node.id][1])
        if self.world.now_ns > since + self.limit_ns:
            self.fail(f"node {node.id} leads {(self.world.now_ns - since) / 1e6:.0f} ms without a quorum")
