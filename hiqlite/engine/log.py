"""The trail of terms: which term every index of the log has, as runs of equal terms.

Must not know entries, bytes, disks or peers. Invariants: `base_index <= last_index`; run starts ascend strictly, terms
ascend strictly, the first run starts at `base_index + 1`; the number of runs is the number of distinct terms, never
the number of entries.
"""

from __future__ import annotations

from collections.abc import Iterable

from .model import TermRun

UNKNOWN_TERM = -1


class Log:
    """Terms of the entries `[base_index + 1, last_index]`; the entry at `base_index` is known by its term only."""

    def __init__(self, base_index: int, base_term: int, runs: Iterable[TermRun]) -> None:
        self.base_index: int = base_index
        self.base_term: int = base_term
        self.last_index: int = base_index
        self.last_term: int = base_term
        self.starts: list[int] = []
        self.terms: list[int] = []
        self.tail_first: int = base_index + 1  # first index of the last run: the fast path of every look-up
        for run in runs:
            self.extend(run.term, run.first, run.last)

    def extend(self, term: int, first: int, last: int) -> None:
        """Append entries `[first, last]` of one term behind the last one."""
        if first != self.last_index + 1 or last < first or term < self.last_term:
            raise ValueError(f"run ({term}, {first}, {last}) does not follow ({self.last_term}, {self.last_index})")
        if term != self.last_term or not self.starts:
            self.starts.append(first)
            self.terms.append(term)
            self.tail_first = first
            self.last_term = term
        self.last_index = last

    def term_at(self, index: int) -> int:
        """The term of the entry at `index`, the base included; UNKNOWN_TERM outside of the log."""
        if index > self.last_index or index < self.base_index:
            return UNKNOWN_TERM
        if index == self.base_index:
            return self.base_term
        if index >= self.tail_first:
            return self.last_term
        position = self._position(index)
        return int(self.terms[position])

    def truncate(self, last_kept: int) -> None:
        """Forget every entry above `last_kept`."""
        if last_kept < self.base_index or last_kept > self.last_index:
            raise ValueError(f"cannot cut at {last_kept}: the log holds ({self.base_index}, {self.last_index}]")
        while self.starts and self.starts[len(self.starts) - 1] > last_kept:
            self.starts.pop()
            self.terms.pop()
        count = len(self.starts)
        self.last_index = last_kept
        self.last_term = self.terms[count - 1] if count else self.base_term
        self.tail_first = self.starts[count - 1] if count else self.base_index + 1

    def compact(self, base_index: int) -> None:
        """Entries up to `base_index`, which lies in the log, are gone; its term stays known."""
        if base_index <= self.base_index:
            return
        if base_index > self.last_index:
            raise ValueError(f"cannot purge up to {base_index}: the log ends at {self.last_index}")
        term = self.term_at(base_index)
        kept = self.slice(base_index + 1, self.last_index)
        self.reset(base_index, term)
        for run in kept:
            self.extend(run.term, run.first, run.last)

    def reset(self, base_index: int, base_term: int) -> None:
        """Begin anew behind the entry at `base_index`."""
        self.base_index = self.last_index = base_index
        self.base_term = self.last_term = base_term
        self.tail_first = base_index + 1
        self.starts.clear()
        self.terms.clear()

    def overwrite(self, runs: tuple[TermRun, ...]) -> None:
        """Give the entries of `runs` these terms in their places; what follows is cut where it cannot follow them."""
        after = self.slice(runs[len(runs) - 1].last + 1, self.last_index)
        self.truncate(runs[0].first - 1)
        for run in (*runs, *after):
            if run.term < self.last_term:
                return
            self.extend(run.term, run.first, run.last)

    def slice(self, first: int, last: int) -> tuple[TermRun, ...]:
        """The runs of `[first, last]`, which must lie in the log; empty when `last < first`."""
        if last < first:
            return ()
        if first >= self.tail_first:
            return (TermRun(self.last_term, first, last),)
        runs = []
        position = self._position(first)
        count = len(self.starts)
        while first <= last:
            end = self.starts[position + 1] - 1 if position + 1 < count else self.last_index
            end = min(end, last)
            runs.append(TermRun(self.terms[position], first, end))
            first = end + 1
            position += 1
        return tuple(runs)

    def first_conflict(self, runs: tuple[TermRun, ...]) -> int:
        """The first index of `runs` that this log does not hold with that term; 0 when it holds them all.

        Indexes at or below the base are passed over: they are committed, and so equal in every log.
        """
        for run in runs:
            index = max(run.first, self.base_index + 1)
            while index <= run.last:
                if index > self.last_index:
                    return index
                if self.term_at(index) != run.term:
                    return index
                index = self._run_end(index) + 1
        return 0

    def floor_of_term(self, index: int, term: int) -> int:
        """The highest index `<= index` whose term is `<= term`; the base if there is none above it (rule 15)."""
        index = min(index, self.last_index)
        if index <= self.base_index:
            return self.base_index
        position = self._position(index)
        while position >= 0:
            if self.terms[position] <= term:
                return index
            index = self.starts[position] - 1
            position -= 1
        return self.base_index

    def runs(self) -> tuple[TermRun, ...]:
        """The whole trail, for tests and metrics."""
        return self.slice(self.base_index + 1, self.last_index)

    def _run_end(self, index: int) -> int:
        if index >= self.tail_first:
            return self.last_index
        return int(self.starts[self._position(index) + 1]) - 1

    def _position(self, index: int) -> int:
        """Which run holds `index` (above the base, not above the last): the last start `<= index`."""
        low = 0
        high = len(self.starts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.starts[middle] <= index:
                low = middle
            else:
                high = middle - 1
        return low
