"""When two databases are equal, and a hash that says so (semantics.md section 5, "Equality").

Equal means: the same schema, and the same rows of every table in the order of the primary key (WITHOUT ROWID) or of
a scan of the table itself. What runs leave behind about themselves (`_hiqlite_*`) is not part of it, because it depends
on where runs were cut. Must not know nodes or Raft. Invariant: the hash depends on content only: not on page layout,
not on indexes that exist to find rows, not on how often it is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apsw
import msgpack

INTERNAL_PREFIX = "_hiqlite"
ROWID_NAMES = ("rowid", "_rowid_", "oid")
ROWS_PER_STEP = 1000  # part of the hash's meaning: rows are packed in lists of this length


def content_hash(connection: apsw.Connection) -> str:
    """Hash of schema and rows, as of one moment, even while another connection writes.

    Args:
        connection: of the database to be read; a reader's guard lets everything pass that is used here.
    """
    digest = hashlib.blake2b(digest_size=32)
    with one_snapshot(connection):
        for row in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid"):
            if not str(row[2]).startswith(INTERNAL_PREFIX):
                digest.update(msgpack.packb(row))
        for table in _tables(connection):
            digest.update(msgpack.packb((table.name, table.columns)))
            _add_rows(digest, connection, table)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    primary_key: tuple[str, ...]
    without_rowid: bool


@contextmanager
def one_snapshot(connection: apsw.Connection) -> Iterator[None]:
    """A statement that was begun and not finished keeps the connection's read transaction open."""
    held = connection.execute("SELECT 1 FROM sqlite_schema UNION ALL SELECT 2")
    try:
        next(held)
        yield
    finally:
        held.close(True)


def _tables(connection: apsw.Connection) -> list[_Table]:
    """Every table that holds rows of its own; a virtual table's rows stand in its shadow tables."""
    listed = connection.execute("PRAGMA table_list").fetchall()
    found = []
    for schema, name, kind, _, without_rowid, _ in listed:
        assert isinstance(name, str)
        if schema != "main" or kind not in ("table", "shadow") or name == "sqlite_schema":
            continue
        if name.startswith(INTERNAL_PREFIX):
            continue
        columns = connection.execute(f"PRAGMA table_xinfo({quoted(name)})").fetchall()
        key = [str(column[1]) for column in sorted(columns, key=lambda column: column[5] or 0) if column[5]]
        found.append(_Table(name, tuple(str(column[1]) for column in columns), tuple(key), bool(without_rowid)))
    return sorted(found, key=lambda table: table.name)


def _add_rows(digest: Any, connection: apsw.Connection, table: _Table) -> None:
    try:
        for rows in _steps(connection, _query(table, as_bytes=False)):
            digest.update(msgpack.packb(rows))
    except UnicodeDecodeError:
        # Text that is not UTF-8: on every equal database, so every one of them comes here.
        for rows in _steps(connection, _query(table, as_bytes=True)):
            digest.update(msgpack.packb(rows))


def _steps(connection: apsw.Connection, sql: str) -> Iterator[list[tuple[Any, ...]]]:
    cursor = connection.execute(sql)
    try:
        while rows := [row for _, row in zip(range(ROWS_PER_STEP), cursor, strict=False)]:
            yield rows
    finally:
        cursor.close(True)


def _query(table: _Table, *, as_bytes: bool) -> str:
    names = [quoted(name) for name in table.columns]
    if table.without_rowid:
        order = ", ".join(quoted(name) for name in table.primary_key)
    else:
        taken = {name.lower() for name in table.columns}
        free = [name for name in ROWID_NAMES if name not in taken]
        order = free[0] if free else ""
        names[:0] = free[:1]
    if as_bytes:
        names = [part for name in names for part in (f"typeof({name})", f"CAST({name} AS BLOB)")]
    hint = "" if table.without_rowid else " NOT INDEXED"
    return f"SELECT {', '.join(names)} FROM {quoted(table.name)}{hint}" + (f" ORDER BY {order}" if order else "")


def quoted(name: str) -> str:
    """A name as SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
