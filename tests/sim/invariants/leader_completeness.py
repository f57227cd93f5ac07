"""Whoever is elected holds every entry that was committed in an earlier term (Raft thesis 3.6.3).

A candidate that slept may win an old term late; what was committed in later terms it need not have.
"""

from __future__ import annotations

from typing import Any

from tests.sim.price import elected_without

from .base import Invariant


class LeaderCompleteness(Invariant):
    name = "leader completeness"

    def became_leader(self, node: Any) -> None:
        truth = self.truth
        last = max((index for term, index in truth.marks.items() if term < node.raft.term), default=0)
        if node.terms[: last + 1] != truth.terms[: last + 1] or node.values[: last + 1] != truth.values[: last + 1]:
            elected_without(self.cluster, node, last)
            self.fail(f"node {node.id} leads in term {node.raft.term} and lacks committed entries up to {last}")
