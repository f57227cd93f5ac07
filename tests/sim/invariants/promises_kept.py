"""The engine never reports a broken promise: the world of the simulator keeps all of its own.

Raft paper figure 3: what the engine would refuse to go on with contradicts one of the properties there.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant


class PromisesKept(Invariant):
    name = "promises kept"

    def fatal(self, node: Any, text: str) -> None:
        self.fail(f"node {node.id}: {text}")
