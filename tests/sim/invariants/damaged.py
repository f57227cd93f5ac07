"""A node with damaged entries never campaigns, and applies none of them (consensus.md section 3)."""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import VoteRequest

from .base import Invariant


class Damaged(Invariant):
    name = "damaged entries are not passed over"

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if node.disk.faulty and node.state.faulty and type(message) is VoteRequest:
            self.fail(f"node {node.id} campaigns, its entries {sorted(node.disk.faulty)} are damaged")

    def became_leader(self, node: Any) -> None:
        if node.disk.faulty and node.state.faulty:
            self.fail(f"node {node.id} leads, its entries {sorted(node.disk.faulty)} are damaged")

    def applying(self, node: Any, first: int, last: int) -> None:
        if node.disk.faulty and any(first <= index <= last for index in node.disk.faulty):
            self.fail(f"node {node.id} applies [{first}, {last}], of which {sorted(node.disk.faulty)} are damaged")
