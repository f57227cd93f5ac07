"""What SQL may do on which connection: roles, what was seen at prepare, and refusals as errors.

The rules themselves stand in `_accel/native/guard_rules.c`, because SQLite asks them while it prepares, on threads
without the GIL. This module gives them names and turns a refusal or an error of SQLite into the tree of
`hiqlite.errors`. Must not know connections or records. Invariant: each class number of docs/formats.md section 4 is one
exception class.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from hiqlite._accel import guard
from hiqlite.errors import (
    ConstraintError,
    DeterminismError,
    ExpectationFailed,
    HiqliteError,
    MigrationError,
    ParameterError,
    SchemaError,
    StatementError,
    UsageError,
)

SQL_SHOWN_CHARACTERS: Final = 200


class Role(IntEnum):
    """What a connection is for; fixed when its guard is attached."""

    WRITER = guard.ROLE_WRITER
    READER = guard.ROLE_READER
    INSPECTOR = guard.ROLE_INSPECTOR


class Seen(IntFlag):
    """What preparing a statement showed; the comments stand in native/guard.h."""

    CHANGES = guard.SEEN_CHANGES
    VIRTUAL = guard.SEEN_VIRTUAL
    SCHEMA = guard.SEEN_SCHEMA
    RELOAD = guard.SEEN_RELOAD
    RANDOM = guard.SEEN_RANDOM
    TIME = guard.SEEN_TIME
    DENIED = guard.SEEN_DENIED
    RECURSIVE = guard.SEEN_RECURSIVE
    INSERT = guard.SEEN_INSERT
    UPDATE = guard.SEEN_UPDATE
    DELETE = guard.SEEN_DELETE
    STAT = guard.SEEN_STAT
    DROP = guard.SEEN_DROP
    LOCAL = guard.SEEN_LOCAL
    EXPLAIN = guard.SEEN_EXPLAIN
    READS = guard.SEEN_READS
    CREATE_INDEX = guard.SEEN_CREATE_INDEX
    REMEMBERS = guard.SEEN_REMEMBERS
    TRIGGER = guard.SEEN_TRIGGER


ERROR_CLASSES: Final[dict[int, type[HiqliteError]]] = {
    1: StatementError,
    2: ConstraintError,
    3: SchemaError,
    4: ExpectationFailed,
    5: DeterminismError,
    6: UsageError,
    7: ParameterError,
    8: MigrationError,
}


def shortened(sql: str) -> str:
    """SQL as errors show it."""
    return sql if len(sql) <= SQL_SHOWN_CHARACTERS else sql[: SQL_SHOWN_CHARACTERS - 3] + "..."


def error_of(error_class: int, message: str, *, extended_code: int = 0, sql: str = "", index: int = 0) -> HiqliteError:
    """The exception for one refused or failed statement.

    Args:
        error_class: of docs/formats.md section 4; an unknown one (of a newer version) becomes StatementError.
        message: SQLite's sentence or the guard's reason.
        extended_code: SQLite's; 0 when SQLite had no part in it.
        sql: the statement's text, shown shortened.
        index: of the statement within the call, from 0.
    """
    kind = ERROR_CLASSES.get(error_class, StatementError)
    if not issubclass(kind, StatementError):
        return kind(message)
    return kind(
        message,
        sqlite_code=extended_code & 0xFF,
        extended_code=extended_code,
        statement_index=index,
        sql=shortened(sql),
    )
