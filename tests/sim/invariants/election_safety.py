"""At most one node leads in a term (Raft paper 5.2, figure 3)."""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import Role, VoteRequest

from .base import Invariant, of


class ElectionSafety(Invariant):
    name = "election safety"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.leaders: dict[int, tuple[int, int]] = {}

    @of(VoteRequest)
    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        # A request that waited for the disk may leave after the campaign has ended.
        if node.raft.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            voters = self.cluster.voters_since(node, node.raft.commit_index)
            if node.identity not in voters:
                self.fail(f"{node.identity} campaigns and is no voter by any configuration that it may go by: {voters}")

    def became_leader(self, node: Any) -> None:
        term = node.raft.term
        first = self.leaders.setdefault(term, (node.id, node.life))
        if first != (node.id, node.life):
            self.fail(f"term {term} is led by node {first[0]} and by node {node.id}")
        if node.identity not in self.cluster.voters_since(node, node.raft.commit_index):
            self.fail(f"node {node.identity} leads and is no voter by any configuration that it may go by")
