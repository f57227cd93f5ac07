"""Text and parameters of a read, checked and put in order; encoded for a reader thread.

Must not know SQLite. Invariant: what is accepted here and what a write accepts are the same values, because
`storage` and `encode_values` decide on both; errors of reads have outcome None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hiqlite._accel.plain.read_errors import of_read
from hiqlite._accel.plain.values import Storage, storage
from hiqlite._accel.values import encode_values
from hiqlite.errors import ParameterError, UsageError

SQL_BYTES_MAX: Final = 1_000_000_000  # SQLite's own limit
NAME_BYTES_MAX: Final = 1000
Parameters = Sequence[Any] | Mapping[str, Any]


def checked_text(sql: Any) -> bytes:
    """The statement's text in UTF-8; UsageError for what SQLite could not take as a whole."""
    if not isinstance(sql, str):
        raise of_read(UsageError(f"SQL must be text, not {type(sql).__name__}"))
    if "\0" in sql:
        raise of_read(UsageError("SQL holds a NUL character"))
    try:
        text = sql.encode()
    except UnicodeEncodeError as error:
        raise of_read(UsageError("SQL holds a lone surrogate, which UTF-8 cannot hold")) from error
    if len(text) > SQL_BYTES_MAX:
        raise of_read(UsageError("the SQL text is longer than SQLite takes"))
    return text


def in_sequence(params: Any) -> tuple[Any, ...]:
    """Positional parameters as a tuple."""
    if isinstance(params, (str, bytes, bytearray, memoryview)) or not isinstance(params, Sequence):
        kind = type(params).__name__
        raise of_read(
            ParameterError(f"parameters must be a sequence or a mapping, not {kind}", hint="write [value] for one")
        )
    return tuple(params)


def in_order(names: tuple[str | None, ...], params: Any) -> tuple[Any, ...]:
    """Parameters in the order of the statement's.

    Args:
        names: of the statement's parameters without prefix; None where one has no name.
        params: a sequence for any statement, a mapping for one whose parameters all have names.
    """
    if not isinstance(params, Mapping):
        return in_sequence(params)
    values = []
    for position, name in enumerate(names, 1):
        if name is None:
            raise of_read(ParameterError(f"parameter {position} has no name", hint="give a sequence"))
        if name not in params:
            raise of_read(ParameterError(f"no value for parameter {name!r}"))
        values.append(params[name])
    for name in params:
        if name not in names:
            raise of_read(ParameterError(f"the statement has no parameter named {name!r}"))
    return tuple(values)


def plain_values(values: tuple[Any, ...]) -> tuple[Storage, ...]:
    """The same values in SQLite's storage classes."""
    try:
        return tuple(storage(value, position) for position, value in enumerate(values, 1))
    except ParameterError as error:
        raise of_read(error) from None


def encoded(params: Any) -> tuple[bytes, int, bool]:
    """Parameters as native/readpool.h takes them: bytes, count, whether they are named."""
    if not isinstance(params, Mapping):
        values = plain_values(in_sequence(params))
        return encode_values(values), len(values), False
    parts: list[bytes] = []
    for name, value in params.items():
        if not isinstance(name, str):
            raise of_read(ParameterError(f"names of parameters are text, not {type(name).__name__}"))
        shown = name.encode("utf-8", "replace")
        if len(shown) > NAME_BYTES_MAX:
            raise of_read(ParameterError(f"the statement has no parameter named {name[:100]!r}..."))
        try:
            parts += [len(shown).to_bytes(2, "little"), shown, encode_values([storage(value, 0, name)])]
        except ParameterError as error:
            raise of_read(error) from None
    return b"".join(parts), len(params), True


__all__ = ["checked_text", "encoded", "in_order", "in_sequence", "plain_values"]
