"""What a program consists of: calls, each of one or more statements."""

from __future__ import annotations

from dataclasses import dataclass

Params = tuple[object, ...]
RETURNED = ("a", "b", "c")  # columns of the RETURNING that a later statement may refer to


@dataclass(frozen=True, slots=True)
class Step:
    """One call. `kind`: execute, returning, many, txn, atomic, batch, query, ordered (a query whose ORDER BY leaves
    nothing open); `statements` with their parameters, and of an atomic block how many rows each is expected to change.
    """

    kind: str
    statements: tuple[tuple[str, Params], ...]
    expected: tuple[int | None, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.statements} {self.expected or ''}"
