"""What a log means, entry by entry: the plain lists that invariants look at.

Must not know when anything becomes durable. Invariant: at and below the base nothing is told to anybody; the lists keep
it for the invariants alone.
"""

from __future__ import annotations

from typing import Any

from hiqlite.engine.model import Identity

Operation = tuple[int, str, Any, Any, Any]


class Content:
    """A log after some operations."""

    def __init__(self) -> None:
        self.term = 0
        self.vote: Identity | None = None
        self.votes: dict[int, Identity | None] = {}  # by term, as last durable in it
        self.base = 0  # entries up to here are purged: they are in the database only
        self.terms: list[int] = [0]  # by index
        self.values: list[int] = [0]
        self.faulty: set[int] = set()  # entries that are damaged; the lists still tell what they were
        self.unknown: set[int] = set()  # those of them whose term is lost as well

    def copy(self) -> Content:
        made = Content()
        made.become(self)
        return made

    def become(self, other: Content) -> None:
        self.term, self.vote, self.base = other.term, other.vote, other.base
        self.votes = dict(other.votes)
        self.terms, self.values = list(other.terms), list(other.values)
        self.faulty, self.unknown = set(other.faulty), set(other.unknown)

    def apply(self, operation: Operation) -> None:
        _, kind, first, second, third = operation
        if kind == "append":
            if first != len(self.terms):
                raise AssertionError(f"append at {first}, the log ends at {len(self.terms) - 1}")
            self.terms.extend(second)
            self.values.extend(third)
        elif kind == "cut":
            del self.terms[first + 1 :]
            del self.values[first + 1 :]
            self.faulty = {index for index in self.faulty if index <= first}
            self.unknown &= self.faulty
        elif kind == "reset":
            self.begin_behind(first, second, third)
        elif kind == "repair":
            last = first + len(second) - 1
            self.terms[first : last + 1] = second
            self.values[first : last + 1] = third
            self.faulty -= set(range(first, last + 1))
            self.unknown &= self.faulty
        elif kind == "purge":
            self.purge(first)
            self.term, self.vote = third  # written once more, and the metadata may have been ahead
        else:
            self.term, self.vote = first, second
            self.votes[first] = second

    def know(self, term: int, vote: Identity | None) -> None:
        """What is known of term and vote from elsewhere: the higher one rules, a vote beats none in the same term."""
        if term > self.term or (term == self.term and self.vote is None):
            self.term, self.vote = term, vote

    def begin_behind(self, index: int, terms: list[int], values: list[int]) -> None:
        """An empty log behind a database that holds everything up to `index`."""
        self.base = index
        self.terms, self.values = list(terms[: index + 1]), list(values[: index + 1])
        self.faulty.clear()
        self.unknown.clear()

    def purge(self, index: int) -> None:
        """Forget entries up to `index`; never waited for."""
        self.base = index
        self.faulty = {one for one in self.faulty if one > index}
        self.unknown &= self.faulty

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is durable here."""
        return index < len(self.terms) and self.terms[index] == term
