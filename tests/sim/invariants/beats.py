"""A heartbeat names a term that its sender leads at that moment."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class Beats(Invariant):
    name = "heartbeats of leaders only"

    def beating(self, node: Any) -> None:
        term, _ = node.word
        if not node.raft.leads or node.raft.term != term:
            self.fail(f"node {node.id} beats in term {term}, it is {node.raft.role.name} of term {node.raft.term}")
