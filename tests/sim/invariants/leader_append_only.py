"""A leader never cuts its own log; nobody cuts what it knows to be committed, or what was so in its leader's term.

Raft paper 5.3, figure 3; Raft thesis 5.1 for logs that an image replaces; consensus.md rule 4.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendRequest, RepairReply

from .base import Invariant, of


class LeaderAppendOnly(Invariant):
    name = "leader append-only"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.term: dict[int, int] = {}  # of the newest message that may have cut

    @of(AppendRequest, RepairReply)
    def receiving(self, node: Any, message: Any) -> None:
        self.term[node.id] = message.term

    def resetting(self, node: Any, index: int, term: int) -> None:
        """A log that holds the image's entry is kept: what stands behind it may be promised (thesis 5.1)."""
        held = index < len(node.terms) and node.terms[index] == term
        damaged = index in node.disk.unknown
        if held and not damaged and not node.replaces_open:
            self.fail(f"node {node.id} drops a log that holds the image's entry {index} of term {term}")
        if node.raft.leads:
            self.fail(f"node {node.id} drops its log while it leads")

    def truncating(self, node: Any, last_kept: int) -> None:
        if node.raft.leads and last_kept < node.window_start:
            self.fail(f"node {node.id} cuts at {last_kept} while it leads")
        if last_kept < node.raft.commit_index and last_kept < node.seen_commit:
            self.fail(f"node {node.id} cuts at {last_kept}, below its commit index {node.seen_commit}")
        # A leader of an old term that is heard late may cut what a later term commits without this node.
        term = self.term[node.id]
        known = max((index for mark, index in self.truth.marks.items() if mark <= term), default=0)
        index = last_kept + 1
        if index <= known and index < len(node.terms) and node.terms[index] == self.truth.terms[index]:
            self.fail(f"node {node.id} cuts the committed entry {index}")
