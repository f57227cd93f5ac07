"""What SQL may do through each role: the authorizer, and what is judged after prepare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
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
    """A read may ask a node about itself."""
    for guard in (writer, reader):
        assert Seen.LOCAL in passes(guard, "SELECT sqlite_version()")
        passes(guard, "SELECT * FROM _hiqlite_run")
        passes(guard, "SELECT * FROM pragma_page_count")


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


def test_sqlite_stat_tables_are_written_by_analyze_only(writer: Guard) -> None:
    """A direct write would be read by each connection at another time; DROP and ANALYZE touch them by themselves."""
    writer.connection.execute("INSERT INTO t(b) VALUES(1); ANALYZE").fetchall()
    assert refused(writer, "DELETE FROM sqlite_stat1") == STATEMENT
    assert refused(writer, "UPDATE sqlite_stat1 SET stat = '1'") == STATEMENT
    assert refused(writer, "INSERT INTO sqlite_stat4 VALUES(1,2,3,4,5,6)") == STATEMENT
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
    texts = [b"", b"\x00", b"SELECT 1\x00; DROP TABLE t", b"'", b'"', b"[", b"/*", b"--", b"\xff\xfe", b"EXPLAIN",
             b"EXPLAIN QUERY", b"CREATE", b"CREATE UNIQUE", b"ALTER TABLE t RENAME TO", b"REFERENCES", deep.encode()]  # fmt: skip
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
