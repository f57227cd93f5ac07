"""Writing command payloads in plain Python: the twin that defines the meaning of that half of `records.pyx`.

A command is what one write call asks for (docs/formats.md section 3): texts, each once, and statements that name them
by number. Must not know SQL: a text is text. Invariant: what `encode_command` gave passes `command_view`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from hiqlite._accel.plain.records import HEADER_SIZE, EntryKind, RecordKind, unsealed
from hiqlite._accel.plain.values import encode_value, refuse
from hiqlite.errors import ParameterError, UsageError

VERSION: Final = 1
HEAD: Final = struct.Struct("<BBHIQQQHHI")
STATEMENT: Final = struct.Struct("<HHIq")
PARAMETERS_MAX: Final = 32766  # SQLite's SQLITE_MAX_VARIABLE_NUMBER
TEXTS_MAX: Final = 0xFFFF
NAME_SIZE_MAX: Final = 0xFFFF
KIND_AT, ENTRY_KIND_AT, PAYLOAD_LENGTH_AT = 5, 6, 8  # in a record
SIZE_MAX_DEFAULT: Final = 0xFFFFFFF0  # what a record can hold; callers give max_entry_size

ROWS_WANTED: Final = 1
FOREIGN_KEYS_OFF: Final = 2
NAMED, EXPECTS = 1, 2  # flags of a statement
REF_NUMBER, REF_NAME = 5, 6  # tags


class Operation(IntEnum):
    EXECUTE = 1
    EXECUTE_MANY = 2
    TXN = 3
    BATCH = 4
    MIGRATION = 5


@dataclass(frozen=True, slots=True)
class Reference:
    """A parameter of a `txn` whose value an earlier statement's RETURNING gives.

    `statement` counts from 0; `column` is a name or a number from 0.
    """

    statement: int
    column: int | str

    def __post_init__(self) -> None:
        number = self.column if isinstance(self.column, int) else 0
        if not isinstance(self.statement, int) or not isinstance(self.column, (int, str)):
            raise ParameterError("a reference is made of a statement's number and a column's name or number")
        if not 0 <= self.statement <= 0xFFFFFFFF or not 0 <= number <= 0xFFFFFFFF:
            raise ParameterError("the numbers in a reference count from 0")


# --------------------------------------------------------------------------- writing


def encode_command(
    operation: int,
    statements: Sequence[tuple[str, Any]],
    *,
    flags: int = 0,
    session: int = 0,
    sequence: int = 0,
    window_low: int = 0,
    request_id: str = "",
    expects: Sequence[int | None] | None = None,
    size_max: int = SIZE_MAX_DEFAULT,
) -> bytes:
    """The complete unsealed record of an execute, execute_many or txn.

    Args:
        statements: (text, parameters); parameters are a sequence, or a mapping of names.
        expects: rows that each statement must affect, None for any; as many as statements.
        size_max: bytes of the whole record.

    Raises:
        ParameterError: naming statement and parameter. UsageError: the text, the counts or the size.
    """
    texts: dict[str, int] = {}
    parts: list[bytes] = []
    if expects is not None and len(expects) != len(statements):
        raise UsageError(f"{len(expects)} expectations for {len(statements)} statements")
    for number, (text, parameters) in enumerate(statements):
        try:
            body = _statement(operation, number, parameters, expects[number] if expects else None)
        except ParameterError as error:
            raise in_statement(error, number, len(statements)) from error
        if not isinstance(text, str):
            utf8(text, "the statement")
        text_number = texts.setdefault(text, len(texts))
        parts.append(struct.pack("<IH", len(body) + 2, text_number) + body)
    check_counts(operation, len(texts), len(statements))
    head = (operation, flags, session, sequence, window_low, request_id)
    return _record(EntryKind.COMMAND, head, list(texts), parts, size_max)


def in_statement(error: ParameterError, number: int, count: int) -> ParameterError:
    """The error with the statement's number, when there are several."""
    return ParameterError(f"statement {number}, {error.message}") if count > 1 else error


def encode_batch(
    text: str,
    *,
    flags: int = 0,
    session: int = 0,
    sequence: int = 0,
    window_low: int = 0,
    request_id: str = "",
    size_max: int = SIZE_MAX_DEFAULT,
) -> bytes:
    """The complete unsealed record of a batch: one text, split when it is applied."""
    head = (Operation.BATCH, flags, session, sequence, window_low, request_id)
    return _record(EntryKind.COMMAND, head, [text], [], size_max)


def encode_migration(
    text: str,
    name: str,
    sha256_hex: str,
    foreign_keys_off: bool = False,
    *,
    session: int = 0,
    sequence: int = 0,
    window_low: int = 0,
    request_id: str = "",
    size_max: int = SIZE_MAX_DEFAULT,
) -> bytes:
    """The complete unsealed record of one migration file."""
    flags = FOREIGN_KEYS_OFF if foreign_keys_off else 0
    head = (Operation.MIGRATION, flags, session, sequence, window_low, request_id)
    return _record(EntryKind.MIGRATION, head, [text, name, sha256_hex], [], size_max)


def in_session(record: bytes, session: int, sequence: int, window_low: int) -> bytes:
    """The unsealed record of a command that was encoded outside of a session, as a write of one."""
    (size,) = struct.unpack_from("<I", record, PAYLOAD_LENGTH_AT)
    payload = bytearray(record[HEADER_SIZE : HEADER_SIZE + size])
    struct.pack_into("<QQQ", payload, 8, session, sequence, window_low)
    return unsealed(record[KIND_AT], record[ENTRY_KIND_AT], bytes(payload))


