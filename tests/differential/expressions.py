"""Random SQL expressions over given columns: deterministic ones, so that any SQLite gives the same value."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

LITERALS = (
    "NULL", "0", "1", "-1", "2", "7", "100",
    "4611686018427387904", "9223372036854775807", "-9223372036854775808", "1.5", "-0.0", "1e300", "0.1",
    "''", "'a'", "'B'", "'abc'", "'10'", "' 3x'", "'é'", "x''", "x'00ff'", "'2024-02-29'", "TRUE", "FALSE",
)  # fmt: skip
ONE_ARGUMENT = (
    "abs", "length", "upper", "lower", "hex", "typeof", "quote", "unicode", "trim", "ltrim", "round", "sign", "date",
    "octet_length",
    "json_quote", "julianday", "NOT ", "- ", "~ ",
)  # fmt: skip
TWO_ARGUMENTS = ("coalesce", "ifnull", "nullif", "max", "min", "instr", "trim", "substr", "round", "like", "glob")
OPERATORS = (
    "+", "-", "*", "/", "%", "||", "=", "<>", "<", "<=", ">", "IS", "IS NOT", "AND", "OR", "&", "|", "<<", ">>",
    "COLLATE NOCASE =", "LIKE", "IS DISTINCT FROM",
)  # fmt: skip
VALUES: tuple[object, ...] = (
    None, 0, 1, -5, 42, 1 << 62, (1 << 63) - 1, 0.5, -1e-9, "", "a", "Ab", "\xf6", b"", b"\x00\xff", "12", "x" * 300,
)  # fmt: skip
TYPES = ("INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC")


def happens(chance: Random, percent: int) -> bool:
    """So often. It does not where `chance` gives the least that it can, as it does to make a program small."""
    return chance.randrange(100) >= 100 - percent


class Expressions:
    """Of one program."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def literal(self) -> str:
        return self._chance.choice(LITERALS)

    def value(self) -> object:
        """As a bound parameter."""
        return self._chance.choice(VALUES)

    def make(self, columns: Sequence[str] = (), depth: int = 2) -> str:
        chance = self._chance
        if depth == 0 or not happens(chance, 70):
            return chance.choice(columns) if columns and happens(chance, 60) else self.literal()
        one, two = (self.make(columns, depth - 1) for _ in range(2))
        match chance.randrange(10):
            case 0 | 1:
                return f"{chance.choice(ONE_ARGUMENT)}({one})"
            case 2:
                return f"{chance.choice(TWO_ARGUMENTS)}({one}, {two})"
            case 3:
                return f"CASE WHEN {one} THEN {two} ELSE {self.literal()} END"
            case 4:
                return f"CAST({one} AS {chance.choice(TYPES)})"
            case 5:
                return f"({one} IN ({two}, {self.literal()}))"
            case 6:
                return f"({one} BETWEEN {two} AND {self.literal()})"
            case _:
                return f"({one} {chance.choice(OPERATORS)} {two})"
