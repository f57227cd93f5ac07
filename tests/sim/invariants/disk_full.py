"""A leader whose disk is full takes nothing new and hands over; one whose disk failed is replaced.

consensus.md rule 11. What was taken before waits for room.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant


class DiskFull(Invariant):
    name = "a sick disk takes nothing new, and leads no more"

    def created(self, node: Any, first: int, count: int) -> None:
        value = node.values[first]
        if node.disk.full and value and value not in self.cluster.memberships:
            self.fail(f"node {node.id} takes proposals, its disk is full")

    def fell_sick(self, node: Any, leader: Any, since_ns: int) -> None:
        """In peace: `leader` is who leads by now, long after the disk of `node` fell sick."""
        if leader is None or leader.disk.full or leader.disk.failure:
            told = "nobody leads" if leader is None else f"node {leader.id} leads"
            self.fail(f"{told}, since {(self.world.now_ns - since_ns) / 1e6:.0f} ms the disk of node {node.id} is sick")
