"""Random SQL through a reader and a writer: whatever SQLite makes of it, the rules hold."""

from __future__ import annotations

import apsw
from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite._accel import guard as native
from hiqlite._accel.guard import Guard
from hiqlite.statemachine.authorizer import Role, Seen

HEADS = [
    "SELECT",
    "INSERT INTO t",
    "UPDATE t SET b =",
    "DELETE FROM",
    "CREATE TABLE",
    "CREATE TEMP TABLE",
    "CREATE VIEW",
    "CREATE TRIGGER x AFTER INSERT ON",
    "ALTER TABLE t",
    "DROP TABLE",
    "PRAGMA",
    "EXPLAIN PRAGMA",
    "EXPLAIN",
    "ATTACH",
    "VACUUM",
    "BEGIN",
    "SAVEPOINT",
    "RELEASE",
    "ROLLBACK",
    "COMMIT",
    "ANALYZE",
    "REINDEX",
    "WITH x AS (SELECT 1)",
    "VALUES",
    "REPLACE INTO",
    "CREATE VIRTUAL TABLE",
]
WORDS = [
    "t",
    "ft",
    "box",
    "x",
    "temp.x",
    "main.t",
    "_hiqlite_run",
    '"_migrations"',
    "[_hiqlite_a]",
    "sqlite_schema",
    "pragma_data_version",
    "pragma_table_info('t')",
    "dbstat",
    "FROM",
    "SELECT",
    "VALUES",
    "(",
    ")",
    ",",
    "=",
    "1",
    "'a'",
    "*",
    ";",
    "BEGIN",
    "END",
    "RENAME TO",
    "RENAME COLUMN b TO",
    "ADD COLUMN",
    "REFERENCES",
    "USING fts5(a)",
    "AS",
    "RETURNING a",
    "journal_mode",
    "user_version",
    "writable_schema",
    "data_version",
    "foreign_keys",
    "random()",
    "changes()",
    "total_changes()",
    "sqlite_version()",
    "load_extension('x')",
    "/*",
    "*/",
    "--\n",
    "'",
    "\ufeff",
]
TEXTS = st.builds(
    lambda head, words: " ".join([head, *words]), st.sampled_from(HEADS), st.lists(st.sampled_from(WORDS))
)
PRAGMAS = ("journal_mode", "writable_schema", "foreign_keys", "synchronous", "schema_version", "user_version")


def database(role: Role) -> Guard:
    """A database in memory with one of everything, under guard."""
    native.register_vfs()
    connection = apsw.Connection(":memory:", vfs="hiqlite")
    native.load(connection)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.execute(
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t(b) VALUES(1), (2);"
        "CREATE TABLE _hiqlite_run(a); INSERT INTO _hiqlite_run VALUES(1); CREATE TABLE _migrations(id);"
        "CREATE VIRTUAL TABLE ft USING fts5(a); CREATE VIRTUAL TABLE box USING rtree(id, low, high)"
    ).fetchall()
    if role is Role.READER:
        connection.pragma("query_only", 1)
    return Guard(connection, role)


def state(guard: Guard) -> list[object]:
    """What no refused or reading statement may change."""
    guard.own_writes(True)
    connection = guard.connection
    found: list[object] = [connection.pragma(name) for name in PRAGMAS]
    schema = connection.execute("SELECT * FROM sqlite_schema").fetchall()
    there = any(row[1] == "t" for row in schema)  # a writer may drop it
    found += [schema, connection.execute("SELECT * FROM t").fetchall() if there else "gone"]
    found += [connection.execute("SELECT * FROM temp.sqlite_schema").fetchall(), connection.in_transaction]
    found += [[row[1] for row in connection.execute("PRAGMA database_list")]]
    found += [connection.execute("SELECT * FROM _hiqlite_run").fetchall()]
    guard.own_writes(False)
    return found


def step(guard: Guard, text: str) -> None:
    """Runs what the guard lets pass, statement by statement."""
    at, utf8 = 0, text.encode()
    while at < len(utf8):
        program = guard.prepare(utf8, at)
        if program.code:
            assert program.message and program.error_class
            return
        guard.statement_begin()
        try:
            guard.connection.execute(utf8[at : program.end].decode(), prepare_flags=0).fetchall()
        except apsw.Error as error:
            assert str(error)
        at = program.end


@given(st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_nothing_stepped_on_a_reader_changes_anything(texts: list[str]) -> None:
    """Neither rows, schema, settings, transactions nor attached databases."""
    guard = database(Role.READER)
    before = state(guard)
    for text in texts:
        step(guard, text)
    assert state(guard) == before
    guard.connection.close()


@given(st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_writer_keeps_settings_and_internal_tables(texts: list[str]) -> None:
    """Users' tables may change; transactions, temp objects, other databases and internal rows may not."""
    guard = database(Role.WRITER)
    before = state(guard)
    for text in texts:
        step(guard, text)
    after = state(guard)
    names = {row[1] for row in after[len(PRAGMAS)]}  # type: ignore[attr-defined]
    assert after[:4] == before[:4]
    assert after[-4:] == before[-4:]
    assert {name for name in names if name.startswith("_")} == {"_hiqlite_run", "_migrations"}
    guard.connection.close()


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_a_text_that_passes_as_a_read_is_one(text: str) -> None:
    """READS on the writer means that running it changes nothing."""
    guard = database(Role.WRITER)
    before = state(guard)
    program = guard.prepare(text.encode())
    if program.code == 0 and Seen.READS in Seen(program.seen):
        step(guard, text.encode()[: program.end].decode())
        assert state(guard) == before
    guard.connection.close()
