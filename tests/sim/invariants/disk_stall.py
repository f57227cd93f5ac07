"""A leader whose disk makes no progress while work waits stops within the lower election timeout.

consensus.md rule 11.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant

MS = 1_000_000


class DiskStall(Invariant):
    name = "a leader whose disk stands still steps down"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.limit_ns = (cluster.profile.settings.election_timeout_min_ms + 5) * MS * 1000 // min(cluster.profile.rates)

    def led(self, node: Any) -> None:
        since = node.disk.waiting_since_ns
        if since and self.world.now_ns - since > self.limit_ns and self.world.now_ns - node.woke_ns > 5 * MS:
            self.fail(f"node {node.id} leads, its disk stands still for {(self.world.now_ns - since) / 1e6:.0f} ms")
