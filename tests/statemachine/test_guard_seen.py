"""What prepare tells of a statement, and the life of a guard."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from guarded_databases import SCHEMA, STATEMENT, USAGE, passes, reader, refused, writer

from hiqlite._accel.guard import Guard
from hiqlite.statemachine.authorizer import Role, Seen
from hiqlite.statemachine.connection import open_writer

__all__ = ["reader", "writer"]  # fixtures: used by name


def test_sqlite_stat_tables_are_written_by_analyze_only(writer: Guard) -> None:
    """A direct write would be read by each connection at another time; DROP and ANALYZE touch them by themselves."""
    writer.connection.execute("INSERT INTO t(b) VALUES(1); ANALYZE").fetchall()
    assert refused(writer, "DELETE FROM sqlite_stat1") == STATEMENT
    assert refused(writer, "UPDATE sqlite_stat1 SET stat = '1'") == STATEMENT
    assert refused(writer, "INSERT INTO sqlite_stat1 VALUES(1,2,3)") == STATEMENT
    assert Seen.STAT in passes(writer, "DROP TABLE t")
    assert Seen.RELOAD in passes(writer, "DROP TABLE sqlite_stat1")
    assert Seen.RELOAD in passes(writer, "ANALYZE t")
    for sql in ("ALTER TABLE t RENAME TO u", "ALTER TABLE t DROP COLUMN c", "CREATE INDEX x ON t(c)"):
        passes(writer, sql)


def test_analyze_leaves_internal_tables_out(writer: Guard) -> None:
    """Their row counts depend on how runs were cut, so they would make sqlite_stat1 differ per node."""
    writer.own_writes(True)
    writer.connection.execute("INSERT INTO _hiqlite_run VALUES(1, 2), (3, 4)").fetchall()
    writer.own_writes(False)
    writer.connection.execute("INSERT INTO t(b) VALUES(1); ANALYZE; ANALYZE _hiqlite_run").fetchall()
    names = {row[0] for row in writer.connection.execute("SELECT tbl FROM sqlite_stat1")}
    assert "t" in names and not any(name.startswith("_hiqlite") for name in names)


def test_what_was_seen_tells_what_an_entry_needs(writer: Guard) -> None:
    """Virtual tables need a savepoint, changes() a reset, schema changes a new epoch."""
    assert Seen.VIRTUAL in passes(writer, "INSERT INTO ft VALUES('x')")
    assert Seen.VIRTUAL in passes(writer, "INSERT INTO T(b) SELECT value FROM json_each('[1]')")
    assert Seen.VIRTUAL in passes(writer, "CREATE VIRTUAL TABLE x USING fts5(a)")
    assert Seen.VIRTUAL in passes(writer, "DROP TABLE FT")
    assert Seen.VIRTUAL not in passes(writer, "INSERT INTO t(b) VALUES(1)")
    assert Seen.SCHEMA | Seen.CREATE_INDEX in passes(writer, "CREATE UNIQUE INDEX x ON t(c)")
    assert Seen.CREATE_INDEX not in passes(writer, "CREATE TABLE x(a UNIQUE)")
    assert Seen.RANDOM in passes(writer, "INSERT INTO t(b) VALUES(random())")
    assert Seen.TIME in passes(writer, "INSERT INTO t(b) VALUES(CURRENT_TIMESTAMP)")
    assert Seen.INSERT in passes(writer, "REPLACE INTO t(a) VALUES(1)")


def test_a_virtual_table_behind_a_trigger_is_seen(writer: Guard) -> None:
    """The statement names an ordinary table only."""
    writer.connection.execute(
        "CREATE TRIGGER index_it AFTER INSERT ON t BEGIN INSERT INTO ft VALUES(new.b); END"
    ).fetchall()
    assert Seen.VIRTUAL in passes(writer, "INSERT INTO t(b) VALUES('x')")


def test_changes_is_seen_in_text_trigger_and_check(writer: Guard, tmp_path: Path) -> None:
    """SQLite compiles a CHECK without asking the authorizer, so the schema's texts are searched."""
    connection = open_writer(tmp_path / "other")
    guard = Guard(connection, Role.WRITER)
    connection.execute("CREATE TABLE t(a)").fetchall()
    assert Seen.CHANGES in passes(guard, "INSERT INTO t VALUES(changes())")
    assert Seen.CHANGES not in passes(guard, "INSERT INTO t VALUES(1)")
    connection.execute("CREATE TABLE checked(a CHECK(Changes() >= 0))").fetchall()
    assert Seen.CHANGES in passes(guard, "INSERT INTO checked VALUES(1)")
    connection.close()


