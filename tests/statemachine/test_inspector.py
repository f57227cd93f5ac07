"""The leader's look at a text before it is proposed: kind, count of statements, parameters, schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from hiqlite._accel.commands import ROWS_WANTED, command_view, encode_batch, encode_command, encode_migration
from hiqlite.errors import DeterminismError, ParameterError, SchemaError, StatementError, UsageError
from hiqlite.statemachine.authorizer import Seen
from hiqlite.statemachine.connection import open_inspector, open_writer
from hiqlite.statemachine.inspector import Inspector

EXECUTE, EXECUTE_MANY, TXN = 1, 2, 3


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = open_writer(tmp_path / "db")
    connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE VIRTUAL TABLE ft USING fts5(x)").fetchall()
    yield connection
    connection.close()


@pytest.fixture
def inspector(writer: apsw.Connection, tmp_path: Path) -> Iterator[Inspector]:
    connection = open_inspector(tmp_path / "db")
    yield Inspector(connection, capacity=3)
    connection.close()


def test_a_text_is_described(inspector: Inspector) -> None:
    """Parameters, columns, kind and what it touches."""
    info = inspector.inspect("INSERT INTO t(b) VALUES(:é) RETURNING a, b AS bb")
    assert info.text_utf8 == "INSERT INTO t(b) VALUES(:é) RETURNING a, b AS bb".encode()
    assert (info.parameter_count, info.parameter_names) == (1, ("é",))
    assert (info.readonly, info.returns_rows, info.column_names) == (False, True, ("a", "bb"))
    assert (info.changes_schema, info.touches_virtual, info.uncertain) == (False, False, False)
    assert inspector.inspect("INSERT INTO ft VALUES(?)").touches_virtual
    assert inspector.inspect("CREATE INDEX i ON t(b)").changes_schema
    assert inspector.inspect("INSERT INTO t(b) VALUES(?1), (?3), ($4), (@five)").parameter_names == (
        None, None, None, "4", "five",
    )  # fmt: skip
    assert Seen.INSERT in info.seen


def test_nothing_is_changed_by_looking(inspector: Inspector, writer: apsw.Connection) -> None:
    """Texts are prepared, never stepped."""
    for sql in ("DELETE FROM t", "DROP TABLE t", "PRAGMA user_version = 9", "CREATE TABLE x(a)"):
        inspector.inspect(sql)
    assert writer.pragma("user_version") == 0
    assert {row[0] for row in writer.execute("SELECT name FROM sqlite_schema")} >= {"t"}


@pytest.mark.parametrize("sql", ["SELECT 1", "PRAGMA table_info(t)", "EXPLAIN DELETE FROM t", "VALUES(1)"])
def test_a_read_in_a_write_call_names_query(inspector: Inspector, sql: str) -> None:
    """Nothing is replicated for a read."""
    with pytest.raises(UsageError, match=r"query\(\)"):
        inspector.inspect(sql)
    assert inspector.inspect(sql, reads=True).readonly


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("DELETE FROM t", r"execute\(\)"),
        ("DROP TRIGGER IF EXISTS missing", r"execute\(\)"),
        ("DELETE FROM t RETURNING a", r"execute_returning\(\)"),
    ],
)
def test_a_write_in_a_read_call_names_the_right_call(inspector: Inspector, sql: str, name: str) -> None:
    """An error of a read has no outcome."""
    with pytest.raises(UsageError, match=name) as caught:
        inspector.inspect(sql, reads=True)
    assert caught.value.outcome is None


def test_rows_must_be_wanted_and_there(inspector: Inspector) -> None:
    """`execute` would lose the rows; `execute_returning` would wait for rows that cannot come."""
    with pytest.raises(UsageError, match=r"execute_returning\(\)"):
        inspector.inspect("DELETE FROM t RETURNING a", expects_rows=False)
    with pytest.raises(UsageError, match=r"execute\(\)"):
        inspector.inspect("DELETE FROM t", expects_rows=True)
    inspector.inspect("DELETE FROM t", expects_rows=False)
    inspector.inspect("DELETE FROM t RETURNING a", expects_rows=True)


@pytest.mark.parametrize("sql", ["", "  \n", ";", "-- nothing", "/* nothing */ ;", "/* open"])
def test_a_text_without_statement_is_told(inspector: Inspector, sql: str) -> None:
    """White space, comments and semicolons are no statement."""
    with pytest.raises(UsageError, match="no statement"):
        inspector.inspect(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM t; DELETE FROM t",
        "DELETE FROM t; nonsense",
        "CREATE TABLE x(a); INSERT INTO x VALUES(1)",
        "DELETE FROM t; BEGIN",
        "DELETE FROM t;;/* c */ SELECT 1",
    ],
)
def test_several_statements_name_batch(inspector: Inspector, sql: str) -> None:
    """Whatever the second one is."""
    with pytest.raises(UsageError, match=r"batch\(\)"):
        inspector.inspect(sql)


@pytest.mark.parametrize("tail", [";", " ; ; ", "; -- done", "; /* done */", ";\n\n"])
def test_blanks_behind_one_statement_are_no_statement(inspector: Inspector, tail: str) -> None:
    """Semicolons and comments may follow."""
    assert not inspector.inspect("DELETE FROM t" + tail).readonly


@pytest.mark.parametrize(
    ("sql", "kind", "code"),
    [
        ("SELEC 1", StatementError, 1),
        ("INSERT INTO t VALUES(", StatementError, 1),
        ("INSERT INTO missing VALUES(1)", SchemaError, 1),
        ("INSERT INTO t(z) VALUES(1)", SchemaError, 1),
        ("CREATE TABLE t(a)", SchemaError, 1),
        ("BEGIN", StatementError, 23),
        ("VACUUM", StatementError, 23),
        ("PRAGMA journal_mode = DELETE", StatementError, 23),
    ],
)
def test_wrong_sql_is_refused_with_sqlites_code(
    inspector: Inspector, sql: str, kind: type[StatementError], code: int
) -> None:
    """The error carries code, index and text, and says that nothing was applied."""
    with pytest.raises(kind) as caught:
        inspector.inspect(sql, index=4)
    error = caught.value
    assert type(error) is kind
    assert (error.sqlite_code, error.statement_index, error.sql, error.outcome) == (code, 4, sql, "not_applied")


def test_what_differs_per_node_is_a_determinism_error(inspector: Inspector) -> None:
    """Before anything is replicated."""
    with pytest.raises(DeterminismError, match="differ"):
        inspector.inspect("INSERT INTO t(b) VALUES(sqlite_version())")


@pytest.mark.parametrize("sql", ["SELECT '\0'", "SELECT '\ud800'", b"SELECT 1", None, 5])
def test_what_is_no_text_is_a_usage_error(inspector: Inspector, sql: Any) -> None:
    """NUL, lone surrogates and other types."""
    with pytest.raises(UsageError):
        inspector.inspect(sql)


def test_a_long_text_is_shown_shortened(inspector: Inspector) -> None:
    """Errors stay readable."""
    with pytest.raises(StatementError) as caught:
        inspector.inspect("SELECT " + "x" * 1000 + " FROM nowhere")
    assert len(caught.value.sql or "") == 200


# --------------------------------------------------------------------------- cache and schema


def test_a_text_is_prepared_once_per_schema(inspector: Inspector) -> None:
    """Equal texts give the same object until the schema changes; the least recently used one is dropped."""
    first = inspector.inspect("DELETE FROM t")
    assert inspector.inspect("DELETE FROM t") is first
    for number in range(3):
        inspector.inspect(f"DELETE FROM t WHERE a = {number}")
    assert inspector.inspect("DELETE FROM t") is not first


def test_a_new_schema_is_a_new_epoch(inspector: Inspector, writer: apsw.Connection) -> None:
    """What was learnt counts for one schema epoch."""
    first = inspector.inspect("INSERT INTO t(b) VALUES(1)")
    writer.execute("DROP TABLE t").fetchall()
    assert inspector.inspect("INSERT INTO t(b) VALUES(1)") is first
    inspector.schema_changed()
    assert inspector.schema_epoch == first.schema_epoch + 1
    with pytest.raises(SchemaError, match="no such table"):
        inspector.inspect("INSERT INTO t(b) VALUES(1)")


def test_a_new_table_is_seen_without_being_told(inspector: Inspector, writer: apsw.Connection) -> None:
    """Errors are not remembered, and SQLite reads the schema again when a table is missing."""
    with pytest.raises(SchemaError):
        inspector.inspect("INSERT INTO later VALUES(1)")
    writer.execute("CREATE TABLE later(a)").fetchall()
    inspector.inspect("INSERT INTO later VALUES(1)")
    writer.execute("CREATE VIRTUAL TABLE words USING fts5(a)").fetchall()
    assert inspector.inspect("INSERT INTO words VALUES(1)").touches_virtual


def test_huge_texts_are_not_kept(inspector: Inspector) -> None:
    """The cache is bounded in bytes too."""
    sql = "DELETE FROM t /* " + "x" * 70_000 + " */"
    assert inspector.inspect(sql) is not inspector.inspect(sql)


# --------------------------------------------------------------------------- parameters


def test_parameters_that_fit_pass(inspector: Inspector) -> None:
    """Sequences by count, mappings by name; one name may occur twice."""
    positional = inspector.inspect("INSERT INTO t VALUES(?, ?)")
    inspector.check_parameters(positional, (1, 2))
    inspector.check_parameters(positional, [1, 2])
    named = inspector.inspect("INSERT INTO t VALUES(:a, @a), ($b, :b)")
    inspector.check_parameters(named, {"a": 1, "b": 2})
    inspector.check_parameters(inspector.inspect("DELETE FROM t"), ())
    inspector.check_parameters(inspector.inspect("DELETE FROM t"), {})


@pytest.mark.parametrize(
    ("sql", "params", "message"),
    [
        ("INSERT INTO t VALUES(?, ?)", (1,), "takes 2 parameters, 1"),
        ("INSERT INTO t VALUES(?, ?)", (1, 2, 3), "takes 2 parameters, 3"),
        ("INSERT INTO t VALUES(?1, ?3)", (1, 2), "takes 3 parameters, 2"),
        ("INSERT INTO t VALUES(:a, :b)", {"a": 1}, "'b'"),
        ("INSERT INTO t VALUES(:a, :b)", {"a": 1, "b": 2, "c": 3}, "too many parameters.*'c'"),
        ("INSERT INTO t VALUES(:a, ?)", {"a": 1}, "parameter 2 has no name"),
        ("DELETE FROM t", {"a": 1}, "'a'"),
        ("DELETE FROM t", range(40_000), "more than SQLite takes .32766"),
        ("INSERT INTO t(b) VALUES(?)", "x", "not str"),
        ("INSERT INTO t(b) VALUES(?)", b"x", "not bytes"),
        ("INSERT INTO t(b) VALUES(?)", 5, "not int"),
        ("INSERT INTO t(b) VALUES(?)", {1, 2}, "not set"),
    ],
)
def test_parameters_that_do_not_fit_are_a_parameter_error(
    inspector: Inspector, sql: str, params: Any, message: str
) -> None:
    """Too few, too many, missing, left over, or not a collection of values."""
    with pytest.raises(ParameterError, match=message):
        inspector.check_parameters(inspector.inspect(sql), params)


# --------------------------------------------------------------------------- whole calls


def test_a_transaction_may_use_what_its_earlier_statements_make(inspector: Inspector) -> None:
    """The schema at hand lacks the table; what only that could cure passes, bad syntax and refusals do not."""
    infos = inspector.check_statements(
        [
            ("CREATE TABLE fresh(a UNIQUE)", ()),
            ("INSERT INTO fresh VALUES(?) ON CONFLICT(a) DO NOTHING", (1,)),
            ("INSERT INTO t(b) VALUES(?)", (2,)),
        ]
    )
    assert [info.uncertain for info in infos] == [False, True, False]
    with pytest.raises(SchemaError):
        inspector.inspect("INSERT INTO fresh VALUES(1)")
    for wrong in (
        "INSERT INTO",
        "INSERT INTO fresh VALUES(",
        "BEGIN",
        "CREATE TABLE _hiqlite_x(a)",
        "SELECT 1",
    ):
        with pytest.raises((StatementError, UsageError)):
            inspector.check_statements([("CREATE TABLE fresh(a)", ()), (wrong, ())])


def test_before_the_schema_change_nothing_is_lenient(inspector: Inspector) -> None:
    """Order counts, and the error names the statement."""
    with pytest.raises(SchemaError) as caught:
        inspector.check_statements([("DELETE FROM t", ()), ("DELETE FROM fresh", ()), ("CREATE TABLE fresh(a)", ())])
    assert caught.value.statement_index == 1
    with pytest.raises(ParameterError, match="statement 1: "):
        inspector.check_statements([("DELETE FROM t", ()), ("DELETE FROM t", (1,))])


def test_a_forwarded_command_is_checked_like_a_local_call(inspector: Inspector) -> None:
    """What came from another node may be wrong in all the same ways."""
    good = encode_command(TXN, [("INSERT INTO t VALUES(?, ?)", (1, 2)), ("DELETE FROM t WHERE a = :a", {"a": 1})])
    assert len(inspector.check_command(command_view(good))) == 2
    for statements, kind in (
        ([("SELECT 1", ())], UsageError),
        ([("DELETE FROM t WHERE a = ?", ())], ParameterError),
        ([("DELETE FROM t WHERE a = :a", {"b": 1})], ParameterError),
        ([("DELETE FROM t; DELETE FROM t", ())], UsageError),
        ([("DELETE FROM missing", ())], SchemaError),
        ([("DELETE FROM t RETURNING a", ())], UsageError),
    ):
        with pytest.raises(kind):
            inspector.check_command(command_view(encode_command(EXECUTE, statements)))
    wanted = encode_command(EXECUTE, [("DELETE FROM t RETURNING a", ())], flags=ROWS_WANTED)
    assert inspector.check_command(command_view(wanted))[0].returns_rows
    many = encode_command(EXECUTE_MANY, [("INSERT INTO t(b) VALUES(?)", (n,)) for n in range(3)])
    assert len(inspector.check_command(command_view(many))) == 3


def test_batches_and_migrations_are_looked_at_when_they_run(inspector: Inspector) -> None:
    """Their statements may depend on each other; a syntax error is an answer there."""
    assert inspector.check_command(command_view(encode_batch("nonsense; SELECT 1"))) == []
    assert inspector.check_command(command_view(encode_migration("nonsense", "1_a.sql", "0" * 64))) == []
