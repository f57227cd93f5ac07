"""A node with damaged entries never campaigns, and applies none of them (consensus.md section 3)."""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import VoteRequest

from .base import Invariant


class Damaged(Invariant):
    name = "damaged entries are not passed over"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.damaged: dict[int, set[int]] = {}

    def restarted(self, node: Any) -> None:
        self.damaged[node.id] = set(node.disk.faulty)

    def truncating(self, node: Any, last_kept: int) -> None:
        if self.damaged[node.id]:
            self.damaged[node.id] = {index for index in self.damaged[node.id] if index <= last_kept}

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if self.damaged[node.id] and type(message) is VoteRequest:
            self.fail(f"node {node.id} campaigns, its entries {sorted(self.damaged[node.id])} are damaged")

    def became_leader(self, node: Any) -> None:
        if self.damaged[node.id]:
            self.fail(f"node {node.id} leads, its entries {sorted(self.damaged[node.id])} are damaged")

    def applying(self, node: Any, first: int, last: int) -> None:
        if any(first <= index <= last for index in self.damaged[node.id]):
            self.fail(f"node {node.id} applies [{first}, {last}], of which {sorted(self.damaged[node.id])} are damaged")
