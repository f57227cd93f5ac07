"""The engine never reports a broken promise: the world of the simulator keeps all of its own."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class PromisesKept(Invariant):
    name = "promises kept"

    def fatal(self, node: Any, text: str) -> None:
        self.fail(f"node {node.id}: {text}")
