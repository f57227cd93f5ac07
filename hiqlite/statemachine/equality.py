"""When two databases are equal, and a hash that says so (semantics.md section 5, "Equality").

Equal means: the same schema, and the same rows of every table in the order of the primary key (WITHOUT ROWID) or of
a scan of the table itself. What runs leave behind about themselves (`_hiqlite_*`) is not part of it, because it depends
on where runs were cut. Must not know nodes or Raft. Invariant: the hash depends on content only: not on page layout,
not on indexes that exist to find rows, not on how often it is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import apsw
import msgpack

INTERNAL_PREFIX = "_hiqlite"
ROWID_NAMES = ("rowid", "_rowid_", "oid")
HASH_BYTES = 32
VIRTUAL = 2  # of PRAGMA table_xinfo's `hidden`: a generated column that is not stored
REST_BYTES = 1 << 18
COLUMNS_MAX = 2000  # of one result


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part begins: behind the row with this key, or at the first row of the first table from `table` on."""

    table: str = ""
    key: tuple[Any, ...] = ()


START = Place()


@dataclass(frozen=True, slots=True)
class Part:
    """Of a database: its schema, and the rows from one place to the next; `end` is None where there are no more."""

    digest: bytes
    rows: int
    end: Place | None


def content_hash(connection: apsw.Connection) -> str:
    """Hash of schema and rows, as of one moment, even while another connection writes.

    Args:
        connection: of the database to be read; a reader's guard lets everything pass that is used here.
    """
    with one_snapshot(connection):
        return hash_part(connection, START).digest.hex()


def hash_part(
    connection: apsw.Connection,
    begin: Place,
    bytes_max: int | None = None,
    rest: Callable[[], object] = lambda: None,
) -> Part:
    """Hash of the schema and of the rows from `begin` on; the caller holds the snapshot (`one_snapshot`).

    Args:
        bytes_max: ends behind the row that reaches so many bytes; None: with the last row of all.
        rest: called whenever some `REST_BYTES` of rows were read.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for row in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid"):
        if not str(row[2]).startswith(INTERNAL_PREFIX):
            digest.update(msgpack.packb(row))
    count = size_bytes = rested_bytes = 0
    for table in _tables(connection):
        if table.name < begin.table:
            continue
        digest.update(msgpack.packb((table.name, table.columns)))
        # Between two parts it may have become another table of that name: then all of it is read.
        is_begun = table.name == begin.table and len(begin.key) == len(table.key)
        for row, end in _rows(connection, table, begin.key if is_begun else ()):
            packed = msgpack.packb(row)
            digest.update(packed)
            count += 1
            size_bytes += len(packed)
            if bytes_max is not None and size_bytes >= bytes_max and end:
                return Part(digest.digest(), count, Place(table.name, end))
            if size_bytes >= rested_bytes + REST_BYTES:
                rested_bytes = size_bytes
                rest()
    return Part(digest.digest(), count, None)


@dataclass(frozen=True, slots=True)
class _Key:
    """One column of what rows are told apart by, as the table's own order has it."""

    name: str
    collation: str
    descending: bool

    @property
    def column(self) -> str:
        return f"{quoted(self.name)} COLLATE {quoted(self.collation)}" if self.collation else quoted(self.name)


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    key: tuple[_Key, ...]  # empty: nothing that a statement can name
    without_rowid: bool

    def selects(self, *, behind: bool, as_bytes: bool) -> list[str]:
        """All rows, or those `behind` the key that is bound: key, then columns; `as_bytes`: no key that may be text.
        Where one result may not have so many columns, several give the parts of each row."""
        names = [quoted(name) for name in self.columns]
        if as_bytes:
            names = [part for name in names for part in (f"typeof({name})", f"CAST({name} AS BLOB)")]
        if not (as_bytes and self.without_rowid):
            names[:0] = [quoted(one.name) for one in self.key]
        source = self._source(behind)
        groups = [names[at : at + COLUMNS_MAX] for at in range(0, len(names), COLUMNS_MAX)]
        return [f"SELECT {', '.join(group)} FROM {source}" for group in groups]

    def _source(self, behind: bool) -> str:
        parts = [quoted(self.name)]
        if not self.without_rowid:
            parts.append("NOT INDEXED")
        if behind:
            parts.append(f"WHERE {self._behind()}")
        if self.key:
            order = (f"{one.column}{' DESC' if one.descending else ''}" for one in self.key)
            parts.append(f"ORDER BY {', '.join(order)}")
        return " ".join(parts)

    def _behind(self) -> str:
        """`?1` and so on are the key."""
        named = [(one, f"?{number}") for number, one in enumerate(self.key, 1)]
        if len({one.descending for one in self.key}) == 1:  # one comparison, which the table's tree answers
            operator = "<" if self.key[0].descending else ">"
            return f"({', '.join(one.column for one in self.key)}) {operator} ({', '.join(text for _, text in named)})"
        choices = []
        for at, (one, text) in enumerate(named):
            same = [f"{before.column} = {value}" for before, value in named[:at]]
            choices.append(" AND ".join([*same, f"{one.column} {'<' if one.descending else '>'} {text}"]))
        return " OR ".join(f"({choice})" for choice in choices)


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
        described = connection.execute(f"PRAGMA table_xinfo({quoted(name)})").fetchall()
        # What is computed at each reading follows from the other columns, and may fail.
        columns = tuple(str(column[1]) for column in described if column[6] != VIRTUAL)
        if without_rowid:
            key = _primary_key(connection, name)
        else:
            taken = {str(column[1]).lower() for column in described}
            key = [_Key(one, "", descending=False) for one in ROWID_NAMES if one not in taken][:1]
        found.append(_Table(name, columns, tuple(key), bool(without_rowid)))
    return sorted(found, key=lambda table: table.name)


