"""Term, commit index and applied index only grow; the spoken term also across restarts."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class Monotone(Invariant):
    name = "monotone"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.seen: dict[int, tuple[int, int]] = {}
        self.spoken: dict[int, int] = {}

    def restarted(self, node: Any) -> None:
        raft = node.raft
        if raft.term < self.spoken.get(node.id, 0):
            self.fail(f"node {node.id} restarts in term {raft.term} after it spoke in {self.spoken[node.id]}")
        self.seen[node.id] = (raft.term, raft.commit_index)

    def wiped(self, node: Any) -> None:
        self.spoken.pop(node.id, None)

    def stepped(self, node: Any) -> None:
        state = node.state
        term, commit = state.term, state.commit_index
        old_term, old_commit = self.seen[node.id]
        if commit == old_commit and term == old_term:
            return
        if term < old_term or commit < old_commit:
            self.fail(f"node {node.id}: term {old_term} -> {term}, commit {old_commit} -> {commit}")
        self.seen[node.id] = (term, commit)

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if message.term > self.spoken.get(node.id, 0) and not getattr(message, "pre", False):
            self.spoken[node.id] = message.term
