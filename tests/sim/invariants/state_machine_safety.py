"""Every node applies the committed entries, each once, in order (Raft paper 5.4.3, figure 3)."""

from __future__ import annotations

from typing import Any

from .base import Invariant


class StateMachineSafety(Invariant):
    name = "state machine safety"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.handed: dict[tuple[int, int], int] = {}

    def restarted(self, node: Any) -> None:
        self.handed[node.id] = node.applied

    def applying(self, node: Any, first: int, last: int) -> None:
        if first != self.handed[node.id] + 1 or last < first:
            self.fail(f"node {node.id} is given [{first}, {last}] after {self.handed[node.id]}")
        self.handed[node.id] = last
        truth = self.truth
        if last > truth.last or node.values[first : last + 1] != truth.values[first : last + 1]:
            self.fail(f"node {node.id} applies what is not committed in [{first}, {last}]")

    def applied(self, node: Any, first: int, last: int) -> None:
        database = node.database
        if database.applied != last or database.values[first:] != self.truth.values[first : last + 1]:
            self.fail(f"the database of node {node.id} at {last} is not the committed log up to there")

    def image_made(self, node: Any, image: Any) -> None:
        """An image is the committed log up to its index, of one moment."""
        truth = self.truth
        if image.values != tuple(truth.values[: image.index + 1]) or image.term != truth.terms[image.index]:
            self.fail(f"node {node.id} makes an image at {image.index} that is something else")

    def installed(self, node: Any, image: Any) -> None:
        self.handed[node.id] = image.index

    def install_ended(self, node: Any, image: Any) -> None:
        if node.values[: image.index + 1] != self.truth.values[: image.index + 1]:
            self.fail(f"node {node.id} goes on from an image at {image.index} with another log")

    def acknowledged(self, node: Any, index: int, value: int) -> None:
        if self.truth.values[index] != value:
            self.fail(f"node {node.id} acknowledges a write at {index} that is not there")
