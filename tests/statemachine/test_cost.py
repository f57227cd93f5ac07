"""Which writes are known to be bounded by their text, by SQLite's own bytecode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from hiqlite._accel.guard import Guard
from hiqlite.statemachine.authorizer import Role
from hiqlite.statemachine.connection import open_inspector, open_writer

SCHEMA = """
CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, UNIQUE (a));
CREATE INDEX t_b ON t (b);
CREATE TABLE plain (x, y DEFAULT CURRENT_TIMESTAMP, z AS (x + 1) STORED, CHECK (x > 0));
CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE parent (id INTEGER PRIMARY KEY);
CREATE TABLE child (id INTEGER PRIMARY KEY, p REFERENCES parent (id) ON DELETE CASCADE);
CREATE TABLE watched (x);
CREATE TABLE seen (x);
CREATE TRIGGER watched_insert AFTER INSERT ON watched BEGIN INSERT INTO seen VALUES (new.x); END;
CREATE TABLE sweeping (x);
CREATE TRIGGER sweeping_insert AFTER INSERT ON sweeping BEGIN DELETE FROM seen WHERE x > new.x; END;
CREATE TABLE listing (x);
CREATE TRIGGER listing_insert AFTER INSERT ON listing BEGIN INSERT INTO seen VALUES (1), (2); END;
CREATE TABLE tree (id INTEGER PRIMARY KEY, l INTEGER UNIQUE REFERENCES tree ON DELETE CASCADE,
  r INTEGER UNIQUE REFERENCES tree ON DELETE CASCADE);
