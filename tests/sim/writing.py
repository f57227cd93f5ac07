"""The log of a simulated process as its loop hears of it: what is written, what waits, no room ahead, a failure.

Does with it what the runtime does. Must not know what is written. Invariant: once the log has failed nothing is turned
any more in this life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .storing import Storing

if TYPE_CHECKING:
    from hiqlite.engine.state import State

    from .node import Node


class Writing(Storing):
    """The part of a node that hears of its disk."""

    state: State
    rate: int
    word: tuple[int, bool]
    told_waiting_ns = 0
    failed = False  # its log did: it takes no part for the rest of this life

    def on_disk(self: Node) -> None:
        if not self.runs():
            return
        disk = self.disk
        if disk.failure:
            self.fail()
            return
        if disk.full != self.state.disk_full:
            self.tell_space()
        self.raft.log_progress(disk.written_io, disk.synced_io, self.now())
        self.turn_soon()

    def fail(self: Node) -> None:
        """The heartbeat thread is told above all; nobody who waits is answered."""
        self.world.note(f"node {self.id} takes no part any more: {self.disk.failure}")
        self.cluster.coverage.disk(self, f"what was to be {self.disk.failing} fails")
        self.raft.step_down(self.now(), self.disk.failure)
        self.word = self.raft.beat_word()
        self.failed = True

    def tell_space(self: Node) -> None:
        """Whether the log has room ahead (rule 11)."""
        self.cluster.coverage.disk(self, "full" if self.disk.full else "has room again")
        self.raft.disk_full(self.disk.full, self.now())

    def tell_disk(self) -> None:
        """Since when work waits for the disk (rule 11), by this node's clock."""
        since_ns = self.told_waiting_ns = self.disk.waiting_since_ns
        self.raft.disk_waits(since_ns * self.rate // 1000)
