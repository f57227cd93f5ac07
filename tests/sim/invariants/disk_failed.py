"""A node whose log failed takes no part any more (consensus.md rule 11): it says, promises and serves nothing."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class DiskFailed(Invariant):
    name = "who cannot write takes no part"

    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if node.disk.failure:
            self.fail(f"node {node.id} sends {message}: {node.disk.failure}")

    def beating(self, node: Any, term: int) -> None:
        if node.disk.failure:
            self.fail(f"node {node.id} beats in term {term}: {node.disk.failure}")

    def acknowledged(self, node: Any, index: int, value: int) -> None:
        if node.disk.failure:
            self.fail(f"node {node.id} acknowledges the write at {index}: {node.disk.failure}")

    def read_served(self, node: Any, index: int, floor: int) -> None:
        if node.disk.failure:
            self.fail(f"node {node.id} serves a read: {node.disk.failure}")
