"""A turn at a deadline deals with it: the next one lies ahead (consensus.md rule 9, `next_deadline()`)."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class Deadlines(Invariant):
    name = "deadlines"

    def ticked(self, node: Any) -> None:
        if node.up and node.raft.next_deadline() <= node.now():
            self.fail(f"node {node.id}: a tick did not consume its deadline")
