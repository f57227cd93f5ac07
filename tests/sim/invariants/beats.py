"""A heartbeat names a term that its sender leads, and never an older one than it has spoken in.

consensus.md rule 17.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant


class Beats(Invariant):
    name = "heartbeats of leaders only"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.spoken = dict.fromkeys(cluster.nodes, 0)  # node -> highest term that its incarnation has spoken in

    def wiped(self, node: Any) -> None:
        self.spoken[node.id] = 0

    def beating(self, node: Any, term: int) -> None:
        if not node.state.leads or node.state.term != term:
            self.fail(f"node {node.id} beats in term {term}, it is {node.raft.role.name} of term {node.raft.term}")
        if term < self.spoken[node.id]:
            self.fail(f"node {node.id} beats in term {term} after it spoke in a later one")

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if message.term > self.spoken[node.id] and not getattr(message, "pre", False):
            self.spoken[node.id] = message.term
