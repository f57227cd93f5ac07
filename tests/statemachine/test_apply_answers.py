"""What applying gives back: results, rows, references, expectations, the same start for each entry."""

from __future__ import annotations

from pathlib import Path

import pytest
from apply_harness import (
    WALL_NS,
    Machine,
    apply_alike,
    batch,
    error_of,
    execute,
    execute_many,
    machine,
    migration,
    no_op,
    sealed,
    status_of,
    txn,
)

from hiqlite._accel.answers import (
    ExecuteResult,
    decode_batch,
    decode_execute,
    decode_many,
    decode_returning,
    decode_txn,
)
from hiqlite._accel.records import Reference as ref
from hiqlite._accel.records import encode_record, header
from hiqlite.errors import (
    ConstraintError,
    DeterminismError,
    ExpectationFailed,
    HiqliteError,
    MigrationError,
    ParameterError,
    SchemaError,
    StatementError,
    UsageError,
)


@pytest.fixture
def made(tmp_path: Path):
    with machine(tmp_path / "a.db") as opened:
        opened.apply([batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE u(id INTEGER PRIMARY KEY, a)")])
        yield opened


def result(made: Machine, record: bytes) -> tuple[int, int]:
    found = decode_execute(made.one(record), 1)
    return found.rows_affected, found.last_insert_rowid


def test_counts_and_rowids_are_those_of_the_statement(made: Machine) -> None:
    """Only statements that change rows carry counts; only those that insert carry a rowid."""
    assert result(made, execute("INSERT INTO t(a) VALUES (1), (2), (3)")) == (3, 3)
    assert result(made, execute("UPDATE t SET a = 5 WHERE id < 3")) == (2, 0)
    assert result(made, execute("CREATE INDEX i ON t(a)")) == (0, 0)
    assert result(made, execute("INSERT OR IGNORE INTO t(id) VALUES (1)")) == (0, 0)
    assert result(made, execute("INSERT INTO t(id) VALUES (2) ON CONFLICT DO UPDATE SET b = 1")) == (1, 0)
    assert result(made, execute("REPLACE INTO t(id) VALUES (9)")) == (1, 9)
    assert result(made, execute("DELETE FROM t")) == (4, 0)
    assert result(made, execute("PRAGMA user_version = 7")) == (0, 0)
    assert result(made, execute("SELECT 1")) == (0, 0)


def test_rowids_inside_a_txn_are_those_of_each_statement(made: Machine) -> None:
    """An upsert that only updates reports none although an earlier statement inserted one; equal ones are told."""
    found = decode_txn(
        made.one(
            txn(
                "INSERT INTO t(id) VALUES (4)",
                "INSERT INTO u(id) VALUES (4)",
                "INSERT INTO t(id) VALUES (4) ON CONFLICT DO UPDATE SET a = last_insert_rowid()",
                "UPDATE t SET b = last_insert_rowid()",
                "CREATE TABLE w(k PRIMARY KEY) WITHOUT ROWID",
                "INSERT INTO w VALUES (1)",
            )
        ),
        1,
    )
    assert [(s.result.rows_affected, s.result.last_insert_rowid) for s in found][:2] == [(1, 4), (1, 4)]
    assert [s.result.last_insert_rowid for s in found][3:] == [0, 0, 0]
    assert made.rows("SELECT a, b FROM t") == [(4, 4)]


def test_returning_rows_come_with_names_and_storage_classes(made: Machine) -> None:
    """All five classes, several rows, and the empty result with its columns."""
    sql = "INSERT INTO t(a, b) VALUES (1, 2.5), ('ü', x'00ff'), (NULL, '') RETURNING id, a, b AS c"
    answer = made.one(execute(sql, rows=True))
    rows, found = decode_returning(answer, 7)
    assert [tuple(row) for row in rows] == [(1, 1, 2.5), (2, "ü", b"\x00\xff"), (3, None, "")]
    assert list(rows[0].keys()) == ["id", "a", "c"]
    assert found == ExecuteResult(3, 3, 7)
    rows, found = decode_returning(made.one(execute("DELETE FROM t WHERE id = 99 RETURNING *", rows=True)), 8)
    assert rows == [] and found.rows_affected == 0
    assert decode_execute(made.one(execute("DELETE FROM t RETURNING *")), 9).rows_affected == 3  # not wanted, not sent


def test_references_take_the_first_row_of_an_earlier_returning(made: Machine) -> None:
    """By name and by number, of every storage class, in sequences and mappings."""
    answer = made.one(
        txn(
            ("INSERT INTO t(a, b) VALUES ('x', x'01'), ('y', x'02') RETURNING id, a, b", ()),
            ("INSERT INTO u(id, a) VALUES (:i, :b)", {"i": ref(0, "id"), "b": ref(0, "b")}),
            ("INSERT INTO u(id, a) VALUES (?, ?)", [100, ref(0, 1)]),
        )
    )
    assert status_of(answer) == 0
    assert made.rows("SELECT * FROM u") == [(1, b"\x01"), (100, "x")]


@pytest.mark.parametrize(
    ("reference", "returning", "kind"),
    [
        (ref(0, "id"), "UPDATE t SET a = 1 WHERE id = 99 RETURNING id", ExpectationFailed),
        (ref(0, "nope"), "INSERT INTO t(a) VALUES (1) RETURNING id", UsageError),
        (ref(0, 7), "INSERT INTO t(a) VALUES (1) RETURNING id", UsageError),
        (ref(0, "id"), "INSERT INTO t(a) VALUES (1) RETURNING id, a AS id", UsageError),
        (ref(0, "id"), "INSERT INTO t(a) VALUES (1)", UsageError),
        (ref(0, "id"), "SELECT 1 AS id", UsageError),
    ],
)
def test_references_that_lead_nowhere_fail_the_txn(made: Machine, reference, returning, kind) -> None:
    """No row: ExpectationFailed; no such column, or no RETURNING at all: UsageError. Nothing of the txn remains."""
    error = error_of(made.one(txn((returning, ()), ("INSERT INTO u(a) VALUES (?)", [reference]))))
    assert type(error) is kind
    assert made.rows("SELECT count(*) FROM t") == [(0,)]


def test_an_unmet_expectation_rolls_everything_back(made: Machine) -> None:
    """`expect` counts changed rows, and rows found by a statement that reads; it says which statement it was."""
    made.one(execute("INSERT INTO t(id, a) VALUES (1, 10)"))
    move = ("UPDATE t SET a = a - 5 WHERE id = 1 AND a >= 5", ())
    assert status_of(made.one(txn(("INSERT INTO u(a) VALUES (1)", ()), move, expects=[None, 1]))) == 0
    assert status_of(made.one(txn(("SELECT 1 FROM t WHERE id = 1", ()), move, expects=[1, 1]))) == 0
    error = error_of(made.one(txn(("INSERT INTO u(a) VALUES (1)", ()), move, expects=[None, 1])))
    assert isinstance(error, ExpectationFailed) and error.statement_index == 1
    assert made.rows("SELECT count(*) FROM u") == [(1,)]
    assert isinstance(error_of(made.one(execute("DELETE FROM t", expect=5))), ExpectationFailed)
    assert made.rows("SELECT count(*) FROM t") == [(1,)]


def test_execute_many_is_atomic_and_gives_one_result_each(made: Machine) -> None:
    """All or nothing, the error names the parameter set that failed."""
    answer = made.one(execute_many("INSERT INTO t(id) VALUES (?)", [[1], [2], [3]]))
    assert [found.last_insert_rowid for found in decode_many(answer, 1)] == [1, 2, 3]
    error = error_of(made.one(execute_many("INSERT INTO t(id) VALUES (?)", [[4], [5], [1], [6]])))
    assert isinstance(error, ConstraintError) and error.statement_index == 2
    assert made.rows("SELECT max(id) FROM t") == [(3,)]


def test_parameters_of_all_kinds_are_bound(made: Machine) -> None:
    """Positions, ?NNN, $N by number, names with any prefix; one name for several places."""
    for sql, params, wanted in [
        ("INSERT INTO t(a, b) VALUES (?, ?)", ["p", "q"], ("p", "q")),
        ("INSERT INTO t(a, b) VALUES (?2, ?1)", ["p", "q"], ("q", "p")),
        ("INSERT INTO t(a, b) VALUES ($2, $1)", ["p", "q"], ("q", "p")),
        ("INSERT INTO t(a, b) VALUES (:x, @x)", {"x": "p"}, ("p", "p")),
        ("INSERT INTO t(a, b) VALUES ($long, :y)", {"y": "q", "long": "p"}, ("p", "q")),
    ]:
        assert status_of(made.one(execute(sql, params))) == 0
        assert made.rows("SELECT a, b FROM t ORDER BY id DESC LIMIT 1") == [wanted]
    names = {f"n{i}": i for i in range(300)}
    sql = "INSERT INTO t(a) VALUES (" + " + ".join(f":n{i}" for i in reversed(range(300))) + ")"
    assert status_of(made.one(execute(sql, names))) == 0
    assert made.rows("SELECT a FROM t ORDER BY id DESC LIMIT 1") == [(sum(range(300)),)]


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("INSERT INTO t(a) VALUES (?)", []),
        ("INSERT INTO t(a) VALUES (?)", [1, 2]),
        ("INSERT INTO t(a) VALUES ($3)", [1]),
        ("INSERT INTO t(a) VALUES (:a)", {"b": 1}),
        ("INSERT INTO t(a) VALUES (:a)", {"a": 1, "b": 2}),
        ("INSERT INTO t(a) VALUES (?)", {"a": 1}),
        ("INSERT INTO t(a) VALUES (1)", {"a": 1}),
    ],
)
def test_parameters_that_do_not_fit_are_errors(made: Machine, sql: str, params: object) -> None:
    """Too few, too many, missing and unknown names: ParameterError, and nothing is written."""
    assert isinstance(error_of(made.one(execute(sql, params))), ParameterError)
    assert made.rows("SELECT count(*) FROM t") == [(0,)]


