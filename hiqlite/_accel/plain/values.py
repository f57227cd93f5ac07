"""Values in plain Python: what becomes of a Python value, and how it is written and read.

This twin defines the meaning of `values.pyx`; the conversions that are not worth C (dates, Decimal, Json ...) stand
only here and are called from there. Must not know records, SQL or where bytes come from. Invariant: a value has one
encoding (docs/formats.md section 1), so equal content has equal bytes, and decoding gives the storage class back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NoReturn
from uuid import UUID

from hiqlite.errors import ParameterError, ProtocolError

Storage = int | float | str | bytes | None

NULL, INTEGER, REAL, TEXT, BLOB = range(5)
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
SIZE_MAX: Final = 2**31 - 1  # of one TEXT or BLOB: SQLite's own upper limit


class Json:
    """Marks a value to be stored as JSON text: `Json({"a": 1})` is stored as `{"a":1}`."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Json) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # what it holds is mostly mutable

    def __repr__(self) -> str:
        return f"Json({self.value!r})"


# --------------------------------------------------------------------------- Python value -> storage class


def place(position: int, name: str | None) -> str:
    """How an error names a parameter: SQLite counts from 1."""
    if name is not None:
        return f"parameter {name!r}"
    return f"parameter {position}" if position else "value"


def refuse(position: int, name: str | None, reason: str) -> NoReturn:
    raise ParameterError(f"{place(position, name)}: {reason}")


def storage(value: Any, position: int = 0, name: str | None = None) -> Storage:
    """The value of SQLite's storage class that stands for a Python value.

    Args:
        value: anything a caller gave.
        position: number of the parameter, from 1; 0 when there is none.
        name: of a named parameter, else None.

    Returns:
        None, or an exact int, float, str or bytes that can be encoded.

    Raises:
        ParameterError: naming place and type, or what is wrong with the value.
    """
    while isinstance(value, Enum):
        value = value.value
    if isinstance(value, (str, int, float, type(None))):
        return _plain(value, position, name)
    if isinstance(value, (date, time)):
        return _moment(value, position, name)
    if isinstance(value, Decimal):
        if value.is_nan():
            refuse(position, name, "NaN has no place in SQLite, which would store NULL; use None")
        return str(value)
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, Json):
        return _plain(_json(value.value, position, name), position, name)
    return _blob(value, position, name)


def _plain(value: Any, position: int, name: str | None) -> Storage:
    if isinstance(value, str):
        text = str.__str__(value)
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            refuse(position, name, "text with a lone surrogate, which UTF-8 cannot hold")
        _check_size(size, position, name)
        return text
    if isinstance(value, int):
        integer = int(value)
        if not INTEGER_MIN <= integer <= INTEGER_MAX:
            refuse(position, name, "an integer beyond 64 bit")
        return integer
    if isinstance(value, float):
        real = float(value)
        if real != real:
            refuse(position, name, "NaN has no place in SQLite, which would store NULL; use None")
        return real
    return None


def _check_size(size: int, position: int, name: str | None) -> None:
    if size > SIZE_MAX:
        refuse(position, name, f"{size} bytes are more than SQLite can hold in one value")


def _moment(value: date | time, position: int, name: str | None) -> str:
    """Text that sorts by time, and with `CURRENT_TIMESTAMP`."""
    if isinstance(value, datetime):
        if value.utcoffset() is not None:
            try:
                value = value.astimezone(UTC)
            except OverflowError:
                refuse(position, name, "a time that leaves the years 1 to 9999 when it is converted to UTC")
        else:
            value = value.replace(tzinfo=None)
        return value.isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, time):
        return value.isoformat(timespec="microseconds")
    return value.isoformat()


def _json(value: Any, position: int, name: str | None) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError(f"{place(position, name)}: no JSON: {error}") from error


def _blob(value: Any, position: int, name: str | None) -> bytes:
    """Bytes-like objects. Numbers of other libraries offer a buffer too: they are refused, not stored as bytes."""
    kind = type(value)
    if not (hasattr(kind, "__index__") or hasattr(kind, "__float__")):
        try:
            view = memoryview(value)
        except TypeError:
            pass  # no buffer: falls to the refusal below
        else:
            with view:
                _check_size(view.nbytes, position, name)
                return view.tobytes()
    refuse(position, name, f"a value of type {kind.__module__}.{kind.__qualname__} cannot be stored")


# --------------------------------------------------------------------------- encoding


def encode_value(value: Any, position: int = 0, name: str | None = None) -> bytes:
    stored = storage(value, position, name)
    if stored is None:
        return b"\x00"
    if isinstance(stored, int):
        return struct.pack("<Bq", INTEGER, stored)
    if isinstance(stored, float):
        return struct.pack("<Bd", REAL, stored)
    tag, body = (TEXT, stored.encode()) if isinstance(stored, str) else (BLOB, stored)
    return struct.pack("<BI", tag, len(body)) + body


def encode_values(values: Sequence[Any]) -> bytes:
    """All values, one behind the other."""
    return b"".join(encode_value(value, position) for position, value in enumerate(values, 1))


# --------------------------------------------------------------------------- decoding


class BadText(Exception):
    """Text that is not UTF-8: who decodes decides what that means. Carries the bytes."""

    def __init__(self, body: bytes) -> None:
        super().__init__("text is not UTF-8")
        self.body = body


def take(data: memoryview, offset: int, size: int) -> tuple[bytes, int]:
    """`size` bytes from `offset` on, and the offset behind them."""
    if size > len(data) - offset:
        raise ProtocolError("value: the bytes end inside it")
    return bytes(data[offset : offset + size]), offset + size


def decode_value(data: memoryview, offset: int) -> tuple[Storage, int]:
    """One value and the offset behind it."""
    tag, offset = take(data, offset, 1)
    kind = tag[0]
    if kind == NULL:
        return None, offset
    if kind in (INTEGER, REAL):
        body, offset = take(data, offset, 8)
        number: int | float = struct.unpack("<q" if kind == INTEGER else "<d", body)[0]
        if number != number:
            raise ProtocolError("value: NaN")
        return number, offset
    if kind not in (TEXT, BLOB):
        raise ProtocolError("value: unknown tag")
    head, offset = take(data, offset, 4)
    body, offset = take(data, offset, int.from_bytes(head, "little"))
    if kind == BLOB:
        return body, offset
    try:
        return body.decode(), offset
    except UnicodeDecodeError as error:
        raise BadText(body) from error


def opened(data: Any, offset: int) -> memoryview:
    """The bytes of `data`, with `offset` inside them."""
    view = memoryview(data).cast("B")
    if not 0 <= offset <= len(view):
        raise ProtocolError(f"offset {offset} lies outside of {len(view)} bytes")
    return view


def decode_values(data: Any, offset: int = 0, count: int = 1) -> tuple[tuple[Storage, ...], int]:
    """`count` values from `offset` on, and the offset behind them.

    Raises:
        ProtocolError: the bytes hold no such values.
    """
    view = opened(data, offset)
    if not 0 <= count <= len(view) - offset:
        raise ProtocolError("value: the bytes end inside it")
    values: list[Storage] = []
    for _ in range(count):
        try:
            value, offset = decode_value(view, offset)
        except BadText as error:
            raise ProtocolError("value: text is not UTF-8") from error
        values.append(value)
    return tuple(values), offset
