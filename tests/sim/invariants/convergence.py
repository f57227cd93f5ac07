"""After the last fault there is a leader, one log and one database within bounded time (consensus.md section 5)."""

from __future__ import annotations

from typing import Any

from tests.sim.price import nobody_electable

from .base import Invariant


class Convergence(Invariant):
    name = "bounded convergence"

    def settled(self, node: Any) -> None:
        """A member that applied all holds the committed log, and so does its database."""
        if node.values != self.truth.values or node.database.values != self.truth.values:
            self.fail(f"node {node.id} holds another log")

    def unsettled(self, limit_ns: int) -> None:
        """The time is over, and they do not agree."""
        state = [
            (node.id, node.raft.role.name, node.raft.term, node.raft.last_index, node.raft.commit_index, node.applied,
             len(node.proposals), len(node.reads), node.raft.faulty, node.raft.membership)
            for node in self.cluster.nodes.values()
        ]  # fmt: skip
        nobody_electable(self.cluster)
        self.fail(f"{limit_ns / 1e6:.0f} ms after the last fault: {state}")
