"""A leader never cuts its own log, and nobody cuts a committed entry that it knows of."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class LeaderAppendOnly(Invariant):
    name = "leader append-only"

    def truncating(self, node: Any, last_kept: int) -> None:
        if node.raft.leads and last_kept < node.window_start:
            self.fail(f"node {node.id} cuts at {last_kept} while it leads")
        if last_kept < node.raft.commit_index and last_kept < node.seen_commit:
            self.fail(f"node {node.id} cuts at {last_kept}, below its commit index {node.seen_commit}")
        truth = self.truth
        if last_kept < truth.last and last_kept + 1 < len(node.terms) and last_kept + 1 <= truth.last:
            index = last_kept + 1
            if node.terms[index] == truth.terms[index]:
                self.fail(f"node {node.id} cuts the committed entry {index}")
