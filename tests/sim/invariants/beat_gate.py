"""A leader whose loop or disk stood still for longer than the gate allows sends no heartbeat (consensus.md rule 17).

It says by them that it lives, and can do nothing any more for those who believe it.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant

MS = 1_000_000


class BeatGate(Invariant):
    name = "no heartbeat of who stands still"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.limit_ns = cluster.profile.settings.stall_ms * MS

    def beating(self, node: Any, term: int) -> None:
        now_ns = self.world.now_ns
        if node.stalled and now_ns - node.stalled_since_ns > self.limit_ns:
            self.fail(f"node {node.id} beats, its loop stands for {(now_ns - node.stalled_since_ns) / 1e6:.0f} ms")
        since_ns = node.disk.waiting_since_ns
        if since_ns and now_ns - since_ns > self.limit_ns:
            self.fail(f"node {node.id} beats, its disk stands for {(now_ns - since_ns) / 1e6:.0f} ms")
