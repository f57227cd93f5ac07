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

from .steps import RETURNED, Params, Step

# ("rows", ...), ("counts", ...), ("error", class, extended code, statement_index, message, what became of the write)
Outcome = tuple[Any, ...]
Counts = tuple[int, int]  # rows that were changed, rowid that was inserted
NOT_APPLIED, APPLIED = "not_applied", "applied"
LARGEST_ROWID = (1 << 63) - 1
LARGEST_REFUSED = f"rowid {LARGEST_ROWID} is refused: after it SQLite would choose rowids at random"
NO_ROWID_LEFT = "no rowid is left: the AUTOINCREMENT maximum was reached"
WRITES = ("INSERT", "UPDATE", "DELETE", "WITH")
SCHEMA_WORDS = (
    "no such ", " already exists", "has no column named", " columns but ", "duplicate column name",
    "foreign key mismatch", "ambiguous column name", "because it is a view", "there is already",
    "may not be altered", "may not be modified",
)  # fmt: skip
SYNTAX_WORDS = ("syntax error", "incomplete input", "unrecognized token")  # no other schema makes it right
SCHEMA_CHANGES = {"ParseSchema", "DropTable", "DropIndex", "DropTrigger", "VCreate", "VDestroy"}  # opcodes
MAKES = ("CREATE TABLE", "CREATE VIEW")  # SQLite asks whether they may before it looks whether there is one


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
    """One database; one of a program that is made is in memory."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        # No cache: a statement that was prepared for another schema begins before it is prepared again, in a way of its
        # own, and a full-text table keeps traces of that.
        self.connection = connection = apsw.Connection(str(path), statementcachesize=0)
        connection.execute("PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").fetchall()
        for name, value in (("DQS_DML", 0), ("DQS_DDL", 0), ("DEFENSIVE", 1), ("ENABLE_QPSG", 1)):
            connection.config(getattr(apsw, f"SQLITE_DBCONFIG_{name}"), value)
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        self._watcher = apsw.Connection(str(path))
        self._wrote_largest = False
        self.refused = 0  # statements that wrote a row with the largest rowid
        connection.set_update_hook(self._row_written)
        connection.set_commit_hook(lambda: self._wrote_largest)  # rolls back

    def close(self) -> None:
        self._watcher.close(True)
        self.connection.close(True)

    def run(self, step: Step) -> list[Outcome]:
        """One outcome for the call; of a batch one for each statement, up to one that cannot be parsed.

        The schema is read anew before it is changed and behind that, as by one that was started there: SQLite goes on
        using the types that the columns of a view had when it was first written to (seen in 3.54).
        """
        changes = any(sql.startswith(("CREATE", "ALTER", "DROP")) for sql, _ in step.statements)
        if changes:
            self._read_schema_anew()
        outcomes = self._outcomes(step)
        if changes:
            self._read_schema_anew()
        return outcomes

    def _outcomes(self, step: Step) -> list[Outcome]:
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
        """What is found where all of these are prepared before the first of them runs: the first that cannot be. One
        behind a change of the schema may be right by then, unless its syntax is wrong."""
        is_changed = False
        for number, (sql, params) in enumerate(step.statements):
            try:
                opcodes = self._opcodes(sql, params)
            except apsw.Error as error:
                if not is_changed or any(words in str(error) for words in SYNTAX_WORDS):
                    return _failure(error, number)
            else:
                is_changed = is_changed or bool(opcodes & SCHEMA_CHANGES) or sql.startswith(MAKES)
        return None

    def drop(self, prefix: str) -> Step | None:
        """Of all that is left of a program, the newest first: what refers goes before what is referred to."""
        made = "SELECT type, name FROM sqlite_schema WHERE name GLOB ? AND type IN ('view', 'table')"
        shadows = {one[1] for one in self.connection.execute("PRAGMA table_list") if one[2] == "shadow"}
        found = self.connection.execute(f"{made} ORDER BY type DESC, rowid DESC", (f"{prefix}*",)).fetchall()
        texts = tuple((f"DROP {str(kind).upper()} {name}", ()) for kind, name in found if name not in shadows)
        return Step("batch", texts) if texts else None

    # -- calls

    def _read_schema_anew(self) -> None:
        self.connection.execute("PRAGMA writable_schema = RESET").fetchall()

    def _query(self, sql: str, params: Params, shown: Any) -> Outcome:
        try:
            ran = self._run(0, sql, params)
        except apsw.Error as error:
            return _failure(error, 0, None)
        return ("rows", shown(ran.rows)) if ran.readable else not_text(None)

    def _alone(self, number: int, sql: str, params: Params, *, rows: bool = False) -> Outcome:
        before = self._changes()
        try:
            ran = self._run(number, sql, params)
        except Refused as refused:
            return refused.outcome
        except apsw.Error as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK").fetchall()
            return _failure(error, number, self._became(before))
        if not rows:
            return "counts", (ran.counts,)
        return ("rows", multiset(ran.rows)) if ran.readable else not_text(APPLIED)

    def _changes(self) -> tuple[int, int]:
        """The first is another one after each COMMIT that wrote something, the second after each change of a row."""
        return self._watcher.pragma("data_version"), self.connection.total_changes()

    def _became(self, before: tuple[int, int]) -> str:
        """Of a statement that failed: OR FAIL keeps the rows before the one that it failed at. They may have been given
        the values that they had, and nothing was written then."""
        version, total = self._changes()
        changed = version != before[0] or (total != before[1] and self.connection.changes() > 0)
        return APPLIED if changed else NOT_APPLIED

    def _batch(self, statements: tuple[tuple[str, Params], ...]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for number, (sql, params) in enumerate(statements):
            outcomes.append(self._alone(number, sql, params))
            if outcomes[-1][0] == "error" and outcomes[-1][4].endswith(": syntax error"):
                break
        return outcomes

    def _all(self, step: Step) -> Outcome:
        connection, ran, number = self.connection, list[Ran](), 0
        connection.execute("BEGIN IMMEDIATE").fetchall()
        try:
            for number, (sql, params) in enumerate(step.statements):
                ran.append(self._run(number, sql, self._resolved(number, sql, params, ran)))
                expected = step.expected[number] if step.expected else None
                if expected not in (None, ran[-1].counts[0]):
                    changed = f"{expected} rows were expected, {ran[-1].counts[0]} were changed"
                    raise Refused(("error", "expectation_failed", 0, number, changed, NOT_APPLIED))
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
            return not_text(APPLIED)
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
        try:
            rows, readable = read(connection.execute(sql, params))
        except apsw.Error:
            self._look_at_rowids(number)
            raise
        self._look_at_rowids(number)
        # An UPDATE of a virtual table sets it too; a result carries it only for statements that insert.
        rowid = connection.last_insert_rowid() if sql.startswith("INSERT") or " INSERT " in sql else 0
        return Ran(counted(sql, connection.changes(), rowid), rows, readable)

    def _resolved(self, number: int, sql: str, params: Params, ran: list[Ran]) -> Params:
        """With the values that references stand for: of the first row, the names being those of `RETURNED`. They are
        looked for once the statement is prepared."""
        if not any(isinstance(value, hiqlite.ref) for value in params):
            return params
        self._opcodes(sql, params)
        values: list[object] = []
        for value in params:
            if isinstance(value, hiqlite.ref):
                rows = ran[value.statement].rows
                if not rows:
                    message = f"statement {value.statement} returned no row to refer to"
                    raise Refused(("error", "expectation_failed", 0, number, message, NOT_APPLIED))
                column = value.column
                value = rows[0][column if isinstance(column, int) else RETURNED.index(column)]
            values.append(value)
        return tuple(values)

    def _opcodes(self, sql: str, params: Params) -> set[str]:
        """Of what it is when it is prepared. Raises apsw.Error where it cannot be."""
        explained = self.connection.execute(f"EXPLAIN {sql}", (None,) * len(params))
        return {row[1] for row in read(explained)[0]}

    def _look_at_rowids(self, number: int) -> None:
        if not self._wrote_largest:
            return
        self._wrote_largest = False
        self.refused += 1
        raise Refused(("error", "constraint", apsw.SQLITE_CONSTRAINT_ROWID, number, LARGEST_REFUSED, NOT_APPLIED))


def read(cursor: apsw.Cursor) -> tuple[list[Any], bool]:
    """Its rows but for those with text that is not UTF-8, and whether there were none of these."""
    rows, readable = [], True
    while True:
        try:
            row = cursor.fetchone()
        except UnicodeDecodeError:
            readable = False
            continue
        if row is None:
            return rows, readable
        rows.append(row)


def counted(sql: str, rows: int, rowid: int) -> Counts:
    """SQLite's count of changed rows means something behind a write alone, and its last rowid where there are some."""
    return (rows, rowid if rows else 0) if sql.startswith(WRITES) else (0, 0)


def in_order(rows: Iterable[Any]) -> tuple[str, ...]:
    return tuple(repr(tuple(row)) for row in rows)


def multiset(rows: Iterable[Any]) -> tuple[str, ...]:
    """Without an ORDER BY any order is right."""
    return tuple(sorted(in_order(rows)))


def not_text(became: str | None) -> Outcome:
    """Rows that hold text that is not UTF-8."""
    return "rows", "text that is not UTF-8", became


def _failure(error: apsw.Error, number: int, became: str | None = NOT_APPLIED) -> Outcome:
    code, message = getattr(error, "extendedresult", None) or apsw.SQLITE_ERROR, str(error)
    if code == apsw.SQLITE_FULL:
        message = NO_ROWID_LEFT  # the disk has no part in it, here
    if code & 0xFF == apsw.SQLITE_CONSTRAINT:
        return "error", "constraint", code, number, message, became
    is_schema = code == apsw.SQLITE_ERROR and any(words in message for words in SCHEMA_WORDS)
    return "error", "schema" if is_schema else "statement", code, number, message, became


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