def test_a_schema_change_that_was_rolled_back_is_forgotten_on_request(tmp_path: Path) -> None:
    """The schema cookie comes back after a rollback with another schema behind it."""
    connection = open_writer(tmp_path / "db")
    guard = Guard(connection, Role.WRITER)
    guard.own_writes(True)
    connection.execute("CREATE TABLE x(a); BEGIN; CREATE TABLE ft(a)").fetchall()
    guard.own_writes(False)
    assert Seen.VIRTUAL not in passes(guard, "INSERT INTO ft VALUES(1)")
    guard.own_writes(True)
    connection.execute("ROLLBACK; CREATE VIRTUAL TABLE ft USING fts4(a)").fetchall()
    guard.own_writes(False)
    guard.schema_changed()
    assert Seen.VIRTUAL in passes(guard, "INSERT INTO ft VALUES(1)")
    connection.close()


def test_shadow_tables_cannot_be_damaged(writer: Guard) -> None:
    """DEFENSIVE is on for the writer too: a damaged index would look like a damaged disk."""
    for sql in ("DELETE FROM ft_data", "UPDATE ft_content SET c0 = 1", "DROP TABLE box_node"):
        assert writer.prepare(sql.encode()).code != 0


def test_own_statements_pass_while_the_flag_is_up(writer: Guard) -> None:
    """BEGIN, PRAGMAs and internal tables are ours; the flag covers prepare and step."""
    writer.own_writes(True)
    for sql in ("BEGIN IMMEDIATE", "SAVEPOINT e", "DELETE FROM _hiqlite_run", "RELEASE e", "COMMIT"):
        assert writer.prepare(sql.encode()).code == 0
        writer.connection.execute(sql).fetchall()
    writer.own_writes(False)
    assert refused(writer, "BEGIN") == STATEMENT


def test_errors_of_sqlite_are_told_apart_from_refusals(writer: Guard) -> None:
    """Syntax is a StatementError, a missing table a SchemaError; neither is a refusal."""
    for sql, error_class in (
        ("SELEC 1", STATEMENT),
        ("SELECT * FROM nope", SCHEMA),
        ("INSERT INTO t(z) VALUES(1)", SCHEMA),
    ):
        program = writer.prepare(sql.encode())
        assert (program.code, program.refused, program.error_class) == (1, False, error_class)


def test_hostile_texts_end_in_an_answer(writer: Guard, reader: Guard) -> None:
    """Unclosed quotes and comments, NUL, invalid UTF-8, deep nesting, and every prefix of a statement."""
    deep = "SELECT " + "(" * 5000 + "1" + ")" * 5000
    texts = [
        b"",
        b"\x00",
        b"SELECT 1\x00; DROP TABLE t",
        b"'",
        b'"',
        b"[",
        b"/*",
        b"--",
        b"\xff\xfe",
        b"EXPLAIN",
        b"EXPLAIN QUERY",
        b"CREATE",
        b"CREATE UNIQUE",
        b"ALTER TABLE t RENAME TO",
        b"REFERENCES",
        deep.encode(),
    ]
    whole = b"CREATE TABLE x(a REFERENCES \"t\" -- c\n, b /* d */ DEFAULT 'q''r')"
    for text in texts + [whole[:size] for size in range(len(whole))]:
        for guard in (writer, reader):
            program = guard.prepare(text)
            assert program.code == 0 or program.message
    assert passes(writer, "SELECT 1")


def test_the_end_of_a_statement_splits_a_text(writer: Guard) -> None:
    """`end` is where the next statement begins, also behind a trigger's own semicolons."""
    text = "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT ';'; SELECT 2; END; /* é */ SELECT 3;  ".encode()
    first = writer.prepare(text)
    second = writer.prepare(text, first.end)
    assert text[: first.end].endswith(b"END;")
    assert text[first.end : second.end].strip().endswith(b"SELECT 3;")
    assert writer.prepare(text, second.end).empty


def test_a_row_with_the_last_rowid_is_noticed(writer: Guard) -> None:
    """After rowid 2^63-1 SQLite picks random ones, which differ per node."""
    writer.statement_begin()
    writer.connection.execute("INSERT INTO t(a) VALUES(9223372036854775806)").fetchall()
    assert not writer.took_last_rowid
    writer.connection.execute("INSERT INTO t(a) VALUES(9223372036854775807)").fetchall()
    assert writer.took_last_rowid
    writer.statement_begin()
    assert not writer.took_last_rowid


def test_a_guard_does_not_outlive_its_connection(tmp_path: Path) -> None:
    """After the connection is closed, using the guard is an error, not a crash; detaching twice is harmless."""
    connection = open_writer(tmp_path / "db")
    guard = Guard(connection, Role.WRITER)
    assert guard.address == Guard(connection, Role.WRITER).address
    guard.detach()
    guard.detach()
    with pytest.raises(ValueError, match="detached"):
        guard.prepare(b"SELECT 1")
    again = Guard(connection, Role.READER)
    assert refused(again, "CREATE TABLE x(a)") == USAGE
    connection.close()
    with pytest.raises(apsw.ConnectionClosedError):
        again.prepare(b"SELECT 1")


def test_a_guard_needs_the_extension_and_a_known_role(writer: Guard) -> None:
    """An unknown role is refused before it changes anything."""
    with pytest.raises(ValueError, match="role"):
        Guard(writer.connection, 9)
    assert refused(writer, "BEGIN") == STATEMENT
