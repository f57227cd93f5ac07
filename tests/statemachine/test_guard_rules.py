"""What SQL may do through each role: the authorizer, and what is judged after prepare."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from guarded_databases import DETERMINISM, STATEMENT, USAGE, passes, reader, refused, writer

from hiqlite._accel.guard import Guard
from hiqlite.statemachine.authorizer import Role, Seen
from hiqlite.statemachine.connection import open_writer

__all__ = ["reader", "writer"]  # fixtures: used by name


NEVER = [
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE s",
    "ROLLBACK TO s",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM",
    "/* a */ vacuum",
    "VACUUM INTO '/nowhere/copy'",
    "EXPLAIN VACUUM",
    "PRAGMA journal_mode",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA main.journal_mode = DELETE",
    "EXPLAIN PRAGMA journal_mode = DELETE",
    "EXPLAIN QUERY PLAN PRAGMA journal_mode = DELETE",
    "pragma synchronous=0",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA writable_schema = 1",
    "PRAGMA data_version",
    "PRAGMA main.data_version",
    "-- note\n PRAGMA page_size",
    "\ufeffPRAGMA page_size",
    "; ;PRAGMA page_size",
    "PRAGMA schema_version",
    "PRAGMA schema_version = 7",
    "PRAGMA encoding = 'UTF-16'",
    "PRAGMA page_count = 5",
    "PRAGMA optimize",
    "PRAGMA wal_checkpoint",
    "PRAGMA temp_store_directory = 'x'",
    "PRAGMA case_sensitive_like = 1",
    "SELECT * FROM pragma_data_version",
    "SELECT * FROM pragma_journal_mode",
    "SELECT count(*) FROM pragma_optimize",
    "SELECT * FROM pragma_schema_version",
]


@pytest.mark.parametrize("sql", NEVER)
def test_what_leaves_the_entry_or_changes_settings_is_refused_on_every_role(
    writer: Guard, reader: Guard, sql: str
) -> None:
    """Transactions, other databases, VACUUM and settings are a StatementError for writers and readers."""
    assert refused(writer, sql) == STATEMENT
    assert refused(reader, sql) == STATEMENT


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TEMP TABLE x(a)",
        "CREATE TEMPORARY VIEW x AS SELECT 1",
        "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TABLE temp.x(a)",
        "CREATE TABLE [TEMP].x AS SELECT 1",
        "CREATE VIEW temp.x AS SELECT 1",
        "CREATE TRIGGER temp.x AFTER INSERT ON main.t BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE temp.x USING fts5(a)",
        "CREATE TABLE IF NOT EXISTS temp.x(a)",
    ],
)
def test_temporary_objects_are_refused_however_they_are_written(writer: Guard, sql: str) -> None:
    """A temp object exists on one node only, and vanishes with a restart."""
    assert refused(writer, sql) == STATEMENT


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO _hiqlite_run VALUES(1, 1)",
        "DELETE FROM _hiqlite_run",
        "UPDATE main._HIQLITE_RUN SET first_index = 0",
        "INSERT INTO _migrations VALUES(1, 'x', 0, 'y')",
        "DROP TABLE _migrations",
        "DROP TABLE IF EXISTS _hiqlite_run",
        "ALTER TABLE _hiqlite_run ADD COLUMN x",
        "ALTER TABLE _hiqlite_run RENAME TO x",
        "CREATE TABLE _hiqlite_mine(a)",
        'CREATE TABLE "_Hiqlite_mine"(a)',
        "CREATE VIEW _hiqlite_v AS SELECT 1",
        "CREATE INDEX x ON _hiqlite_run(first_index)",
        "CREATE INDEX _hiqlite_i ON t(b)",
        "CREATE TRIGGER x AFTER INSERT ON _hiqlite_run BEGIN SELECT 1; END",
        "CREATE TRIGGER _hiqlite_t AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE _hiqlite_f USING fts5(a)",
        "ALTER TABLE t RENAME TO _hiqlite_next",
        'ALTER TABLE t RENAME TO /* */ "_hiqlite_x"',
        "ALTER TABLE t RENAME TO '_hiqlite''x'",
        "CREATE TABLE x(a REFERENCES _hiqlite_run(first_index))",
        "CREATE TABLE x(a, FOREIGN KEY(a) REFERENCES `_migrations`(name) DEFERRABLE INITIALLY DEFERRED)",
        "ALTER TABLE t ADD COLUMN x REFERENCES [_hiqlite_run]",
        "WITH x AS (SELECT 1) INSERT INTO _hiqlite_run SELECT 1, 2 FROM x",
    ],
)
def test_internal_tables_cannot_be_written_named_or_referenced(writer: Guard, sql: str) -> None:
    """A foreign key on an internal table could make our own bookkeeping fail, so even REFERENCES is refused."""
    assert refused(writer, sql) == STATEMENT


def test_a_reserved_name_in_a_value_or_another_statement_is_no_name(writer: Guard) -> None:
    """Only names behind REFERENCES and TO count, and only of the statement itself, not of the text behind it."""
    passes(writer, "CREATE TABLE x(a DEFAULT '_hiqlite_run')")
    passes(writer, "INSERT INTO t(b) VALUES('x REFERENCES _hiqlite_run')")
    passes(writer, "CREATE TABLE x(a); ALTER TABLE x RENAME TO _hiqlite_y")


def test_a_trigger_that_writes_an_internal_table_makes_the_write_fail(writer: Guard) -> None:
    """SQLite resolves a trigger's body when the table is written: then the authorizer sees it."""
    writer.connection.execute("CREATE TRIGGER bad AFTER INSERT ON t BEGIN DELETE FROM _hiqlite_run; END").fetchall()
    assert refused(writer, "INSERT INTO t(b) VALUES(1)") == STATEMENT


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t(b) SELECT sqlite_version()",
        "UPDATE t SET b = sqlite_source_id()",
        "INSERT INTO t(b) VALUES(sqlite_compileoption_used('X'))",
        "INSERT INTO t(b) VALUES(total_changes())",
        "SELECT total_changes()",
        "CREATE TABLE x(a CHECK(a <> total_changes()))",
        "CREATE TABLE x AS SELECT sqlite_version() AS v",
        "INSERT INTO t(b) VALUES(load_extension('x'))",
        "SELECT load_extension('x', 'y')",
        "INSERT INTO t(b) SELECT pageno FROM dbstat",
        "INSERT INTO t(b) SELECT page_count FROM pragma_page_count",
        "INSERT INTO t(b) SELECT compile_options FROM pragma_compile_options",
        "INSERT INTO t(b) SELECT last_index FROM _hiqlite_run",
        "DELETE FROM t WHERE a IN (SELECT first_index FROM _hiqlite_run)",
    ],
)
def test_what_differs_per_node_is_refused_in_a_write(writer: Guard, sql: str) -> None:
    """Build, page layout, counters since start and internal rows would make databases differ."""
    assert refused(writer, sql) == DETERMINISM


