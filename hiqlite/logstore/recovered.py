"""What a log holds when it is opened: the result of its recovery, as a value.

Must not know files. Invariant: `runs` is without gaps, and every range of `faulty` lies in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hiqlite.engine.model import Identity, TermRun


@dataclass(frozen=True, slots=True)
class Recovered:
    """What survived of a log.

    Attributes:
        runs: trail of terms of `[base_index + 1, last]`, without gaps.
        io_sequence: the highest one found; new ones lie above it.
        faulty: closed ranges whose payload is damaged though it had been synced.
        lost: a segment that was in use is missing or short: promises of this incarnation may be gone.
        memberships: indexes of the membership entries that can be read, ascending.
        corrupt: why the log ends before something that had been synced ("": it does not).
    """

    runs: tuple[TermRun, ...] = ()
    base_index: int = 0
    base_term: int = 0
    term: int = 0
    vote: Identity | None = None
    io_sequence: int = 0
    faulty: tuple[tuple[int, int], ...] = ()
    lost: bool = False
    corrupt: str = ""
    memberships: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Nothing that was promised is missing; faulty entries are known to be missing."""
        return not self.lost and not self.corrupt

    @property
    def last_index(self) -> int:
        return self.runs[-1].last if self.runs else self.base_index

    @property
    def newest_readable(self) -> int:
        """The last entry that is not damaged; `base_index` when there is none."""
        newest = self.last_index
        for low, high in reversed(self.faulty):
            if low <= newest <= high:
                newest = low - 1
        return newest

    def with_hard_state(self, term: int, vote: Identity | None) -> Recovered:
        """Term and vote stand in the metadata as well; the higher one rules, a vote beats none in the same term."""
        if term > self.term or (term == self.term and self.vote is None):
            return replace(self, term=term, vote=vote)
        return self
