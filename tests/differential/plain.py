"""The same calls on plain SQLite, as its documentation has them: what the cluster is compared with.

No guard, no log, no entry: one connection with the settings that the product documents, and BEGIN, COMMIT and ROLLBACK.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from .programs import Params, Step

Outcome = tuple[Any, ...]  # ("rows", ...), ("counts", ...), ("error", extended code)
NO_TEXT: Outcome = ("rows", "text that is not UTF-8")


class Plain:
    """One database."""

    def __init__(self, path: Path) -> None:
        self.connection = connection = apsw.Connection(str(path))
        connection.execute("PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").fetchall()
        for name, value in (("DQS_DML", 0), ("DQS_DDL", 0), ("DEFENSIVE", 1), ("ENABLE_QPSG", 1)):
            connection.config(getattr(apsw, f"SQLITE_DBCONFIG_{name}"), value)
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)

    def close(self) -> None:
        self.connection.close(True)

    def run(self, step: Step) -> list[Outcome]:
        """One outcome for the call; of a batch one for each statement."""
        match step.kind:
            case "query":
                return [self._query(*step.statements[0])]
            case "execute":
                return [self._one(*step.statements[0])]
            case "returning":
                return [self._one(*step.statements[0], rows=True)]
            case "batch":
                return [self._one(sql, params) for sql, params in step.statements]
            case _:
                return [self._all(step.statements)]

    def _query(self, sql: str, params: Params) -> Outcome:
        try:
            return "rows", multiset(self.connection.execute(sql, params).fetchall())
        except UnicodeDecodeError:
            return NO_TEXT
        except apsw.Error as error:
            return _failure(error)

    def _one(self, sql: str, params: Params, *, rows: bool = False) -> Outcome:
        try:
            found = self.connection.execute(sql, params).fetchall()
        except UnicodeDecodeError:
            return NO_TEXT
        except apsw.Error as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK").fetchall()
            return _failure(error)
        return ("rows", multiset(found)) if rows else ("counts", (self._count(sql),))

    def _all(self, statements: tuple[tuple[str, Params], ...]) -> Outcome:
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE").fetchall()
        counts = []
        try:
            for sql, params in statements:
                connection.execute(sql, params).fetchall()
                counts.append(self._count(sql))
            connection.execute("COMMIT").fetchall()
        except apsw.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK").fetchall()
            return _failure(error)
        return "counts", tuple(counts)

    def _count(self, sql: str) -> int:
        return counted(sql, self.connection.changes())


def counted(sql: str, rows: int) -> int:
    """SQLite's count of changed rows means something behind these alone."""
    return rows if sql.startswith(("INSERT", "UPDATE", "DELETE")) else 0


def multiset(rows: list[Any]) -> tuple[str, ...]:
    """Without an ORDER BY any order is right."""
    return tuple(sorted(repr(tuple(row)) for row in rows))


def _failure(error: apsw.Error) -> Outcome:
    return "error", getattr(error, "extendedresult", None) or apsw.SQLITE_ERROR


def contents(connection: apsw.Connection, prefix: str) -> list[tuple[str, Any]]:
    """Schema and rows of everything whose name begins with `prefix`, in the order of its keys."""
    pattern = f"{prefix}*"
    schema = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE tbl_name GLOB ? ORDER BY type, name", (pattern,)
    ).fetchall()
    found: list[tuple[str, Any]] = [("schema", schema)]
    for _, name, kind, _, without_rowid, _ in connection.execute("PRAGMA table_list").fetchall():
        if not str(name).startswith(prefix) or kind not in ("table", "shadow"):
            continue
        columns = [str(one[1]) for one in connection.execute(f'PRAGMA table_xinfo("{name}")').fetchall()]
        columns += [] if without_rowid else ["rowid"]
        shown = ", ".join(f'typeof("{column}"), CAST("{column}" AS BLOB)' for column in columns)
        rows = connection.execute(f'SELECT {shown} FROM "{name}" NOT INDEXED').fetchall()
        found.append((str(name), sorted(map(repr, rows))))
    return sorted(found, key=lambda one: one[0])
