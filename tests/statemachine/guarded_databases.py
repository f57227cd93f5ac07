"""Databases under guard, for the tests of the guard: one writer, one reader, and what they should answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hiqlite._accel.guard import Guard
from hiqlite.statemachine.authorizer import Role, Seen
from hiqlite.statemachine.connection import open_reader, open_writer

STATEMENT, SCHEMA, DETERMINISM, USAGE = 1, 3, 5, 6

SCHEMA_SQL = """
CREATE TABLE t(a INTEGER PRIMARY KEY, b, c);
CREATE TABLE log(n);
CREATE INDEX t_b ON t(b);
CREATE VIEW v AS SELECT a FROM t;
CREATE TRIGGER counts AFTER DELETE ON t BEGIN INSERT INTO log VALUES(changes()); END;
CREATE VIRTUAL TABLE ft USING fts5(body);
CREATE VIRTUAL TABLE box USING rtree(id, low, high);
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Guard]:
    connection = open_writer(tmp_path / "db")
    guard = Guard(connection, Role.WRITER)
    guard.own_writes(True)
    connection.execute("CREATE TABLE _hiqlite_run(first_index, last_index INTEGER PRIMARY KEY)").fetchall()
    connection.execute("CREATE TABLE _migrations(id INTEGER PRIMARY KEY, name, ts, hash)").fetchall()
    guard.own_writes(False)
    connection.execute(SCHEMA_SQL).fetchall()
    yield guard
    connection.close()


@pytest.fixture
def reader(writer: Guard, tmp_path: Path) -> Iterator[Guard]:
    connection = open_reader(tmp_path / "db")
    yield Guard(connection, Role.READER)
    connection.close()


def refused(guard: Guard, sql: str) -> int:
    """Class of the refusal; fails when the guard does not refuse."""
    program = guard.prepare(sql.encode())
    assert program.refused, f"{sql!r} passed: {program.code} {program.message}"
    assert program.code == 23
    assert program.message and not program.message.endswith(".")
    assert Seen.DENIED in Seen(program.seen)
    return program.error_class


def passes(guard: Guard, sql: str) -> Seen:
    program = guard.prepare(sql.encode())
    assert program.code == 0, f"{sql!r}: {program.message}"
    return Seen(program.seen)
