"""A node with damaged entries never campaigns, and applies none of them (consensus.md section 3)."""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import VoteRequest

from .base import Invariant, of


class Damaged(Invariant):
    name = "damaged entries are not passed over"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.damaged: dict[int, set[int]] = {}

    def restarted(self, node: Any) -> None:
        self.damaged[node.id] = set(node.disk.faulty)

    def repairing(self, node: Any, first: int, terms: list[int], values: list[int]) -> None:
        """What comes back is the very entry that was promised, be it committed or the tail of a leader that is deposed.

        Where the term is lost it is what is committed there.
        """
        damaged = self.damaged[node.id]
        for index, (term, value) in enumerate(zip(terms, values, strict=True), start=first):
            if index not in damaged:
                self.fail(f"node {node.id} repairs entry {index}, which is not damaged")
            known = index in node.disk.faulty and index not in node.disk.unknown
            if known and (term, value) != (node.terms[index], node.values[index]):
                self.fail(f"node {node.id} repairs entry {index} of term {node.terms[index]} by another one")
            committed = not known and index <= self.truth.last
            if committed and (term, value) != (self.truth.terms[index], self.truth.values[index]):
                self.fail(f"node {node.id} repairs entry {index} by one that is not committed there")
        self.damaged[node.id] = damaged - set(range(first, first + len(terms)))

    def purging(self, node: Any, index: int) -> None:
        if self.damaged[node.id]:
            self.damaged[node.id] = {one for one in self.damaged[node.id] if one > index}

    def resetting(self, node: Any, index: int, term: int) -> None:
        self.damaged[node.id] = set()

    def install_ended(self, node: Any, image: Any) -> None:
        self.purging(node, image.index)

    def truncating(self, node: Any, last_kept: int) -> None:
        if self.damaged[node.id]:
            self.damaged[node.id] = {index for index in self.damaged[node.id] if index <= last_kept}

    @of(VoteRequest)
    def sending(self, node: Any, message: Any, peer_id: int) -> None:
        if self.damaged[node.id]:
            self.fail(f"node {node.id} campaigns, its entries {sorted(self.damaged[node.id])} are damaged")

    def became_leader(self, node: Any) -> None:
        if self.damaged[node.id]:
            self.fail(f"node {node.id} leads, its entries {sorted(self.damaged[node.id])} are damaged")

    def applying(self, node: Any, first: int, last: int) -> None:
        damaged = self.damaged[node.id]
        if damaged and any(first <= index <= last for index in damaged):
            self.fail(f"node {node.id} applies [{first}, {last}], of which {sorted(self.damaged[node.id])} are damaged")