def test_each_entry_starts_alike_whatever_ran_before(tmp_path: Path) -> None:
    """changes() and last_insert_rowid() are 0 at the start of an entry, in every cut, triggers included."""
    answers = apply_alike(
        tmp_path,
        [
            batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t(id, a) VALUES (77, 1)"),
            execute("INSERT INTO t(a, b) VALUES (changes(), last_insert_rowid())"),
            execute("UPDATE t SET a = a"),
            txn("INSERT INTO t(a, b) VALUES (changes(), last_insert_rowid())", "INSERT INTO t(a) VALUES (changes())"),
            batch("INSERT INTO t(a, b) VALUES (changes(), last_insert_rowid()); INSERT INTO t(a) VALUES (changes())"),
            execute("CREATE TRIGGER g AFTER UPDATE ON t BEGIN INSERT INTO t(a, b) VALUES ('g', changes()); END"),
            execute("DELETE FROM t WHERE id < 80"),
            execute("UPDATE t SET b = 'u' WHERE id = 80"),
            no_op(),
            execute_many("INSERT INTO t(a, b) VALUES (?, changes())", [["m"], ["m"]]),
        ],
    )
    assert all(status_of(answer) == 0 for answer in answers)
    with machine(tmp_path / "one.db") as made:
        assert made.rows("SELECT a, b FROM t WHERE a IN ('g', 'm') ORDER BY id") == [("g", 0), ("m", 0), ("m", 1)]


