"""What a connection remembers beside the database decides nothing: not that of a node which ran on, was started again,
or tried the entries before. What SQLite tells only at COMMIT, or as the machine's failure, is the entry's own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from apply_harness import (
    apply_alike,
    apply_cut,
    batch,
    error_of,
    execute,
    execute_many,
    machine,
    migration,
    status_of,
    txn,
)
from writer_driver import tried_and_applied

from hiqlite._accel.answers import decode_batch, decode_execute
from hiqlite.errors import ConstraintError, DeterminismError, MigrationError, StatementError

NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 300)"
HIDDEN = ("_hiqlite_run", "sqlite_schema", '"sqlite_master"', "pragma_function_list", "dbstat", "[dbstat]")
WORDS = " ".join(f"word{n}" for n in range(700))
STORIES: dict[str, Sequence[bytes]] = {
    "options of a full-text table whose transaction failed": [
        execute("CREATE VIRTUAL TABLE ft USING fts5 (x)"),
        execute_many("INSERT INTO ft VALUES (?)", [["one"], ["two"], ["three"]]),
        txn("INSERT INTO ft (ft, rank) VALUES ('secure-delete', 1)", "INSERT INTO nowhere VALUES (1)"),
        execute("DELETE FROM ft WHERE rowid = 1"),
        execute("CREATE TABLE o (x)"),
        txn("INSERT INTO ft (ft, rank) VALUES ('rank', 'bm25(-10.0)')", "INSERT INTO nowhere VALUES (1)"),
        execute("INSERT INTO o SELECT rowid FROM ft WHERE ft MATCH 'two OR three' ORDER BY rank LIMIT 1"),
    ],
    "options of an FTS4 table": [
        execute("CREATE VIRTUAL TABLE f4 USING fts4 (x)"),
        *[execute("INSERT INTO f4 VALUES (?)", [f"text {n}"]) for n in range(20)],
        txn("INSERT INTO f4 (f4) VALUES ('automerge=2')", "INSERT INTO nowhere VALUES (1)"),
        *[execute("INSERT INTO f4 VALUES (?)", [f"more {n}"]) for n in range(20)],
    ],
    "virtual tables that a failed entry made, wrote, altered or dropped": [
        entry
        for kind, values in (("fts5 (x)", "('a')"), ("fts4 (x)", "('a')"), ("rtree (x, y, z)", "(1, 1, 2)"))
        for made in (f"CREATE VIRTUAL TABLE v USING {kind}",)
        for filled in (f"INSERT INTO v VALUES {values}",)
        for entry in (
            txn(made, filled, "INSERT INTO nowhere VALUES (1)"),
            txn(made, filled, "DROP TABLE v", "INSERT INTO nowhere VALUES (1)"),
            migration(1, f"{made}; {filled}; INSERT INTO nowhere VALUES (1)"),
            batch(f"{made}; {filled}; INSERT INTO nowhere VALUES (1); DROP TABLE v"),
            execute(made),
            txn(filled, "ALTER TABLE v RENAME TO w", "INSERT INTO w SELECT * FROM w", "INSERT INTO nowhere VALUES (1)"),
            txn(filled, "DROP TABLE v", "INSERT INTO nowhere VALUES (1)"),
            execute(filled),
            execute("DROP TABLE v"),
        )
    ],
    "the types of a view's columns, once its table is another": [
        execute("CREATE TABLE t (x TEXT)"),
        execute("CREATE VIEW v (x) AS SELECT x FROM t"),
        execute("CREATE TRIGGER g INSTEAD OF UPDATE ON v BEGIN UPDATE t SET x = new.x; END"),
        execute("INSERT INTO t VALUES (1)"),
        execute("UPDATE v SET x = 2"),
        txn("DROP TABLE t", "CREATE TABLE t (x)", "INSERT INTO t VALUES (3)", "UPDATE v SET x = 4"),
    ],
    "a full-text table that is built anew": [
        execute("CREATE VIRTUAL TABLE ft USING fts5 (x)"),
        execute("INSERT INTO ft (rowid, x) VALUES (1, 'a')"),
        execute("INSERT INTO ft (ft, rank) VALUES ('automerge', 4)"),
        execute("INSERT INTO ft (ft) VALUES ('rebuild')"),
        execute("INSERT INTO ft (rowid, x) VALUES (2, 'b')"),
    ],
    "the row count of an R-tree": [
        execute("CREATE VIRTUAL TABLE rt USING rtree (id, x0, x1)"),
        batch("CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE o (a)"),
        execute(f"INSERT INTO t {NUMBERS} SELECT i FROM n"),
        *[execute("INSERT INTO rt VALUES (?, 0, 1)", [n]) for n in (3, 1, 2)],
        batch("ANALYZE; INSERT INTO o SELECT t.id FROM t, rt WHERE t.id = rt.id"),
        execute("INSERT INTO o SELECT t.id FROM t, rt WHERE t.id = rt.id"),
        execute("UPDATE rt SET x1 = 5 WHERE id = 1"),
        execute("DELETE FROM rt WHERE id = 2"),
    ],
    "a PRAGMA that connects a table": [
        execute("CREATE VIRTUAL TABLE f4 USING fts4 (x)"),
        execute("INSERT INTO f4 VALUES ('a')"),
        batch("PRAGMA table_info(f4)"),
        execute("INSERT INTO f4 VALUES (?)", [WORDS]),
        batch("PRAGMA integrity_check"),
        execute("INSERT INTO f4 VALUES (?)", [WORDS]),
    ],
    "a statement about a table that cannot be prepared": [
        execute("CREATE VIRTUAL TABLE ft USING fts5 (x)"),
        execute("CREATE TABLE o (x)"),
        execute("INSERT INTO ft (ft, rank) VALUES ('automerge', 4)"),
        execute("INSERT INTO o SELECT nothing FROM ft"),
        execute("INSERT INTO ft (ft) VALUES ('rebuild')"),
    ],
    "a full-text table whose content is a view of itself": [
        execute("CREATE TABLE c (a)"),
        execute("CREATE VIRTUAL TABLE f4 USING fts4 (content=c)"),
        execute("INSERT INTO f4 (docid, a) VALUES (1, 'x')"),
        batch("DROP TABLE c; CREATE VIEW c AS SELECT * FROM f4; INSERT INTO f4 (docid, a) VALUES (2, 'y')"),
        execute("INSERT INTO f4 (docid, a) VALUES (3, 'z')"),
        execute("DROP VIEW c"),
    ],
    "where pages begin, told by the trigger of a cascade": [
        batch(
            "CREATE TABLE v (a); CREATE TABLE p (id INTEGER PRIMARY KEY);"
            "CREATE TABLE c (x REFERENCES p ON DELETE CASCADE)"
        ),
        *[execute("INSERT INTO p VALUES (?)", [n]) for n in range(150)],
        *[execute("INSERT INTO v VALUES (zeroblob(500))") for n in range(100)],
        execute("INSERT INTO c VALUES (1)"),
        execute(
            "CREATE TRIGGER g AFTER DELETE ON c BEGIN INSERT INTO v SELECT rootpage FROM sqlite_schema; END"
        ),
        execute("CREATE INDEX later ON v (a)"),
        execute("DROP TABLE p"),
    ],
    "statistics that the trigger of a cascade writes": [
        batch(
            "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (x REFERENCES p ON DELETE CASCADE);"
            "INSERT INTO p VALUES (1); INSERT INTO c VALUES (1); CREATE INDEX c_x ON c (x); ANALYZE"
        ),
        execute("CREATE TRIGGER g AFTER DELETE ON c BEGIN DELETE FROM sqlite_stat1; END"),
        execute("DROP TABLE p"),
    ],
    "what SQLite chose behind the largest rowid": [
        execute("CREATE TABLE t (id INTEGER PRIMARY KEY, CHECK (id % 2 = 1))"),
        *[execute("INSERT INTO t (id) VALUES (9223372036854775807), (NULL)")] * 6,
        txn("INSERT INTO t VALUES (1)", "INSERT INTO t (id) VALUES (9223372036854775807), (NULL)"),
        batch("INSERT INTO t VALUES (3); INSERT INTO t (id) VALUES (9223372036854775807), (NULL)"),
    ],
    "a deferred foreign key that is repaired more often than it was violated": [
        batch(
            "CREATE TABLE p (a UNIQUE); CREATE TABLE c (x); INSERT INTO c VALUES (1);"
            "ALTER TABLE c ADD COLUMN y AS (x) REFERENCES p (a) DEFERRABLE INITIALLY DEFERRED"
        ),
        txn("INSERT INTO c (x) VALUES (1)", "INSERT INTO p VALUES (1)"),
        execute("INSERT INTO p VALUES (2)"),
        execute("INSERT INTO c (x) VALUES (3)"),
        batch("INSERT INTO c (x) VALUES (2); INSERT INTO p VALUES (1)"),
        execute("INSERT INTO c (x) VALUES (2)"),
        migration(1, "INSERT INTO p VALUES (1)"),
    ],
    "more text than memory, joined": [
        execute("CREATE TABLE t (x, y)"),
        execute("INSERT INTO t VALUES (?, NULL)", ["x" * 2_200_000]),
        execute(f"UPDATE t SET y = length(concat({', '.join(['x'] * 1000)}))"),
        execute(f"UPDATE t SET y = length(concat_ws(x, {', '.join(['x'] * 900)}))"),
        execute("UPDATE t SET y = concat(1, NULL, 'a', x'6263', 2.5) || concat_ws('-', NULL, 1, NULL, 2)"),
    ],
    "a foreign key that names no key": [
        batch("CREATE TABLE p (a); CREATE TABLE c (x REFERENCES p (a))"),
        migration(1, "CREATE TABLE m (x)", foreign_keys_off=True),
        migration(1, "CREATE TABLE m (x)"),
    ],
    "tables that a join by names hides": [
        batch("CREATE TABLE t (x, y); CREATE TABLE o (a); INSERT INTO t VALUES ('a', 1), ('b', 2)"),
        execute("CREATE VIRTUAL TABLE ft USING fts5 (x)"),
        execute("INSERT INTO ft VALUES ('a')"),
        execute("INSERT INTO ft (ft, rank) VALUES ('automerge', 4)"),
        execute("INSERT INTO o SELECT y FROM t JOIN ft ('a') USING (x)"),
        execute("INSERT INTO ft (ft) VALUES ('rebuild')"),
        execute("CREATE VIEW v AS SELECT y FROM t NATURAL JOIN ft"),
        execute("INSERT INTO ft (ft, rank) VALUES ('automerge', 8)"),
        execute("INSERT INTO o SELECT y FROM v"),
        execute("INSERT INTO ft (ft) VALUES ('rebuild')"),
        execute("INSERT INTO ft VALUES ('b')"),
        *[
            entry
            for name in HIDDEN
            for entry in (
                execute(f"INSERT INTO o SELECT y FROM t NATURAL JOIN {name}"),
                execute(f"CREATE VIEW IF NOT EXISTS w AS SELECT y FROM {name} JOIN t USING (first_index)"),
            )
        ],
    ],
    "a batch of which a statement is known to fail when COMMIT does": [
        batch(
            "CREATE TABLE p (a UNIQUE); CREATE TABLE c (x); INSERT INTO c VALUES (1); CREATE TABLE n (x);"
            "ALTER TABLE c ADD COLUMN y AS (x) REFERENCES p (a) DEFERRABLE INITIALLY DEFERRED;"
            "CREATE TRIGGER g AFTER INSERT ON c BEGIN INSERT OR IGNORE INTO p VALUES (new.x); END;"
            "CREATE TABLE s (v); INSERT INTO s VALUES (1), (9223372036854775807)"
        ),
        batch("INSERT INTO n SELECT abs(-v-1) FROM s; INSERT INTO c (x) VALUES (1)"),
        execute("INSERT INTO n VALUES (5)"),
        migration(1, "CREATE TABLE m (x); INSERT INTO c (x) VALUES (1)"),
    ],
    "functions with too few arguments": [
        batch(
            "CREATE TABLE t (x); CREATE INDEX i ON t (concat()); CREATE TABLE u (x, CHECK (concat_ws('a') IS NULL));"
            "CREATE TABLE w (x, y AS (concat_ws()))"
        ),
        execute("INSERT INTO t VALUES (concat())"),
        execute("INSERT INTO t VALUES (1)"),
    ],
    "names that look like errors": [
        batch("INSERT INTO \"a syntax error\" VALUES (1); CREATE TABLE t (x); INSERT INTO t VALUES (1)"),
        batch(
            "\ufeffCREATE TRIGGER g AFTER INSERT ON nowhere BEGIN SELECT 1; DELETE FROM t; END;"
            "INSERT INTO t VALUES (2)"
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
async def test_every_node_comes_to_the_same(name: str, tmp_path: Path) -> None:
    """In one run, one by one, with restarts in between, and with a trial before each entry."""
    records = STORIES[name]
    apply_alike(tmp_path, records)
    reference = apply_cut(tmp_path / "again.db", records, "one")
    assert await tried_and_applied(tmp_path / "tried.db", records) == (reference.content, reference.equality)


def test_a_foreign_key_that_only_commit_counts_is_the_entrys_own_error(tmp_path: Path) -> None:
    """Nothing of it stays, and its neighbours are as they would be without it."""
    name = "a deferred foreign key that is repaired more often than it was violated"
    answers = apply_alike(tmp_path, STORIES[name])
    assert isinstance(error_of(answers[1]), ConstraintError)
    assert [status_of(answer) for answer in answers] == [0, 1, 0, 1, 0, 0, 1]
    with machine(tmp_path / "one.db") as made:
        assert made.rows("SELECT a FROM p ORDER BY a") == [(1,), (2,)]
        assert made.rows("SELECT x FROM c ORDER BY x") == [(1,), (2,), (2,)]


def test_text_that_no_value_can_hold_is_the_statements_own_error(tmp_path: Path) -> None:
    """And what can be held is as SQLite has it."""
    answers = apply_alike(tmp_path, STORIES["more text than memory, joined"])
    assert [type(error_of(answer)) for answer in answers[2:4]] == [StatementError] * 2
    with machine(tmp_path / "one.db") as made:
        assert made.rows("SELECT y FROM t") == [("1abc2.51-2",)]


FULL_AT = 3997  # segments, by trying


def test_what_a_virtual_table_says_when_it_is_flushed_is_the_entrys_own_error(tmp_path: Path) -> None:
    """It would say so at COMMIT, where every node would stop."""
    with machine(tmp_path / "base.db") as made:
        made.one(execute("CREATE VIRTUAL TABLE ft USING fts5 (x, detail=none, columnsize=0, content='')"))
        for option, value in (("automerge", 0), ("pgsz", 64), ("crisismerge", 1999)):
            made.one(execute("INSERT INTO ft (ft, rank) VALUES (?, ?)", [option, value]))
        for number in range(FULL_AT - 5):
            assert status_of(made.one(inserted(number))) == 0
    rest = [*[inserted(number) for number in range(FULL_AT - 5, FULL_AT + 3)], execute("CREATE TABLE behind (x)")]
    found = []
    for how in ("one", "each", "reopen"):
        for file in tmp_path.glob("base.db*"):
            shutil.copy(file, tmp_path / file.name.replace("base", how))
        found.append(apply_cut(tmp_path / f"{how}.db", rest, how))
    assert found[0] == found[1] == found[2]
    statuses = [status_of(answer) for answer in found[0].answers]
    assert statuses == [0] * 5 + [1] * 3 + [0] and "full" in str(error_of(found[0].answers[5]))


def inserted(number: int) -> bytes:
    return execute("INSERT INTO ft (rowid, x) VALUES (?, 'a')", [number])


def test_a_batch_and_a_migration_that_commit_refuses_say_so(tmp_path: Path) -> None:
    """Whatever else of them was known to fail; a migration by its name."""
    answers = apply_alike(tmp_path, STORIES["a batch of which a statement is known to fail when COMMIT does"])
    assert isinstance(error_of(answers[1]), ConstraintError) and status_of(answers[2]) == 0
    found = error_of(answers[3])
    assert isinstance(found, MigrationError) and "1_step.sql" in str(found)


def test_internal_tables_are_not_joined_by_their_columns_names(tmp_path: Path) -> None:
    """SQLite asks nobody about those."""
    answers = apply_alike(tmp_path, STORIES["tables that a join by names hides"])
    assert all(isinstance(error_of(answer), DeterminismError) for answer in answers[-12:])


def test_a_users_table_may_be_named_like_a_shadow_table(tmp_path: Path) -> None:
    """Its rowids are told as those of others."""
    records = [
        batch("CREATE VIRTUAL TABLE docs USING fts5 (x); CREATE VIRTUAL TABLE places USING rtree (id, x0, x1)"),
        *[execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, v)") for name in ("docs_node", "places_data")],
        *[execute(f"INSERT INTO {name} VALUES (42, 1)") for name in ("docs_node", "places_data")],
        execute("INSERT INTO places VALUES (7, 0, 1)"),
        execute("UPDATE places SET x1 = 5 WHERE id = 7"),
    ]
    answers = apply_alike(tmp_path, records)
    assert [decode_execute(answer, 1).last_insert_rowid for answer in answers[-4:]] == [42, 42, 7, 0]


def test_foreign_keys_that_cannot_be_checked_are_the_migrations_own_error(tmp_path: Path) -> None:
    """It names the mismatch; the same without the switch goes well."""
    answers = apply_alike(tmp_path, STORIES["a foreign key that names no key"])
    found = error_of(answers[1])
    assert isinstance(found, MigrationError) and "mismatch" in str(found)
    assert decode_execute(answers[2], 3).rows_affected == 1


def test_a_name_that_looks_like_an_error_ends_no_batch(tmp_path: Path) -> None:
    """Nor does a byte order mark let the body of a trigger out."""
    answers = apply_alike(tmp_path, STORIES["names that look like errors"])
    assert [isinstance(one, Exception) for one in decode_batch(answers[0], 1)] == [True, False, False]
    assert [isinstance(one, Exception) for one in decode_batch(answers[1], 2)] == [True, False]
    with machine(tmp_path / "one.db") as made:
        assert made.rows("SELECT x FROM t") == [(1,), (2,)]
