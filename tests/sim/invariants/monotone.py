"""Term, commit index and applied index only grow (Raft paper figure 2; consensus.md section 5).

The spoken term does also across restarts, and so does the applied index, unless a loss of power took the newest of the
database, or a lost disk all of it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from .base import Invariant

GROWING = attrgetter("term", "commit_index", "applied_index")


class Monotone(Invariant):
    name = "monotone"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.seen: dict[int, tuple[int, int, int]] = {}
        self.losses: dict[int, int] = {}  # of power that the database had seen when the node began
        self.spoken = dict.fromkeys(cluster.nodes, 0)

    def restarted(self, node: Any) -> None:
        raft = node.raft
        if raft.term < self.spoken[node.id]:
            self.fail(f"node {node.id} restarts in term {raft.term} after it spoke in {self.spoken[node.id]}")
        applied, losses = raft.state.applied_index, node.database.losses
        if losses == self.losses.get(node.id) and applied < self.seen[node.id][2]:
            self.fail(f"node {node.id} restarts with {applied} applied after {self.seen[node.id][2]}")
        self.losses[node.id] = losses
        self.seen[node.id] = (raft.term, raft.commit_index, applied)

    def wiped(self, node: Any) -> None:
        self.spoken[node.id] = 0
        self.losses.pop(node.id, None)

    def stepped(self, node: Any) -> None:
        now, before = GROWING(node.state), self.seen[node.id]
        if now != before:
            if now[0] < before[0] or now[1] < before[1] or now[2] < before[2]:
                self.fail(f"node {node.id}: (term, commit, applied) {before} -> {now}")
            self.seen[node.id] = now

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if message.term > self.spoken[node.id] and not getattr(message, "pre", False):
            self.spoken[node.id] = message.term