def test_reading_what_differs_per_node_is_allowed_where_nothing_is_written(writer: Guard, reader: Guard) -> None:
    """A read may ask a node about itself; the writer's own reads would end up in rows."""
    for guard in (writer, reader):
        assert Seen.LOCAL in passes(guard, "SELECT sqlite_version()")
    for table in ("_hiqlite_run", "pragma_page_count", "dbstat", "pragma_function_list"):
        assert Seen.LOCAL in passes(reader, f"SELECT * FROM {table}")
        assert reader.connection.execute(f"SELECT count(*) FROM {table}").fetchall()
        assert refused(writer, f"SELECT * FROM {table}") == DETERMINISM


def test_a_virtual_table_is_no_way_around(writer: Guard) -> None:
    """FTS5 over other content reads it while it is stepped: internal rows and forbidden functions are refused there."""
    connection = writer.connection
    writer.own_writes(True)
    connection.execute("INSERT INTO _hiqlite_run VALUES(1, 2)").fetchall()
    writer.own_writes(False)
    connection.execute(
        "CREATE VIEW build AS SELECT 1 AS id, sqlite_version() AS body;"
        "CREATE VIRTUAL TABLE ft_run USING fts5(first_index, content='_hiqlite_run', content_rowid='last_index');"
        "CREATE VIRTUAL TABLE ft_build USING fts5(body, content='build', content_rowid='id')"
    ).fetchall()
    for table in ("ft_run", "ft_build"):
        writer.statement_begin()
        with pytest.raises(apsw.Error):
            connection.execute(f"INSERT INTO {table}({table}) VALUES('rebuild')").fetchall()
        assert writer.refusal_class == DETERMINISM
    connection.execute("DROP TABLE ft_run; DROP TABLE ft_build").fetchall()


def test_a_forbidden_function_hidden_in_a_foreign_schema_fails_when_it_is_called(tmp_path: Path) -> None:
    """A CHECK of a restored database is compiled without asking the authorizer: the function itself refuses."""
    plain = apsw.Connection(str(tmp_path / "db"))
    plain.execute("CREATE TABLE x(a CHECK(a <> total_changes() AND sqlite_version() <> ''))")
    plain.close()
    connection = open_writer(tmp_path / "db")
    guard = Guard(connection, Role.WRITER)
    guard.statement_begin()
    with pytest.raises(apsw.SQLError, match="differs from node to node"):
        connection.execute("INSERT INTO x VALUES(5)").fetchall()
    assert guard.refusal_class == DETERMINISM
    connection.close()


