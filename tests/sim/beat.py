"""The heartbeat thread as an actor of its own (consensus.md rule 17).

It knows the word that the loop stored, how old the loop's tick is and how long the log thread is without progress:
never the engine. It steps every heartbeat interval, and at any moment between two things that the loop does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import Node

MS = 1_000_000


class BeatThread:
    """One per life of a process; it dies with it, and stands still only when the whole process does."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.life = node.life
        settings = node.cluster.profile.settings
        self.interval_ns = settings.heartbeat_interval_ms * MS
        self.stall_ns = settings.stall_ms * MS

    def run(self) -> None:
        node = self.node
        if node.life == self.life:
            self.step()
            node.world.after(self.interval_ns, self.run)

    def step(self) -> None:
        """One decision, and the beats that come of it."""
        node = self.node
        term, leads = node.word
        if leads and not node.stopped and self.gate_open():
            node.checks.beating(node, term)
            node.cluster.network.beat(node, term, node.seen_commit)

    def gate_open(self) -> bool:
        """No beat for a loop that stands still, or a disk that does though work waits for it."""
        now_ns = self.node.world.now_ns
        if self.node.stalled and now_ns - self.node.stalled_since_ns > self.stall_ns:
            return False
        waiting_ns = self.node.disk.waiting_since_ns
        return waiting_ns == 0 or now_ns - waiting_ns <= self.stall_ns