def check_counts(operation: int, text_count: int, statement_count: int) -> None:
    if operation not in (Operation.EXECUTE, Operation.EXECUTE_MANY, Operation.TXN):
        raise UsageError(f"operation {operation} has no statements")
    if statement_count == 0:
        raise UsageError("no statement was given")
    if operation == Operation.EXECUTE and statement_count != 1:
        raise UsageError(f"{statement_count} statements in one execute", hint="use txn() or batch()")
    if operation == Operation.EXECUTE_MANY and text_count != 1:
        raise UsageError("several statements in one execute_many", hint="use txn()")
    if text_count > TEXTS_MAX:
        raise UsageError(f"{text_count} different statements are more than one write can hold ({TEXTS_MAX})")


def _record(
    entry_kind: int, head: tuple[int, int, int, int, int, str], texts: list[str], parts: list[bytes], size_max: int
) -> bytes:
    operation, flags, session, sequence, window_low, request_id = head
    id_bytes = utf8(request_id, "the request id")
    if len(id_bytes) > 0xFFFF:
        raise UsageError("a request id has at most 65535 bytes")
    numbers = (session, sequence, window_low, len(id_bytes), len(texts), 0)
    payload = bytearray(HEAD.pack(VERSION, operation, flags, len(parts), *numbers))
    payload += id_bytes
    for text in texts:
        body = utf8(text, "the statement")
        if b"\x00" in body:
            raise nul_in_text()
        payload += struct.pack("<I", len(body)) + body + b"\x00"
    payload += b"".join(parts)
    size = HEADER_SIZE + len(payload) + -len(payload) % 8
    if size > size_max:
        raise too_large(size, size_max)
    return unsealed(RecordKind.ENTRY, entry_kind, bytes(payload))


def utf8(text: Any, what: str) -> bytes:
    if not isinstance(text, str):
        raise UsageError(f"{what} must be text, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} holds a lone surrogate, which UTF-8 cannot") from error


def nul_in_text() -> UsageError:
    return UsageError("the statement holds a NUL character")


def too_large(size: int, size_max: int) -> UsageError:
    return UsageError(f"a write of {size} bytes is larger than max_entry_size ({size_max})")


def too_many_parameters(count: int) -> ParameterError:
    return ParameterError(f"{count} parameters are more than SQLite takes ({PARAMETERS_MAX})")


def _statement(operation: int, number: int, parameters: Any, expected: Any) -> bytes:
    """A statement behind its text number."""
    encoded: list[bytes] = []
    flags = check_expectation(expected)
    if is_named(parameters):
        flags |= NAMED
        for name, value in parameters.items():
            body = name_bytes(name)
            encoded.append(struct.pack("<H", len(body)) + body + _parameter(operation, number, value, 0, name))
    else:
        for position, value in enumerate(parameters, 1):
            encoded.append(_parameter(operation, number, value, position, None))
    if len(encoded) > PARAMETERS_MAX:
        raise too_many_parameters(len(encoded))
    return struct.pack("<HIq", flags, len(encoded), expected or 0) + b"".join(encoded)


def check_expectation(expected: Any) -> int:
    """The statement flag for it."""
    if expected is None:
        return 0
    if not isinstance(expected, int) or not 0 <= expected < 2**63:
        raise UsageError(f"an expectation is a number of rows, not {expected!r}")
    return EXPECTS


def is_named(parameters: Any) -> bool:
    """Whether parameters go by name; ParameterError when they are neither a sequence nor a mapping."""
    kind = type(parameters)
    if isinstance(parameters, Mapping):
        return True
    listed = hasattr(kind, "__getitem__") and hasattr(kind, "__len__") and hasattr(kind, "__iter__")
    if not listed or isinstance(parameters, (str, bytes, bytearray, memoryview)):
        raise ParameterError(f"parameters are a sequence or a mapping, not {kind.__name__}")
    return False


def name_bytes(name: Any) -> bytes:
    if not isinstance(name, str) or not name:
        raise ParameterError(f"a parameter's name is text, not {name!r}")
    try:
        body = str.__str__(name).encode()
    except UnicodeEncodeError:
        refuse(0, name, "a name with a lone surrogate, which UTF-8 cannot hold")
    if len(body) > NAME_SIZE_MAX:
        raise ParameterError(f"a parameter's name has {len(body)} bytes, more than {NAME_SIZE_MAX}")
    return body


def check_reference(operation: int, number: int, value: Reference, position: int, name: str | None) -> None:
    if operation != Operation.TXN:
        refuse(position, name, "a reference to an earlier RETURNING has a place in a txn only")
    if value.statement >= number:
        refuse(position, name, f"a reference to statement {value.statement}, which is not an earlier one")


def _parameter(operation: int, number: int, value: Any, position: int, name: str | None) -> bytes:
    if type(value) is not Reference:
        return encode_value(value, position, name)
    check_reference(operation, number, value, position, name)
    if isinstance(value.column, str):
        body = name_bytes(value.column)
        return struct.pack("<BII", REF_NAME, value.statement, len(body)) + body
    return struct.pack("<BII", REF_NUMBER, value.statement, value.column)
