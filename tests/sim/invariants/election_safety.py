"""At most one node leads in a term (Raft thesis figure 3.2)."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class ElectionSafety(Invariant):
    name = "election safety"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.leaders: dict[int, tuple[int, int]] = {}

    def became_leader(self, node: Any) -> None:
        term = node.raft.term
        first = self.leaders.setdefault(term, (node.id, node.life))
        if first != (node.id, node.life):
            self.fail(f"term {term} is led by node {first[0]} and by node {node.id}")
        if node.id not in self.cluster.voter_ids:
            self.fail(f"node {node.id} leads and is no voter")
