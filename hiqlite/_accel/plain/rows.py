"""Rows in plain Python: the twin that defines the meaning of `Row`, `Columns` and `decode_rows` in `values.pyx`.

Must not know SQL or where bytes come from. Invariant: a row never changes, and has as many values as its columns
have names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hiqlite._accel.plain.values import BadText, Storage, decode_value, opened
from hiqlite.errors import ProtocolError, RowMappingError


class Columns:
    """The column names of one result, shared by its rows."""

    __slots__ = ("names", "numbers")

    names: tuple[str, ...]
    numbers: dict[str, int]  # -1: the name occurs more than once

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.numbers = {}
        for number, name in enumerate(self.names):
            if not isinstance(name, str):
                raise TypeError("column names are text")
            self.numbers[name] = -1 if name in self.numbers else number

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Columns, (self.names,))


def ambiguous(name: str) -> RowMappingError:
    return RowMappingError(f"the name {name!r} occurs twice in this row", hint="ask by number, or rename it with AS")


class Row(Sequence[Any]):
    """One row: an immutable sequence of values, also readable by column name.

    `row[0]`, `row["name"]` and `row.name` read a value; `keys()` and `asdict()` give names. It equals the tuple of
    its values. Methods win over columns for attribute access, so `row["count"]` is what always works.
    """

    __slots__ = ("_columns", "_values")

    _columns: Columns
    _values: tuple[Any, ...]

    def __new__(cls) -> Row:
        row = object.__new__(cls)
        object.__setattr__(row, "_columns", Columns(()))
        object.__setattr__(row, "_values", ())
        return row

    def keys(self) -> tuple[str, ...]:
        """The column names, in order."""
        return self._columns.names

    def asdict(self) -> dict[str, Any]:
        """A new dict of column name -> value. Raises RowMappingError when a name occurs twice."""
        if len(self._columns.numbers) != len(self._columns.names):
            raise ambiguous(next(name for name, number in self._columns.numbers.items() if number < 0))
        return dict(zip(self._columns.names, self._values, strict=True))

    def index(self, value: Any, start: int = 0, stop: int = 2**63 - 1) -> int:
        return self._values.index(value, start, stop)

    def count(self, value: Any) -> int:
        return self._values.count(value)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self._values[key]
        number = self._columns.numbers.get(key)
        if number is None:
            raise KeyError(f"no column {key!r}; there are {', '.join(self._columns.names)}")
        if number < 0:
            raise ambiguous(key)
        return self._values[number]

    def __getattr__(self, name: str) -> Any:
        number = self._columns.numbers.get(name)
        if number is None:
            raise AttributeError(f"no column {name!r}; there are {', '.join(self._columns.names)}")
        if number < 0:
            raise ambiguous(name)
        return self._values[number]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a row is immutable")

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __contains__(self, value: object) -> bool:
        return value in self._values

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, Row) else other)

    def __lt__(self, other: Any) -> bool:
        return self._values < (other._values if isinstance(other, Row) else other)

    def __le__(self, other: Any) -> bool:
        return self._values <= (other._values if isinstance(other, Row) else other)

    def __gt__(self, other: Any) -> bool:
        return self._values > (other._values if isinstance(other, Row) else other)

    def __ge__(self, other: Any) -> bool:
        return self._values >= (other._values if isinstance(other, Row) else other)

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        pairs = zip(self._columns.names, self._values, strict=True)
        return f"Row({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (new_row, (self._columns, self._values))


def new_row(columns: Columns, values: tuple[Any, ...]) -> Row:
    """The row of these values."""
    if len(values) != len(columns.names):
        raise ValueError(f"{len(values)} values for {len(columns.names)} columns")
    row = Row()
    object.__setattr__(row, "_columns", columns)
    object.__setattr__(row, "_values", values)
    return row


def decode_rows(
    data: Any, offset: int, row_count: int, columns: Columns, *, bytes_for_bad_text: bool = False
) -> list[Row]:
    """`row_count` rows whose values stand behind one another from `offset` on.

    Raises:
        RowMappingError: text that is not UTF-8, unless `bytes_for_bad_text`: then that value is bytes.
        ProtocolError: the bytes hold no such rows.
    """
    return take_rows(opened(data, offset), offset, row_count, columns, bytes_for_bad_text)[0]


def take_rows(
    view: memoryview, offset: int, row_count: int, columns: Columns, bytes_for_bad_text: bool
) -> tuple[list[Row], int]:
    if row_count < 0 or row_count * max(1, len(columns)) > len(view) - offset or (row_count and not len(columns)):
        raise ProtocolError("rows: the bytes end inside them")
    rows: list[Row] = []
    for number in range(row_count):
        values: list[Storage] = []
        for name in columns.names:
            try:
                value, offset = decode_value(view, offset)
            except BadText as error:
                if not bytes_for_bad_text:
                    raise bad_text(name, number) from error
                value, offset = error.body, offset + 5 + len(error.body)
            values.append(value)
        rows.append(new_row(columns, tuple(values)))
    return rows, offset


def bad_text(name: str, row_number: int) -> RowMappingError:
    return RowMappingError(
        f"column {name!r} of row {row_number}: text that is not UTF-8", hint="read it as bytes with into=, or CAST it"
    )