CREATE TABLE owner (id INTEGER PRIMARY KEY);
CREATE TABLE owned (id INTEGER PRIMARY KEY, o INTEGER UNIQUE REFERENCES owner ON DELETE CASCADE);
CREATE TABLE computing (x CHECK (x LIKE '%a'));
"""
BOUNDED = [
    "INSERT INTO t VALUES (?, ?, ?)",
    "INSERT INTO t (a, b) VALUES (1, 2), (3, 4), (5, 6)",
    "INSERT INTO t (a, b) VALUES (1, 2), (3, 4) RETURNING id, a",
    "INSERT INTO t (a, b) VALUES (?, ?) RETURNING *",
    "INSERT OR REPLACE INTO t VALUES (1, 2, 3)",
    "INSERT OR IGNORE INTO t VALUES (1, 2, 3)",
    "INSERT INTO t VALUES (1, 2, 3) ON CONFLICT (a) DO UPDATE SET b = excluded.b",
    "INSERT INTO t DEFAULT VALUES",
    "UPDATE t SET b = ? WHERE id = ?",
    "UPDATE t SET b = b + 1 WHERE a = ?",
    "UPDATE t SET b = 1 WHERE id = ? RETURNING b",
    "DELETE FROM t WHERE id = ?",
    "DELETE FROM w WHERE k = ?",
    "INSERT INTO w VALUES (lower(?), json_extract(?, '$.a'))",
    "INSERT INTO plain (x) VALUES (abs(random()))",
    "INSERT INTO child (p) VALUES (1)",
    "INSERT INTO watched VALUES (1), (2)",
    "DELETE FROM owner WHERE id = 1",
    "INSERT INTO plain (x) VALUES (?) RETURNING *",
    "INSERT INTO t (a) VALUES (replace(trim(?), 'a', 'bb'))",
    "-- a remark\nINSERT INTO t VALUES (1, 2, 3);",
]
NOT_BOUNDED = [
    "INSERT INTO t (a) SELECT a FROM t",
    "INSERT INTO t (a) SELECT 1 FROM (VALUES (1), (2)) JOIN (VALUES (1), (2))",
    "INSERT INTO t (a) SELECT count(*) FROM t",
    "UPDATE t SET b = 1",
    "UPDATE t SET b = 1 WHERE b = 2",
    "DELETE FROM t",
    "DELETE FROM t WHERE b = 1",
    "DELETE FROM parent WHERE id = 1",
    "UPDATE t SET b = (SELECT max(x) FROM plain) WHERE id = 1",
    "INSERT INTO t (a) WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
    "INSERT INTO sweeping VALUES (1)",
    "INSERT INTO listing VALUES (1)",
    "INSERT INTO t (a) VALUES (randomblob(1000000))",
    "INSERT INTO t (a) VALUES (? LIKE ?)",
    "INSERT INTO computing VALUES (?)",
    "DELETE FROM tree WHERE id = 1",
    "INSERT INTO t (a) VALUES (unhex(?, ?))",
    "INSERT INTO t (a) SELECT json_valid(?1 || column1) FROM (VALUES (1), (2), (3))",
    "INSERT INTO t (a) VALUES (" + "lower(" * 101 + "?" + ")" * 101 + ")",
    "INSERT INTO missing VALUES (1)",
    "INSERT INTO",
    "",
]


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[apsw.Connection, apsw.Connection]]:
    path: Path = tmp_path_factory.mktemp("cost") / "db"
    writer = open_writer(path)
    writer.execute(SCHEMA).fetchall()
    inspector = open_inspector(path)
    yield writer, inspector
    inspector.close()
    writer.close()


@pytest.fixture
def guard(connections: tuple[apsw.Connection, apsw.Connection]) -> Guard:
    return Guard(connections[1], Role.INSPECTOR)


@pytest.mark.parametrize("sql", BOUNDED)
def test_what_touches_only_the_rows_that_it_names_is_bounded(guard: Guard, sql: str) -> None:
    """Rows of VALUES and of RETURNING stand in the text; a row found by a unique key is one."""
    assert guard.is_bounded(sql.encode())


@pytest.mark.parametrize("sql", NOT_BOUNDED)
def test_what_could_touch_more_is_not(guard: Guard, sql: str) -> None:
    """Scans, joins of lists, cascades, loops in triggers, functions that are more than linear; and wrong SQL."""
    assert not guard.is_bounded(sql.encode())


def test_triggers_that_multiply_are_not_bounded(connections: tuple[apsw.Connection, apsw.Connection]) -> None:
    """Each inserts twice into the next table: ten of them are a thousand rows, forty would never end."""
    writer, inspector = connections
    for number in range(40):
        writer.execute(f"CREATE TABLE chain{number} (x)")
    for number in range(39):
        once = f"INSERT INTO chain{number + 1} VALUES (new.x);"
        writer.execute(f"CREATE TRIGGER chained{number} AFTER INSERT ON chain{number} BEGIN {once} {once} END")
    guard = Guard(inspector, Role.INSPECTOR)
    guard.schema_changed()
    assert guard.is_bounded(b"INSERT INTO chain35 VALUES (1)")
    assert not guard.is_bounded(b"INSERT INTO chain0 VALUES (1)")


def test_it_is_asked_of_the_schema_as_it_is_now(connections: tuple[apsw.Connection, apsw.Connection]) -> None:
    """Another connection changes it between two questions: names of the old one are gone from memory."""
    writer, inspector = connections
    guard = Guard(inspector, Role.INSPECTOR)
    for number in range(20):
        writer.execute(f"CREATE TABLE passing_{number} (a_name_of_some_length_{number}, b)")
        text = f"INSERT INTO passing_{number} VALUES (upper(?), coalesce(?, 'x'))".encode()
        assert guard.is_bounded(text)
        writer.execute(f"DROP TABLE passing_{number}")
        guard.schema_changed()
        assert not guard.is_bounded(text)
        assert guard.is_bounded(b"INSERT INTO t VALUES (?, ?, ?)")


def test_a_text_of_many_rows_is_bounded_and_one_that_is_too_long_is_not_looked_at(guard: Guard) -> None:
    """The look itself is bounded."""
    rows = ", ".join(["(?, ?)"] * 1000)
    assert guard.is_bounded(f"INSERT INTO t (a, b) VALUES {rows}".encode())
    assert not guard.is_bounded(f"INSERT INTO t (a, b) VALUES {', '.join(['(1, 2)'] * 20000)}".encode())
