"""A leader commits what is durable on a majority of every voter set, and ends in its own term; else nobody commits.

Raft paper 5.3 and 5.4.2, figure 8; consensus.md rules 2 and 3. The first leader to commit an index writes it into
the truth; every other commit index is measured against that.
"""

from __future__ import annotations

from typing import Any

from tests.sim.price import committed_by_too_few
from tests.sim.voters import voter_sets

from .base import Invariant


class CommitDurable(Invariant):
    name = "committed entries are durable on a quorum"

    def committed(self, node: Any, before: int, index: int) -> None:
        truth = self.truth
        if index >= len(node.terms):
            self.fail(f"node {node.id} commits {index}, its log ends at {len(node.terms) - 1}")
        term = node.terms[index]
        if index > truth.last:
            if term != node.led_term:
                self.fail(
                    f"node {node.id}, last leader of term {node.led_term}, commits {index} of term {term}; "
                    f"nobody committed more than {truth.last}"
                )
            for voters in voter_sets(node.config):
                holders = [one for one in voters if self.cluster.disks[one].holds(index, term)]
                if 2 * len(holders) <= len(voters):
                    committed_by_too_few(self.cluster, voters, index, term)
                    self.fail(f"node {node.id} commits {index} of term {term}, of {voters} hold it {holders}")
            truth.terms.extend(node.terms[truth.last + 1 : index + 1])
            truth.values.extend(node.values[truth.last + 1 : index + 1])
            truth.last = index
            truth.marks[term] = index
        low = before + 1
        if node.terms[low : index + 1] != truth.terms[low : index + 1]:
            self.fail(f"node {node.id} commits other entries in [{low}, {index}]")
        if node.values[low : index + 1] != truth.values[low : index + 1]:
            self.fail(f"node {node.id} commits other values in [{low}, {index}]")