def _primary_key(connection: apsw.Connection, table: str) -> list[_Key]:
    """Of a table WITHOUT ROWID, as its tree is ordered: that may be otherwise than by the columns' own collations."""
    indexes = connection.execute(f"PRAGMA index_list({quoted(table)})").fetchall()
    (index,) = (str(one[1]) for one in indexes if one[3] == "pk")
    described = connection.execute(f"PRAGMA index_xinfo({quoted(index)})").fetchall()
    found = []
    for _, _, column, descending, collation, is_key in described:
        if is_key:
            # Where it is the column's own, it is left out: SQLite would not look the key up in the tree else.
            own = str(connection.column_metadata(None, table, str(column))[1])
            named = "" if own.lower() == str(collation).lower() else str(collation)
            found.append(_Key(str(column), named, bool(descending)))
    return found


Row = tuple[Any, ...]


def _rows(connection: apsw.Connection, table: _Table, key: Row) -> Iterator[tuple[Row, Row]]:
    """Rows behind `key`, each with its own; () where no statement can name it."""
    width = len(table.key)
    try:
        for row in _select(connection, table.selects(behind=bool(key), as_bytes=False), key):
            key = row[:width]
            yield row, key
        return
    except UnicodeDecodeError:
        pass  # text that is not UTF-8: on every equal database, so every one of them comes here
    if width == 0:
        key = ()
    for row in _select(connection, table.selects(behind=bool(key), as_bytes=True), key):
        yield row, () if table.without_rowid else row[:width]


def _select(connection: apsw.Connection, selects: list[str], key: Row) -> Iterator[Row]:
    with ExitStack() as stack:
        cursors = [stack.enter_context(closing(connection.execute(sql, key or None))) for sql in selects]
        if len(cursors) == 1:
            yield from cursors[0]
        for parts in zip(*cursors, strict=True) if len(cursors) > 1 else ():
            yield tuple(value for part in parts for value in part)


def quoted(name: str) -> str:
    """A name as SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
