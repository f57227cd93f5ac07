"""The trail of terms while a log is replayed: runs of entries, what of them is damaged, where they stand.

Must not know files or batches. Invariant: runs are ascending, without gaps, from `base_index + 1` on, and no two
neighbours carry the same term.

The segments that held the beginning of a purged log are gone, so a replay may begin with any entry: until something
says where the log begins the trail is `adrift`, and while it does not know its true base a truncation may cut below it.
"""

from __future__ import annotations

from hiqlite.engine.model import Identity, TermRun


class Trail:
    """Entries as replayed so far, with the hard state.

    Args:
        adrift: nothing is known yet of what the first record follows.
    """

    def __init__(self, *, adrift: bool = False) -> None:
        self.adrift = adrift
        self.base_index = 0
        self.base_term = 0
        self.term = 0
        self.vote: Identity | None = None
        self._runs: list[TermRun] = []
        self._faulty: list[tuple[int, int]] = []
        self._spans: list[tuple[int, int, int, int]] = []
        self._repairs: dict[int, tuple[int, int]] = {}
        self._memberships: set[int] = set()

    @property
    def last_index(self) -> int:
        return self._runs[-1].last if self._runs else self.base_index

    @property
    def last_term(self) -> int:
        return self._runs[-1].term if self._runs else self.base_term

    def runs(self) -> tuple[TermRun, ...]:
        return tuple(self._runs)

    def faulty(self) -> tuple[tuple[int, int], ...]:
        return tuple(self._faulty)

    def spans(self) -> tuple[tuple[int, int, int, int], ...]:
        """(first, last, segment, offset), ascending."""
        return tuple(self._spans)

    def repairs(self) -> tuple[tuple[int, int, int], ...]:
        """(index, segment, offset), ascending: where the copy of an entry stands that was damaged."""
        return tuple((index, *at) for index, at in sorted(self._repairs.items()))

    def memberships(self) -> tuple[int, ...]:
        """Indexes of entries that are memberships, ascending."""
        return tuple(sorted(self._memberships))

    def term_at(self, index: int) -> int:
        """Term of an entry that the trail holds, or 0."""
        return next((run.term for run in self._runs if run.first <= index <= run.last), 0)

    def copy(self) -> Trail:
        other = Trail(adrift=self.adrift)
        other.base_index, other.base_term = self.base_index, self.base_term
        other.term, other.vote = self.term, self.vote
        other._runs, other._faulty, other._spans = self._runs[:], self._faulty[:], self._spans[:]
        other._repairs = dict(self._repairs)
        other._memberships = set(self._memberships)
        return other

    def begin(self, index: int, term: int) -> None:
        """The log is empty behind (index, term), whatever was known of it."""
        self.adrift = False
        self.base_index, self.base_term = index, term
        self._runs, self._spans, self._faulty, self._repairs, self._memberships = [], [], [], {}, set()

    def extend(self, term: int, first: int, last: int, at: tuple[int, int]) -> None:
        """Entries `[first, last]` stand at `at`, (segment, offset)."""
        assert not self.adrift and first == self.last_index + 1 and last >= first and term >= self.last_term
        if self._runs and self._runs[-1].term == term:
            self._runs[-1] = TermRun(term, self._runs[-1].first, last)
        else:
            self._runs.append(TermRun(term, first, last))
        self._spans.append((first, last, *at))

    def mark_faulty(self, first: int, last: int) -> None:
        if self._faulty and self._faulty[-1][1] + 1 == first:
            self._faulty[-1] = (self._faulty[-1][0], last)
        else:
            self._faulty.append((first, last))

    def repair(self, index: int, at: tuple[int, int]) -> None:
        """The entry `index`, which the trail holds, stands readable at `at`."""
        self._faulty = [
            part
            for low, high in self._faulty
            for part in ((low, min(high, index - 1)), (max(low, index + 1), high))
            if part[0] <= part[1]
        ]
        self._repairs[index] = at

    def mark_membership(self, index: int) -> None:
        """The entry `index`, which the trail holds, is a membership entry, and readable."""
        self._memberships.add(index)

    def truncate(self, last_kept: int) -> None:
        """Cuts every entry behind `last_kept`."""
        if self.adrift or last_kept < self.base_index:
            self.begin(last_kept, 0)  # of what is purged by now: its term is nobody's concern
            return
        while self._runs and self._runs[-1].first > last_kept:
            self._runs.pop()
        if self._runs and self._runs[-1].last > last_kept:
            self._runs[-1] = TermRun(self._runs[-1].term, self._runs[-1].first, last_kept)
        while self._spans and self._spans[-1][0] > last_kept:
            self._spans.pop()
        if self._spans and self._spans[-1][1] > last_kept:
            first, _, *at = self._spans[-1]
            self._spans[-1] = (first, last_kept, at[0], at[1])
        self._faulty = [(low, min(high, last_kept)) for low, high in self._faulty if low <= last_kept]
        self._repairs = {index: at for index, at in self._repairs.items() if index <= last_kept}
        self._memberships = {index for index in self._memberships if index <= last_kept}

    def purge(self, term: int, index: int) -> None:
        """The log begins behind (index, term)."""
        if self.adrift or index < self.base_index:
            return
        self.base_index, self.base_term = index, term
        self._runs = [TermRun(run.term, max(run.first, index + 1), run.last) for run in self._runs if run.last > index]
        self._spans = [span for span in self._spans if span[1] > index]
        self._faulty = [(max(low, index + 1), high) for low, high in self._faulty if high > index]
        self._repairs = {entry: at for entry, at in self._repairs.items() if entry > index}
        self._memberships = {entry for entry in self._memberships if entry > index}

    def hard_state(self, term: int, vote: Identity | None) -> None:
        """The higher one rules; within a term a vote, once given, stays."""
        if term > self.term or (term == self.term and self.vote is None):
            self.term, self.vote = term, vote
