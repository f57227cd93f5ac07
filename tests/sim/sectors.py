"""Scripts that hurt what lies on a disk: power that goes between write and flush, twice in a row, sectors that rot.

They make sense on any simulated disk; where logs are written byte by byte they decide what recovery is given to read.
"""

from __future__ import annotations

from .nemeses import Nemeses
from .node import Node

MS = 1_000_000


class SectorNemeses(Nemeses):
    """What strikes a disk rather than a process."""

    def torn(self) -> None:
        """The power goes when a batch was written and not flushed."""
        node = self.some(True)
        if node is not None:
            node.disk.trap = self._torn

    def _torn(self, number: int, moment: str) -> bool:
        node = self.cluster.nodes[number]
        if self.ended or not node.up:
            return False
        if moment != "written":
            node.disk.trap = self._torn
            return False
        self._lose_power(node, node.life)
        return True

    def _lose_power(self, node: Node, life: int) -> None:
        if node.life == life and node.up and not self.ended:
            node.crash(power_loss=True)
            self.world.after((1 + self.world.below(300)) * MS, self._return, node, node.life)

    def relapse(self) -> None:
        """Killed between write and flush, back at once, and without power a moment later."""
        node = self.some(True)
        if node is not None:
            node.disk.trap = self._relapse

    def _relapse(self, number: int, moment: str) -> bool:
        node = self.cluster.nodes[number]
        if self.ended or not node.up:
            return False
        node.crash(power_loss=False)
        self.world.after(1 + self.world.below(2 * MS), self._relapse_again, node, node.life)
        return True

    def _relapse_again(self, node: Node, life: int) -> None:
        if node.life == life:
            self.cluster.start(node)
            self.world.after(self.world.below(4 * MS), self._lose_power, node, node.life)

    def bad_sectors(self) -> None:
        """A log that said what is synced is damaged at random while its node is down."""
        node = self.some(True)
        if node is not None:
            self.world.after(25 * MS, self._bad_sectors, node, node.life, 20)

    def _bad_sectors(self, node: Node, life: int, turns: int) -> None:
        if self.ended or node.life != life or not node.up or not self.cluster.bears(node.identity):
            return
        if turns and (node.disk.busy or self.world.chance() < 0.3):
            self.world.after(25 * MS, self._bad_sectors, node, life, turns - 1)
            return
        node.crash(power_loss=False)
        disk = node.disk
        first, last = disk.base + 1, len(disk.terms) - 1
        for _ in range(1 + self.world.below(3)):
            if first <= last and not disk.lost:
                low = first + self.world.below(last - first + 1)
                disk.damage(range(low, min(low + 1 + self.world.below(4), last + 1)), self.world.chance() < 0.4)
        self.cluster.look_after(node)
        self.world.after((1 + self.world.below(200)) * MS, self._return, node, node.life)
