"""A read sees everything that was committed when it began (Raft thesis 6.4).

The state at index i holds all writes up to i, so a history is linearizable if no read's index is below the highest
index that anybody knew to be committed when the read began. Whoever serves one, a follower too, has applied as much.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant


class LinearizableReads(Invariant):
    name = "linearizable reads"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.tokens: dict[tuple[int, int], set[int]] = {}

    def read_began(self, node: Any, token: int) -> None:
        used = self.tokens.setdefault((node.id, node.life), set())
        if token in used:
            self.fail(f"node {node.id} gives token {token} twice")
        used.add(token)

    def read_confirmed(self, node: Any, token: int, read_index: int) -> None:
        floor = node.reads[token]
        if read_index < floor:
            self.fail(f"node {node.id} confirms a read at {read_index}, committed before it began was {floor}")
        if read_index > node.raft.commit_index:
            self.fail(f"node {node.id} confirms a read at {read_index}, its commit index is {node.raft.commit_index}")

    def read_served(self, node: Any, index: int, floor: int) -> None:
        """By its own database, whoever confirmed that it may at `index`."""
        if not floor <= index <= node.applied:
            self.fail(f"node {node.id} reads {index}, {node.applied} is applied, committed before it began was {floor}")
