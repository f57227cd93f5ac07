"""Equal index and term means equal entry and equal everything before it (Raft thesis figure 3.2).

Every entry is compared with what its leader made, its predecessor's term included; the rest follows by induction.
"""

from __future__ import annotations

from typing import Any

from .base import Invariant


class LogMatching(Invariant):
    name = "log matching"

    def __init__(self, cluster: Any) -> None:
        super().__init__(cluster)
        self.made: dict[int, tuple[int, list[int], int]] = {}  # term -> first index, values, term before

    def created(self, node: Any, first: int, count: int) -> None:
        term = node.terms[first]
        made = self.made.get(term)
        if made is None:
            self.made[term] = (first, node.values[first : first + count], node.terms[first - 1])
            return
        if first != made[0] + len(made[1]):
            self.fail(f"node {node.id} makes entry {first} of term {term}, expected {made[0] + len(made[1])}")
        made[1].extend(node.values[first : first + count])

    def took(self, node: Any, first: int, last: int) -> None:
        index = first
        while index <= last:
            term = node.terms[index]
            start, values, before = self.made[term]
            end = index
            while end < last and node.terms[end + 1] == term:
                end += 1
            if index < start or node.values[index : end + 1] != values[index - start : end + 1 - start]:
                self.fail(f"node {node.id} holds other entries of term {term} in [{index}, {end}]")
            expected = before if index == start else term
            if node.terms[index - 1] != expected:
                self.fail(f"node {node.id}: entry {index} of term {term} follows term {node.terms[index - 1]}")
            index = end + 1