def test_time_and_chance_come_from_the_entry(tmp_path: Path) -> None:
    """Every spelling of now is the entry's wall time; random() is the same in every cut."""
    apply_alike(
        tmp_path,
        [
            execute("CREATE TABLE t(id INTEGER PRIMARY KEY, at DEFAULT CURRENT_TIMESTAMP, a, b)"),
            execute("INSERT INTO t(a, b) VALUES (unixepoch('subsec'), random())"),
            txn("INSERT INTO t(a) VALUES (random())", "INSERT INTO t(a) VALUES (random())"),
            batch("INSERT INTO t(a) VALUES (hex(randomblob(20))); INSERT OR ROLLBACK INTO t(id) VALUES (1);"
                  "INSERT INTO t(a) VALUES (random())"),
            execute("INSERT INTO t(a) SELECT a FROM t ORDER BY random()"),
        ],
    )
    with machine(tmp_path / "one.db") as made:
        assert made.rows("SELECT at, a FROM t WHERE id = 1") == [("2023-11-14 22:13:20", WALL_NS // 1_000_000 / 1000)]
        assert made.rows("SELECT count(*) = count(DISTINCT a) FROM t WHERE id < 6") == [(1,)]


def test_a_batch_answers_each_statement_and_ends_at_a_syntax_error(made: Machine) -> None:
    """Comments and empty statements are nothing; failed statements stand between the others."""
    text = """
      -- a comment; with a semicolon
      INSERT INTO t(id, a) VALUES (1, 'a;b');;
      INSERT INTO missing VALUES (1); /* ; */ SELECT * FROM t;
      CREATE TRIGGER g AFTER INSERT ON missing BEGIN SELECT 1; SELECT ';'; END;
      INSERT INTO t(id) VALUES (1);
      CREATE TABLE "odd;name"(x);
      INSERT INTO t(a) VALUES (?);
      INSERT INTO t(id) VALUES (2);
      INSRT INTO t(id) VALUES (3);
      INSERT INTO t(id) VALUES (4)
    """
    results = decode_batch(made.one(batch(text)), 5)
    kinds = [type(found) for found in results]
    assert kinds == [
        ExecuteResult, SchemaError, ExecuteResult, SchemaError, ConstraintError, ExecuteResult, ParameterError,
        ExecuteResult, StatementError,
    ]
    assert made.rows("SELECT id FROM t") == [(1,), (2,)]
    assert decode_batch(made.one(batch("-- nothing at all")), 6) == []


@pytest.mark.parametrize("sql", ["", "  ;; -- none", "SELECT 1; SELECT 2", "INSERT INTO t(a) VALUES (1); DROP TABLE t"])
def test_one_call_takes_one_statement(made: Machine, sql: str) -> None:
    """None or several in an execute: UsageError; trailing blanks and comments do not count."""
    assert isinstance(error_of(made.one(execute(sql))), UsageError)
    assert status_of(made.one(execute("INSERT INTO t(a) VALUES (1); -- done ;\n ;"))) == 0


def test_errors_carry_their_class_and_codes(made: Machine) -> None:
    """Class, extended code, words of SQLite."""
    for sql, kind, code in [
        ("INSERT INTO t(id) VALUES ('x')", StatementError, 20),
        ("INSERT INTO nowhere VALUES (1)", SchemaError, 1),
        ("INSERT INTO t(a) VALUES (total_changes())", DeterminismError, None),
        ("INSERT INTO t(a) VALUES (date('2020-01-01', 'utc'))", DeterminismError, None),
        ("COMMIT", StatementError, 23),
        ("SELECT FROM", StatementError, 1),
    ]:
        error = error_of(made.one(execute(sql)))
        assert type(error) is kind, (sql, error)
        assert error.outcome == "not_applied"
        if code is not None:
            assert error.sqlite_code == code  # type: ignore[attr-defined]


def test_malformed_commands_are_answered_and_do_no_harm(made: Machine) -> None:
    """Bytes that no client of ours writes: UsageError; never a crash, never a stop."""
    whole = txn(("INSERT INTO t(a, b) VALUES (?, :x)", ["v", 1]), ("INSERT INTO t(a) VALUES (?)", [ref(0, "id")]))
    size = header(sealed([whole]), 0).payload_length
    payload = whole[64 : 64 + size]
    hostile = [payload[:cut] for cut in range(0, size, 3)]
    hostile += [payload[:at] + bytes([value]) + payload[at + 1 :] for at in range(size) for value in (0, 5, 255)]
    for entry_kind in (1, 5):
        for answer in made.apply([encode_record(1, entry_kind, bytes(each)) for each in hostile]):
            assert status_of(answer) in (0, 1)
            if status_of(answer) == 1:
                assert isinstance(error_of(answer), HiqliteError)
    assert status_of(made.one(execute("INSERT INTO t(a) VALUES ('alive')"))) == 0


def test_entries_that_are_no_commands_move_the_index_only(made: Machine) -> None:
    """No-op, membership, marks: an answer without results."""
    before = made.applier.applied_index
    answers = made.apply([encode_record(1, kind, b"anything") for kind in (3, 4, 6, 7, 8)])
    assert {bytes(answer) for answer in answers} == {b"\x01\x00\x00\x00\x00\x00\x00\x00"}
    assert made.applier.applied_index == before + 5


# --------------------------------------------------------------------------- migrations


def test_a_migration_is_noted_once_and_repeated_for_free(made: Machine) -> None:
    """The second entry of the same migration does nothing; another content or a gap is an error."""
    assert result(made, migration(1, "CREATE TABLE m(x); INSERT INTO m VALUES (1);")) == (1, 1)
    assert result(made, migration(1, "CREATE TABLE m(x); INSERT INTO m VALUES (1);")) == (0, 1)
    assert isinstance(error_of(made.one(migration(1, "SELECT 1", digest="cd" * 32))), MigrationError)
    assert isinstance(error_of(made.one(migration(3, "SELECT 1"))), MigrationError)
    assert result(made, migration(2, "")) == (1, 2)
    assert made.rows("SELECT id, name, ts, hash FROM _migrations ORDER BY id")[0] == (
        1, "1_step.sql", WALL_NS // 1_000_000_000, "ab" * 32,
    )
    assert made.rows("SELECT count(*) FROM m") == [(1,)]


def test_a_failing_migration_leaves_nothing(made: Machine) -> None:
    """All or nothing, with the statement's number and SQLite's words in one error."""
    error = error_of(made.one(migration(1, "CREATE TABLE m(x); INSERT INTO nowhere VALUES (1);")))
    assert isinstance(error, MigrationError) and error.statement_index == 1
    assert "1_step.sql" in error.message and "no such table: nowhere" in error.message
    ending = "CREATE TABLE m(x); INSERT OR ROLLBACK INTO t(id) SELECT 1 UNION ALL SELECT 1"
    for sql in ("CREATE TABLE m(x); COMMIT;", ending):
        assert isinstance(error_of(made.one(migration(1, sql))), MigrationError)
    assert made.rows("SELECT count(*) FROM sqlite_schema WHERE name = 'm'") == [(0,)]
    assert result(made, migration(1, "CREATE TABLE m(x)")) == (1, 1)


def test_a_migration_may_rebuild_a_table_with_foreign_keys_off(tmp_path: Path) -> None:
    """Without the cascade that a rebuild would set off; a violation that is left is found before the commit."""
    rebuild = """
      CREATE TABLE new_parent(id INTEGER PRIMARY KEY, extra);
      INSERT INTO new_parent(id) SELECT id FROM parent;
      DROP TABLE parent;
      ALTER TABLE new_parent RENAME TO parent;
    """
    answers = apply_alike(
        tmp_path,
        [
            batch("CREATE TABLE parent(id INTEGER PRIMARY KEY); INSERT INTO parent VALUES (1);"
                  "CREATE TABLE child(p REFERENCES parent ON DELETE CASCADE); INSERT INTO child VALUES (1);"),
            execute("INSERT INTO parent VALUES (2)"),
            migration(1, rebuild, foreign_keys_off=True),
            execute("INSERT INTO child VALUES (2)"),
            migration(2, "DELETE FROM parent WHERE id = 1;", foreign_keys_off=True),
            execute("INSERT INTO child VALUES (99)"),
            execute("DELETE FROM parent WHERE id = 2"),
        ],
    )
    assert [status_of(answer) for answer in answers] == [0, 0, 0, 0, 1, 1, 0]
    with machine(tmp_path / "one.db") as made:
        assert made.rows("SELECT p FROM child") == [(1,)]
        assert made.rows("PRAGMA foreign_key_check") == []

