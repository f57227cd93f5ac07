"""The same calls on plain SQLite, as its documentation has them: what the cluster is compared with.

No guard, no log, no entry: one connection with the settings that the product documents, and BEGIN, COMMIT and ROLLBACK.
What the product's documents refuse beyond SQLite is refused here too: a row with the largest rowid, and a transaction
in which a reference finds no row or a number of rows is not the expected one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

import hiqlite

from .programs import RETURNED, Params, Step

Outcome = tuple[Any, ...]  # ("rows", ...), ("counts", ...), ("error", class, extended code, statement_index, message)
Counts = tuple[int, int]  # rows that were changed, rowid that was inserted
NO_TEXT: Outcome = ("rows", "text that is not UTF-8")
LARGEST_ROWID = (1 << 63) - 1
LARGEST_REFUSED = f"rowid {LARGEST_ROWID} is refused: after it SQLite would choose rowids at random"
WRITES = ("INSERT", "UPDATE", "DELETE", "WITH")
SCHEMA_WORDS = (
    "no such ", " already exists", "has no column named", " columns but ", "duplicate column name",
    "foreign key mismatch", "ambiguous column name", "because it is a view", "there is already",
    "may not be altered", "may not be modified",
)  # fmt: skip


class Refused(Exception):
    """By the product's rules: its outcome is what is told."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


@dataclass(slots=True)
class Ran:
    """What one statement gave; `readable`: each row of it, as text that is UTF-8."""

    counts: Counts
    rows: list[Any]
    readable: bool


