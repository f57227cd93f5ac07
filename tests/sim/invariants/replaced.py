"""A leader whose loop stands still leads on as long as its heartbeats may go on, and is replaced then.

consensus.md rule 17: shorter standstills cost no election; behind the gate the others hear nothing and elect.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant


class Replaced(Invariant):
    name = "a leader that stands still is replaced"

    def stood(self, node: Any, leader: Any, since_ns: int, gate_open: bool) -> None:
        """In peace: `leader` is who leads by now, while `node` has stood still since then."""
        stands = f"node {node.id} stands for {(self.world.now_ns - since_ns) / 1e6:.0f} ms"
        if gate_open and leader is not node:
            self.fail(f"{stands}, its heartbeats go on, and it was replaced")
        if not gate_open and leader is node:
            self.fail(f"{stands}, and nobody was elected in its place")
