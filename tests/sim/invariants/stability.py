"""Without a fault leader and term do not change (Raft thesis 9.6; consensus.md section 5)."""

from __future__ import annotations

from .base import Invariant


class Stability(Invariant):
    name = "stability"

    def reigned(self, when: str, before: tuple[int, int], now: tuple[int, int]) -> None:
        """(leader, term) at the beginning and the end of a span in which nothing went wrong."""
        if now != before:
            self.fail(f"{when} {before} became {now}")
