"""No entry is applied that the node's own log has not written (semantics.md section 3)."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class AppliedWritten(Invariant):
    name = "applied is written"

    def applying(self, node: Any, first: int, last: int) -> None:
        if last > node.disk.written_last:
            self.fail(f"node {node.id} applies {last}, its log has written {node.disk.written_last}")