PRAGMAS_READ = [
    "table_info(t)", "table_xinfo(t)", "table_list", "index_list(t)", "index_info(t_b)", "index_xinfo(t_b)",
    "foreign_key_list(t)", "foreign_key_check", "foreign_key_check(t)", "integrity_check", "integrity_check(5)",
    "quick_check", "page_count", "freelist_count", "compile_options", "function_list", "collation_list", "encoding",
    "user_version", "application_id", "main.table_info(t)",
]  # fmt: skip


@pytest.mark.parametrize("pragma", PRAGMAS_READ)
def test_pragmas_of_the_list_pass_on_every_role(writer: Guard, reader: Guard, pragma: str) -> None:
    """They read the schema or check the file."""
    assert Seen.READS in passes(writer, f"PRAGMA {pragma}")
    assert Seen.READS in passes(reader, f"PRAGMA {pragma}")


def test_pragma_table_functions_follow_the_same_list(writer: Guard, reader: Guard) -> None:
    """They run the PRAGMA inside; both ways of writing are judged alike, also when stepped."""
    for guard in (writer, reader):
        assert Seen.VIRTUAL in passes(guard, "SELECT * FROM pragma_table_info('t')")
        assert [row[1] for row in guard.connection.execute("SELECT * FROM pragma_table_info('t')")] == ["a", "b", "c"]


def test_user_version_is_written_by_an_entry_only(writer: Guard, reader: Guard) -> None:
    """`PRAGMA user_version = 3` is a write; a read call is told which call to use."""
    assert Seen.READS not in passes(writer, "PRAGMA user_version = 3")
    assert Seen.READS not in passes(writer, "PRAGMA application_id = 3")
    assert refused(reader, "PRAGMA user_version = 3") == USAGE
    assert refused(reader, "PRAGMA application_id(3)") == USAGE


WRITES = [
    "INSERT INTO t(b) VALUES(1)",
    "REPLACE INTO t(a) VALUES(1)",
    "UPDATE t SET b = 1",
    "DELETE FROM t",
    "WITH x(n) AS (SELECT 1) UPDATE t SET b = (SELECT n FROM x)",
    "INSERT INTO t(b) VALUES(1) RETURNING a",
    "CREATE TABLE x(a)",
    "CREATE TABLE IF NOT EXISTS t(a)",
    "CREATE INDEX x ON t(c)",
    "CREATE VIEW x AS SELECT 1",
    "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE x USING fts5(a)",
    "DROP TABLE t",
    "DROP TABLE IF EXISTS missing",
    "DROP TRIGGER IF EXISTS missing",
    "DROP INDEX t_b",
    "DROP VIEW v",
    "DROP TABLE ft",
    "ALTER TABLE t RENAME TO u",
    "ALTER TABLE t RENAME COLUMN b TO d",
    "ALTER TABLE t ADD COLUMN d",
    "ALTER TABLE t DROP COLUMN c",
    "ANALYZE",
    "REINDEX",
    "INSERT INTO ft VALUES('x')",
]


@pytest.mark.parametrize("sql", WRITES)
def test_writes_pass_on_the_writer_and_are_a_usage_error_on_a_reader(writer: Guard, reader: Guard, sql: str) -> None:
    """The reader's refusal names the right call."""
    assert Seen.READS not in passes(writer, sql)
    assert refused(reader, sql) == USAGE
    assert "execute" in (reader.refusal or "")


def test_reads_pass_on_every_role(writer: Guard, reader: Guard) -> None:
    """Selecting from tables, views, virtual tables and CTEs, and explaining a write, change nothing."""
    for guard in (writer, reader):
        assert Seen.READS in passes(guard, "SELECT * FROM v JOIN t USING(a) WHERE b LIKE 'x%'")
        assert Seen.RECURSIVE in passes(
            guard, "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c LIMIT 3) SELECT * FROM c"
        )
        assert Seen.EXPLAIN in passes(guard, "EXPLAIN QUERY PLAN DELETE FROM t")
        assert guard.connection.execute("SELECT count(*) FROM ft WHERE ft MATCH 'x'").fetchall() == [(0,)]
        assert guard.connection.execute("SELECT count(*) FROM box WHERE low > 1").fetchall() == [(0,)]
        assert guard.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_reader_cannot_write_by_stepping_either(reader: Guard) -> None:
    """Even without the guard's own prepare, the authorizer and `query_only` hold."""
    for sql in [*WRITES, "ATTACH ':memory:' AS x", "VACUUM", "BEGIN"]:
        if "IF EXISTS missing" in sql or "IF NOT EXISTS" in sql:
            continue
        with pytest.raises(apsw.Error):
            reader.connection.execute(sql).fetchall()
    assert not reader.connection.in_transaction
    reader.own_writes(True)
    with pytest.raises(apsw.ReadOnlyError):
        reader.connection.execute("INSERT INTO t(b) VALUES(1)").fetchall()
