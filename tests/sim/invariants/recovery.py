"""Recovery keeps every entry and every term and vote that was synced, or says that it is damaged; it never invents one.

consensus.md section 3, docs/durability.md, "What is trusted at start".
"""

from __future__ import annotations

from typing import Any

from .base import Invariant


class Recovery(Invariant):
    name = "recovery keeps what was synced"

    def recovered(self, found: Any) -> None:
        recovered = found.recovered
        if not recovered.whole:
            if not found.damaged:
                self.fail(f"node {found.owner}: a log that nobody damaged is {recovered.corrupt or 'lost'}")
            return
        if found.place < 0:
            known = [(one.base, one.terms[one.base + 1 :], one.term, one.vote) for one in found.states]
            self.fail(f"node {found.owner} finds a log that never was: {recovered}; that was written: {known}")
        if found.place < found.floor:
            self.fail(f"node {found.owner} finds the log after write {found.place}, kept are {found.floor}")
