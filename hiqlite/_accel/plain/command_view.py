"""Reading command payloads in plain Python: the twin that defines the meaning of `command_view` in `records.pyx`.

This is what a leader looks at before it replicates a write that came from elsewhere, so everything is checked.
Must not know SQL. Invariant: nothing passes that an iterator of native/command.h could stumble over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn

from hiqlite._accel.plain.commands import (
    EXPECTS,
    FOREIGN_KEYS_OFF,
    HEAD,
    NAMED,
    PARAMETERS_MAX,
    REF_NAME,
    REF_NUMBER,
    STATEMENT,
    VERSION,
    Operation,
)
from hiqlite._accel.plain.records import BAD_SHAPE, HEADER_SIZE, OK, REASONS, EntryKind, RecordKind, check, header
from hiqlite._accel.plain.values import BadText, decode_value, take
from hiqlite.errors import ProtocolError


class StatementView(NamedTuple):
    """One statement of a command: which text, how many parameters, and their names when they are named."""

    text_number: int
    named: bool
    parameter_count: int
    names: tuple[str, ...] | None


class CommandView(NamedTuple):
    """What a checked command asks for; texts are UTF-8. `expects` has one item per statement."""

    operation: int
    flags: int
    session: int
    sequence: int
    window_low: int
    request_id: str
    texts: list[bytes]
    statements: list[StatementView]
    expects: list[int | None]


COMMAND_REASONS: Final = (
    "is sound",
    "ends too early",
    "has a header that contradicts the format",
    "has a text, a name or a request id that is not clean UTF-8",
    "has a statement that contradicts the format",
    "has a parameter that no value stands for",
    "has bytes left over",
)
SHORT, BAD_HEADER, BAD_TEXT, BAD_STATEMENT, BAD_PARAMETER, EXCESS = range(1, 7)


def command_error(code: int) -> ProtocolError:
    return ProtocolError(f"command {COMMAND_REASONS[code]}")


def bad_command(code: int) -> NoReturn:
    raise command_error(code)


def command_view(record: Any) -> CommandView:
    """Check one whole record, sealed or not, that holds a command or a migration, and show what it asks for.

    Raises:
        ProtocolError: anything about it contradicts the format.
    """
    view = memoryview(record).cast("B")
    code = check(view, 0, sealed=False)
    found = header(view) if code == OK else None
    if found is None or found.length != len(view) or found.kind != RecordKind.ENTRY:
        raise ProtocolError(f"record of a command {REASONS[code or BAD_SHAPE]}")
    payload = view[HEADER_SIZE : HEADER_SIZE + found.payload_length]
    if len(payload) < HEAD.size:
        bad_command(SHORT)
    version, operation, flags, count, session, sequence, low, id_size, text_count, reserved = HEAD.unpack_from(payload)
    migration = operation == Operation.MIGRATION
    if found.entry_kind != (EntryKind.MIGRATION if migration else EntryKind.COMMAND):
        bad_command(BAD_HEADER)
    if version != VERSION or reserved or flags & ~3 or (flags & FOREIGN_KEYS_OFF and not migration):
        bad_command(BAD_HEADER)
    if not _counts_agree(operation, text_count, count):
        bad_command(BAD_HEADER)
    request_id, texts, offset = _texts(payload, id_size, text_count)
    if len(payload) - offset < count * (4 + STATEMENT.size):
        bad_command(SHORT)
    expects: list[int | None] = []
    statements: list[StatementView] = []
    for number in range(count):
        size, offset = _u32(payload, offset)
        body, offset = _take(payload, offset, size)
        statement, expected = _statement_view(memoryview(body), operation == Operation.TXN, number, text_count)
        statements.append(statement)
        expects.append(expected)
    if offset != len(payload):
        bad_command(EXCESS)
    return CommandView(operation, flags, session, sequence, low, request_id, texts, statements, expects)


def _counts_agree(operation: int, texts: int, statements: int) -> bool:
    return (
        (operation == Operation.EXECUTE and texts == 1 and statements == 1)
        or (operation == Operation.EXECUTE_MANY and texts == 1 and statements >= 1)
        or (operation == Operation.TXN and 1 <= texts <= statements)
        or (operation == Operation.BATCH and texts == 1 and statements == 0)
        or (operation == Operation.MIGRATION and texts == 3 and statements == 0)
    )


def _texts(payload: memoryview, id_size: int, text_count: int) -> tuple[str, list[bytes], int]:
    id_bytes, offset = _take(payload, HEAD.size, id_size)
    texts: list[bytes] = []
    for _ in range(text_count):
        size, offset = _u32(payload, offset)
        text, offset = _take(payload, offset, size)
        end, offset = _take(payload, offset, 1)
        if end != b"\x00" or b"\x00" in text:
            bad_command(BAD_TEXT)
        texts.append(text)
    for text in texts:
        _text(text)
    return _text(id_bytes), texts, offset


def _statement_view(body: memoryview, txn: bool, number: int, text_count: int) -> tuple[StatementView, int | None]:
    if len(body) < STATEMENT.size:
        bad_command(BAD_STATEMENT)
    text_number, flags, count, expected = STATEMENT.unpack_from(body)
    bad_expectation = expected < 0 or (expected > 0 and not flags & EXPECTS)
    if text_number >= text_count or flags & ~3 or count > PARAMETERS_MAX or bad_expectation:
        bad_command(BAD_STATEMENT)
    names = list(_parameters(body, bool(flags & NAMED), txn, number))
    if len(names) != count:
        bad_command(BAD_STATEMENT)
    named = tuple(name for name in names if name is not None) if flags & NAMED else None
    return StatementView(text_number, named is not None, count, named), expected if flags & EXPECTS else None


def _parameters(body: memoryview, named: bool, txn: bool, number: int) -> Iterator[str | None]:
    """The names (None without) of the parameters, each checked."""
    offset = STATEMENT.size
    while offset < len(body):
        name = None
        if named:
            size_bytes, offset = _take(body, offset, 2)
            name_body, offset = _take(body, offset, int.from_bytes(size_bytes, "little"))
            name = _text(name_body)
        if offset < len(body) and body[offset] in (REF_NUMBER, REF_NAME) and txn:
            statement, after = _u32(body, offset + 1)
            last, after = _u32(body, after)
            if body[offset] == REF_NAME:
                column, after = _take(body, after, last)
                _text(column)
            if statement >= number:
                bad_command(BAD_PARAMETER)
            offset = after
        else:
            offset = _value_end(body, offset)
        yield name


def _value_end(body: memoryview, offset: int) -> int:
    try:
        return decode_value(body, offset)[1]
    except BadText:
        bad_command(BAD_TEXT)
    except ProtocolError as error:
        bad_command(SHORT if "end inside" in error.message else BAD_PARAMETER)


def _take(data: memoryview, offset: int, size: int) -> tuple[bytes, int]:
    try:
        return take(data, offset, size)
    except ProtocolError:
        bad_command(SHORT)


def _u32(data: memoryview, offset: int) -> tuple[int, int]:
    body, offset = _take(data, offset, 4)
    return int.from_bytes(body, "little"), offset


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        bad_command(BAD_TEXT)