class Plain:
    """One database."""

    def __init__(self, path: Path) -> None:
        self.connection = connection = apsw.Connection(str(path))
        connection.execute("PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").fetchall()
        for name, value in (("DQS_DML", 0), ("DQS_DDL", 0), ("DEFENSIVE", 1), ("ENABLE_QPSG", 1)):
            connection.config(getattr(apsw, f"SQLITE_DBCONFIG_{name}"), value)
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        self._wrote_largest = False
        self.refused = 0  # statements that wrote a row with the largest rowid
        connection.set_update_hook(self._row_written)
        connection.set_commit_hook(lambda: self._wrote_largest)  # rolls back

    def close(self) -> None:
        self.connection.close(True)

    def run(self, step: Step) -> list[Outcome]:
        """One outcome for the call; of a batch one for each statement, up to one that cannot be parsed."""
        sql, params = step.statements[0]
        match step.kind:
            case "query" | "ordered":
                return [self._query(sql, params, multiset if step.kind == "query" else in_order)]
            case "execute" | "returning":
                return [self._alone(0, sql, params, rows=step.kind == "returning")]
            case "batch":
                return self._batch(step.statements)
            case _:
                return [self._all(step)]

    def told_before(self, step: Step) -> Outcome | None:
        """The first statement of these that cannot be prepared, where none of them changes the schema."""
        for number, (sql, params) in enumerate(step.statements):
            try:
                self.connection.execute(f"EXPLAIN {sql}", (None,) * len(params)).fetchall()
            except apsw.Error as error:
                return _failure(error, number)
        return None

    # -- calls

    def _query(self, sql: str, params: Params, shown: Any) -> Outcome:
        try:
            ran = self._run(0, sql, params)
        except apsw.Error as error:
            return _failure(error, 0)
        return ("rows", shown(ran.rows)) if ran.readable else NO_TEXT

    def _alone(self, number: int, sql: str, params: Params, *, rows: bool = False) -> Outcome:
        try:
            ran = self._run(number, sql, params)
        except Refused as refused:
            return refused.outcome
        except apsw.Error as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK").fetchall()
            return _failure(error, number)
        if not rows:
            return "counts", (ran.counts,)
        return ("rows", multiset(ran.rows)) if ran.readable else NO_TEXT

    def _batch(self, statements: tuple[tuple[str, Params], ...]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for number, (sql, params) in enumerate(statements):
            outcomes.append(self._alone(number, sql, params))
            if str(outcomes[-1][-1]).endswith(": syntax error"):
                break
        return outcomes

    def _all(self, step: Step) -> Outcome:
        connection, ran, number = self.connection, list[Ran](), 0
        connection.execute("BEGIN IMMEDIATE").fetchall()
        try:
            for number, (sql, params) in enumerate(step.statements):
                ran.append(self._run(number, sql, _resolved(params, ran, number)))
                expected = step.expected[number] if step.expected else None
                if expected not in (None, ran[-1].counts[0]):
                    changed = f"{expected} rows were expected, {ran[-1].counts[0]} were changed"
                    raise Refused(("error", "expectation_failed", 0, number, changed))
            connection.execute("COMMIT").fetchall()
        except Refused as refused:
            self._roll_back()
            return refused.outcome
        except apsw.Error as error:
            self._roll_back()
            return _failure(error, number)
        counts = tuple(one.counts for one in ran)
        if step.kind != "atomic":
            return "counts", counts
        if not all(one.readable for one in ran):
            return NO_TEXT
        return "block", counts, tuple(multiset(one.rows) for one in ran)

    # -- one statement

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK").fetchall()

    def _row_written(self, kind: int, _database: str, _table: str, rowid: int) -> None:
        if rowid == LARGEST_ROWID and kind != apsw.SQLITE_DELETE:
            self._wrote_largest = True

    def _run(self, number: int, sql: str, params: Params) -> Ran:
        """To its end, whatever its rows hold. Raises Refused where it wrote the largest rowid."""
        connection = self.connection
        connection.set_last_insert_rowid(0)
        self._wrote_largest = False
        rows: list[Any] = []
        readable = True
        try:
            cursor = connection.execute(sql, params)
            while True:
                try:
                    row = cursor.fetchone()
                except UnicodeDecodeError:
                    readable = False
                    continue
                if row is None:
                    break
                rows.append(row)
        except apsw.Error:
            self._look_at_rowids(number)
            raise
        self._look_at_rowids(number)
        # An UPDATE of a virtual table sets it too; a result carries it only for statements that insert.
        rowid = connection.last_insert_rowid() if sql.startswith("INSERT") or " INSERT " in sql else 0
        return Ran(counted(sql, connection.changes(), rowid), rows, readable)

    def _look_at_rowids(self, number: int) -> None:
        if not self._wrote_largest:
            return
        self._wrote_largest = False
        self.refused += 1
        raise Refused(("error", "constraint", apsw.SQLITE_CONSTRAINT_ROWID, number, LARGEST_REFUSED))


def _resolved(params: Params, ran: list[Ran], number: int) -> Params:
    """With the values that references stand for: of the first row, the names being those of `RETURNED`."""
    values: list[object] = []
    for value in params:
        if isinstance(value, hiqlite.ref):
            rows = ran[value.statement].rows
            if not rows:
                message = f"statement {value.statement} returned no row to refer to"
                raise Refused(("error", "expectation_failed", 0, number, message))
            column = value.column
            value = rows[0][column if isinstance(column, int) else RETURNED.index(column)]
        values.append(value)
    return tuple(values)


def counted(sql: str, rows: int, rowid: int) -> Counts:
    """SQLite's count of changed rows means something behind a write alone, and its last rowid where there are some."""
    return (rows, rowid if rows else 0) if sql.startswith(WRITES) else (0, 0)


def in_order(rows: Iterable[Any]) -> tuple[str, ...]:
    return tuple(repr(tuple(row)) for row in rows)


def multiset(rows: Iterable[Any]) -> tuple[str, ...]:
    """Without an ORDER BY any order is right."""
    return tuple(sorted(in_order(rows)))


def _failure(error: apsw.Error, number: int) -> Outcome:
    code, message = getattr(error, "extendedresult", None) or apsw.SQLITE_ERROR, str(error)
    if code & 0xFF == apsw.SQLITE_CONSTRAINT:
        return "error", "constraint", code, number, message
    is_schema = code == apsw.SQLITE_ERROR and any(words in message for words in SCHEMA_WORDS)
    return "error", "schema" if is_schema else "statement", code, number, message


def contents(connection: apsw.Connection, prefix: str) -> list[tuple[str, Any]]:
    """Schema and rows of everything whose name begins with `prefix`, in the order of its keys."""
    pattern = f"{prefix}*"
    schema = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE tbl_name GLOB ? ORDER BY type, name", (pattern,)
    ).fetchall()
    found: list[tuple[str, Any]] = [("schema", schema)]
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").fetchall():
        highest = "SELECT name, seq FROM sqlite_sequence WHERE name GLOB ? ORDER BY name, seq"
        found.append(("sequence", connection.execute(highest, (pattern,)).fetchall()))
    for _, name, kind, _, without_rowid, _ in connection.execute("PRAGMA table_list").fetchall():
        if not str(name).startswith(prefix) or kind not in ("table", "shadow"):
            continue
        columns = [str(one[1]) for one in connection.execute(f'PRAGMA table_xinfo("{name}")').fetchall()]
        columns += [] if without_rowid else ["rowid"]
        shown = ", ".join(f'typeof("{column}"), CAST("{column}" AS BLOB)' for column in columns)
        rows = connection.execute(f'SELECT {shown} FROM "{name}" NOT INDEXED').fetchall()
        found.append((str(name), sorted(map(repr, rows))))
    return sorted(found, key=lambda one: one[0])
