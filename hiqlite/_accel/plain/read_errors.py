"""What a failed read raises: from the kinds and codes of `native/reads.h` to the tree of `hiqlite.errors`.

Must not know connections or threads. Invariant: an error of a read has outcome None, because nothing was to be
applied.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

from hiqlite._accel import guard
from hiqlite.errors import (
    HiqliteError,
    Overloaded,
    ParameterError,
    RequestTimeout,
    SchemaError,
    ShuttingDown,
    SnapshotCorruption,
    StatementError,
    StorageError,
    UsageError,
)

# Kinds and reasons as in native/reads.h.
SQLITE, WRITES, WRITES_ROWS, EMPTY, SEVERAL, TRANSACTION, PARAMETER, TOO_BIG, CROWDED, STOPPED, MEMORY = range(1, 12)
CANCELLED, DEADLINE, IDLE, CLOSING = range(1, 5)

SQL_SHOWN_CHARACTERS: Final = 200
SQLITE_AUTH: Final = 23
SCHEMA_CLASS: Final = 3  # HQ_CLASS_SCHEMA of native/guard.h
# The machine's fault and not the statement's: IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, READONLY, NOTADB.
STORAGE_CODES: Final = frozenset({8, 10, 11, 13, 14, 15, 26})
DAMAGE_CODES: Final = frozenset({11, 26})  # CORRUPT, NOTADB
CORRUPT_VTAB: Final = 267  # of a virtual table: by SQL, the file has no part in it
DAMAGED_HINT: Final = "a member of a cluster is filled by the others when it starts again; alone it needs a backup"
BUSY_CODES: Final = frozenset({5, 6})  # BUSY, LOCKED
WRITE_WORDS: Final = re.compile(r"(insert|update|delete|replace|create|drop|alter|reindex|analyze)\b", re.IGNORECASE)
LEADING: Final = re.compile(r"(\s+|--[^\n]*(\n|$)|/\*.*?(\*/|$)|;)*", re.DOTALL)

E = TypeVar("E", bound=HiqliteError)


def of_read(error: E) -> E:
    """The same error, said to be one of a read."""
    error.outcome = None
    return error


def read_error(kind: int, code: int, text: str, sql: str) -> HiqliteError:
    """The exception for one failed read.

    Args:
        kind: HQ_READ_* of reads.h.
        code: extended SQLite code for SQLITE, reason for STOPPED.
        text: SQLite's own sentence, or ours, for PARAMETER and SQLITE.
        sql: the statement's text, shown shortened.
    """
    return of_read(_stopped(code) if kind == STOPPED else _refused(kind, code, text, sql))


def _refused(kind: int, code: int, text: str, sql: str) -> HiqliteError:
    if kind in (WRITES, WRITES_ROWS):
        if sql[_leading_size(sql) :][:6].lower() == "vacuum":
            return statement_error("VACUUM is not allowed", SQLITE_AUTH, sql)
        return _writes(kind == WRITES_ROWS)
    if kind == EMPTY:
        return UsageError("the text holds no statement")
    if kind == SEVERAL:
        return UsageError("a read is one statement", hint="use batch() for several; its reads return no rows")
    if kind == TRANSACTION:
        return statement_error("a read cannot control transactions", 0, sql)
    if kind == PARAMETER:
        return ParameterError(text)
    if kind == TOO_BIG:
        error = statement_error("the result is larger than a read may hold in memory", 18, sql)
        error.hint = "use query_iter(), or LIMIT"
        return error
    if kind == CROWDED:
        return Overloaded("too many bytes of results wait to be fetched", hint="read less at once, or use query_iter()")
    if kind == MEMORY:
        return Overloaded("no memory for this read")
    return _sqlite(code, text, sql)


def _writes(returns_rows: bool) -> UsageError:
    name = "execute_returning" if returns_rows else "execute"
    return UsageError("this statement writes, and was given to a read", hint=f"use {name}()")


def _sqlite(code: int, text: str, sql: str) -> HiqliteError:
    primary = code & 0xFF
    if primary == SQLITE_AUTH:
        body = sql[_leading_size(sql) :]
        if WRITE_WORDS.match(body) or (body[:4].lower() == "with" and WRITE_WORDS.search(body)):
            return _writes(bool(re.search(r"\breturning\b", body, re.IGNORECASE)))
    if primary in DAMAGE_CODES and code != CORRUPT_VTAB:
        return SnapshotCorruption(f"the database is damaged: {text} (SQLite code {code})", hint=DAMAGED_HINT)
    if primary in STORAGE_CODES:
        return StorageError(f"the database cannot be read: {text} (SQLite code {code})")
    if primary in BUSY_CODES:
        return Overloaded(f"the database is busy: {text}")
    return statement_error(text, code, sql, schema=guard.error_class(code, text) == SCHEMA_CLASS)


def statement_error(text: str, code: int, sql: str, *, schema: bool = False) -> StatementError:
    shown = sql if len(sql) <= SQL_SHOWN_CHARACTERS else sql[: SQL_SHOWN_CHARACTERS - 3] + "..."
    kind = SchemaError if schema else StatementError
    return kind(text, sqlite_code=code & 0xFF, extended_code=code, statement_index=0, sql=shown)


def _stopped(reason: int) -> HiqliteError:
    if reason == CLOSING:
        return ShuttingDown("the node closes its readers")
    if reason == IDLE:
        return RequestTimeout("nothing was fetched from this iteration for too long", hint="see query_iter_idle")
    if reason == DEADLINE:
        return RequestTimeout("the read took longer than its time limit", hint="pass timeout=, or ask for less")
    return RequestTimeout("the read was cancelled")


def _leading_size(sql: str) -> int:
    found = LEADING.match(sql)
    return found.end() if found else 0


__all__ = ["of_read", "read_error", "statement_error"]
