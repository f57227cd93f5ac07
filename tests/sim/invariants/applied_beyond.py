"""A node whose database is ahead of its log promises nothing until a leader's log holds that very entry.

semantics.md section 3. Its own election confirms it as well: what was applied was committed.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import AppendReply, AppendRequest

from .base import Invariant, of


class AppliedBeyond(Invariant):
    name = "nothing is promised on an unconfirmed database"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.open: set[int] = set()

    def restarted(self, node: Any) -> None:
        self.open.discard(node.id)
        if node.began_beyond:
            self.open.add(node.id)

    def became_leader(self, node: Any) -> None:
        self.open.discard(node.id)

    @of(AppendRequest)
    def receiving(self, node: Any, message: Any) -> None:
        if node.id in self.open and message.term >= node.raft.term:
            base = node.began_base
            term = node.terms[base]
            exact = message.previous_index == base and message.previous_term == term
            if exact or any(run.first <= base <= run.last and run.term == term for run in message.runs):
                self.open.discard(node.id)

    def install_ended(self, node: Any, image: Any) -> None:
        self.open.discard(node.id)

    @of(AppendReply)
    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if node.id in self.open and message.accepted:
            self.fail(
                f"node {node.id} acknowledges {message.match_index}, its database at {node.began_base} is unconfirmed"
            )
