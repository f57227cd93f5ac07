"""A node gives only entries that it holds: in memory or fetched from the log, and not purged (consensus.md rule 18)."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class Held(Invariant):
    name = "only what is held is given"

    def giving(self, node: Any, first: int, last: int, from_memory: bool) -> None:
        if from_memory and first < node.window_start:
            self.fail(f"node {node.id} sends [{first}, {last}], memory begins at {node.window_start}")
        if first <= node.raft.base_index:
            self.fail(f"node {node.id} sends [{first}, {last}] behind {node.raft.base_index}")
