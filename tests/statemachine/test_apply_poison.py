"""Poison: what a user may send must not stop, crash, wedge or diverge a node (semantics.md section 4)."""

from __future__ import annotations

from pathlib import Path

import pytest
from apply_harness import apply_alike, batch, execute, healthy, machine, migration, no_op, sealed, status_of, txn

from hiqlite._accel.answers import decode_batch
from hiqlite._accel.records import seal_records

SCHEMA = """
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT UNIQUE, amount INTEGER CHECK (amount < 1000));
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, x);
CREATE TABLE noted(x);
CREATE TABLE touchy(id INTEGER PRIMARY KEY, how TEXT);
CREATE TRIGGER touchy_rollback AFTER INSERT ON touchy WHEN NEW.how = 'rollback'
  BEGIN INSERT INTO noted VALUES ('r'); SELECT RAISE(ROLLBACK, 'rolled back'); END;
CREATE TRIGGER touchy_fail BEFORE INSERT ON touchy WHEN NEW.how = 'fail'
  BEGIN INSERT INTO noted VALUES ('f'); SELECT RAISE(FAIL, 'failed'); END;
CREATE TRIGGER touchy_abort AFTER INSERT ON touchy WHEN NEW.how = 'abort'
  BEGIN INSERT INTO noted VALUES ('a'); SELECT RAISE(ABORT, 'aborted'); END;
CREATE TRIGGER touchy_ignore BEFORE INSERT ON touchy WHEN NEW.how = 'ignore'
  BEGIN INSERT INTO noted VALUES ('i'); SELECT RAISE(IGNORE); END;
CREATE VIRTUAL TABLE words USING fts5(body);
CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
INSERT INTO item VALUES (1, 'one', 1);
CREATE TABLE written(id INTEGER PRIMARY KEY, body);
CREATE VIRTUAL TABLE outside USING fts5(body, content='written', content_rowid='id');
INSERT INTO written VALUES (1, 'never indexed');
INSERT INTO box VALUES (1, 0.0, 1.0);
CREATE VIEW listed(id, x) AS SELECT id, x FROM counted;
CREATE TRIGGER listed_update INSTEAD OF UPDATE ON listed BEGIN UPDATE counted SET x = NEW.x WHERE x = OLD.x; END;
CREATE TRIGGER counted_fail AFTER UPDATE ON counted WHEN NEW.x = 'fail' BEGIN SELECT RAISE(FAIL, 'too late'); END;
CREATE TRIGGER counted_abort AFTER UPDATE ON counted WHEN NEW.x = 'abort' BEGIN SELECT RAISE(ABORT, 'in time'); END;
CREATE TABLE keyed(k PRIMARY KEY, x) WITHOUT ROWID;
INSERT INTO keyed VALUES ('a', 1), ('b', 1), ('c', 1), ('d', 1);
CREATE VIEW keys(k, x) AS SELECT k, x FROM keyed;
CREATE TRIGGER keys_update INSTEAD OF UPDATE ON keys BEGIN UPDATE keyed SET x = NEW.x WHERE k = OLD.k; END;
CREATE TRIGGER keys_delete INSTEAD OF DELETE ON keys BEGIN DELETE FROM keyed WHERE k = OLD.k; END;
CREATE TRIGGER keyed_fail AFTER UPDATE ON keyed BEGIN SELECT RAISE(FAIL, 'too late'); END;
CREATE TRIGGER keyed_gone AFTER DELETE ON keyed BEGIN SELECT RAISE(FAIL, 'gone'); END;
CREATE VIEW boxes(id) AS SELECT id FROM box;
CREATE TRIGGER boxes_insert INSTEAD OF INSERT ON boxes BEGIN INSERT INTO box VALUES (NEW.id, 0.0, 1.0); END;
CREATE VIEW spoken(id, body) AS SELECT rowid, body FROM words;
CREATE TRIGGER spoken_insert INSTEAD OF INSERT ON spoken
  BEGIN INSERT INTO words(rowid, body) VALUES (NEW.id, NEW.body); END;
INSERT INTO words(rowid, body) VALUES (1, 'first');
INSERT INTO counted(id, x) VALUES (5, 'five');
CREATE TABLE strictly(id INTEGER PRIMARY KEY, n INTEGER) STRICT;
INSERT INTO strictly VALUES (1, 1), (2, 2);
CREATE TABLE at_once_and_later(a INTEGER REFERENCES parent(id),
                               b INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);
"""

# Each fails by itself and leaves nothing.
POISON = {
    "begin": "BEGIN",
    "begin immediate": "BEGIN IMMEDIATE",
    "commit": "COMMIT",
    "end": "END TRANSACTION",
    "rollback": "ROLLBACK",
    "savepoint": "SAVEPOINT x",
    "release": "RELEASE x",
    "rollback to ours": "ROLLBACK TO _hiqlite_entry",
    "release ours": "RELEASE _hiqlite_entry",
    "attach": "ATTACH ':memory:' AS other",
    "detach": "DETACH main",
    "vacuum": "VACUUM",
    "vacuum into": "VACUUM INTO 'somewhere.db'",
    "journal mode": "PRAGMA journal_mode = DELETE",
    "foreign keys": "PRAGMA foreign_keys = OFF",
    "synchronous": "PRAGMA synchronous = OFF",
    "writable schema": "PRAGMA writable_schema = ON",
    "checkpoint": "PRAGMA wal_checkpoint(TRUNCATE)",
    "optimize": "PRAGMA optimize",
    "defer": "PRAGMA defer_foreign_keys = ON",
    "data version": "PRAGMA data_version",
    "temp table": "CREATE TEMP TABLE t(x)",
    "temp by name": "CREATE TABLE temp.t(x)",
    "temp trigger": "CREATE TEMP TRIGGER g AFTER INSERT ON item BEGIN SELECT 1; END",
    "temp view": "CREATE TEMP VIEW v AS SELECT 1",
    "temp master": "INSERT INTO sqlite_temp_master VALUES ('table', 't', 't', 0, 'CREATE TABLE t(x)')",
    "master": "DELETE FROM sqlite_master",
    "stat": "INSERT INTO sqlite_stat1 VALUES ('item', NULL, '1')",
    "internal": "DELETE FROM _hiqlite_run",
    "internal update": "UPDATE _hiqlite_run SET last_index = 999",
    "internal drop": "DROP TABLE _hiqlite_run",
    "migrations": "DELETE FROM _migrations",
    "internal new": "CREATE TABLE _hiqlite_mine(x)",
    "or rollback": "INSERT OR ROLLBACK INTO item VALUES (1, 'x', 1)",
    "raise rollback": "INSERT INTO touchy(how) VALUES ('rollback')",
    "raise abort": "INSERT INTO touchy(how) VALUES ('abort')",
    "or abort": "INSERT OR ABORT INTO item VALUES (2, 'x', 1), (1, 'y', 1)",
    "deferred key": "INSERT INTO child VALUES (7, 99)",
    "deferred key before a failure": "INSERT OR FAIL INTO child VALUES (7, 99), (7, 99)",
    "check": "INSERT INTO item VALUES (7, 'seven', 5000)",
    "last rowid": "INSERT INTO item VALUES (9223372036854775807, 'last', 1)",
    "last rowid before a failure": "INSERT OR FAIL INTO item VALUES (9223372036854775807, 'l', 1), (1, 'dup', 1)",
    "last rowid by update": "UPDATE item SET id = 9223372036854775807",
    "last rowid in the middle": "INSERT INTO item(id) VALUES (70), (9223372036854775807), (71)",
    "last rowid of a virtual table": "INSERT INTO words(rowid, body) VALUES (9223372036854775807, 'x')",
    "syntax": "INSERT INTO",
    "token": "SELECT 'unfinished",
    "no table": "INSERT INTO nowhere VALUES (1)",
    "no column": "UPDATE item SET missing = 1",
    "no function": "INSERT INTO noted VALUES (missing(1))",
    "twice": "CREATE TABLE item(x)",
    "deep": "INSERT INTO noted VALUES (" + "1+" * 2000 + "1)",
    "parentheses": "INSERT INTO noted VALUES (" + "(" * 3000 + "1" + ")" * 3000 + ")",
    "compound": "INSERT INTO noted " + " UNION ALL ".join(["SELECT 1"] * 600),
    "too long": "INSERT INTO noted VALUES (zeroblob(270000000))",
    "too long text": "INSERT INTO noted VALUES (printf('%.*c', 270000000, 'x'))",
    "overflow": "INSERT INTO noted VALUES (abs(-9223372036854775808))",
    "json": "INSERT INTO noted VALUES (json('{'))",
    "local time": "INSERT INTO noted VALUES (datetime('now', 'localtime'))",
    "local time from data": "INSERT INTO noted VALUES (datetime('now', 'local' || 'time'))",
    "extension": "SELECT load_extension('x')",
    "total changes": "INSERT INTO noted VALUES (total_changes())",
    "version": "INSERT INTO noted VALUES (sqlite_version())",
    "index that differs from its content": "INSERT INTO outside(outside, rank) VALUES ('integrity-check', 1)",
    "r-tree constraint": "INSERT INTO box VALUES (2, 5.0, 1.0)",
    "raise abort in what a trigger does": "UPDATE OR FAIL listed SET x = 'abort'",
    "in a virtual table behind a view": "INSERT INTO boxes VALUES (83), (1)",
    "or fail behind a view, at once": "INSERT OR FAIL INTO boxes VALUES (1), (83)",
    "shadow table": "DELETE FROM words_data",
    "fts command": "INSERT INTO words(words) VALUES ('nonsense')",
    "trigger on ours": "CREATE TRIGGER g AFTER INSERT ON _hiqlite_run BEGIN SELECT 1; END",
    "rename to ours": "ALTER TABLE item RENAME TO _hiqlite_x",
    # Where SQLite itself, inside of a transaction, does not undo all of what it would undo alone.
    "another type in a later row": "INSERT INTO strictly(n) VALUES (3), (4), ('x')",
    "another type with or fail": "INSERT OR FAIL INTO strictly(n) VALUES (3), ('x'), (4)",
    "another type in an update": "UPDATE strictly SET n = CASE id WHEN 1 THEN 7 ELSE 'x' END",
    "a sum that overflows in a later group": (
        "INSERT INTO noted SELECT sum(v) FROM (SELECT 1 AS g, 1 AS v UNION ALL SELECT 2, 9223372036854775807"
        " UNION ALL SELECT 2, 1) GROUP BY g"
    ),
    "a later value that is too long": (
        "INSERT INTO noted SELECT z || z FROM (SELECT x'01' AS z UNION ALL SELECT zeroblob(200000000))"
    ),
    "a foreign key counted and given up": "INSERT INTO at_once_and_later VALUES (71, 72)",
    "explain trick": "EXPLAIN COMMIT; COMMIT",
}

# Fails as well, but what was done before the failure stays, as in SQLite.
PARTIAL = {
    "or fail": "INSERT OR FAIL INTO item VALUES (81, 'w', 1), (1, 'dup', 1), (82, 'v', 1)",
    "raise fail": "INSERT INTO touchy(how) VALUES ('keep'), ('fail'), ('keep')",
    "raise fail first": "INSERT INTO touchy(how) VALUES ('fail')",
    "raise fail in what a trigger does": "UPDATE listed SET x = 'fail'",
    "or fail in what a trigger does": "UPDATE OR FAIL listed SET x = 'fail'",
    "raise fail in what a trigger does without rowids": "UPDATE keys SET x = 2",
    "raise fail in what a trigger removes without rowids": "DELETE FROM keys",
    "or fail in a virtual table": "INSERT OR FAIL INTO box VALUES (81, 0, 1), (1, 0, 1), (82, 0, 1)",
    "or fail behind a view": "INSERT OR FAIL INTO boxes VALUES (81), (1), (82)",
    "or fail behind a view, in words": "INSERT OR FAIL INTO spoken VALUES (81, 'w'), (1, 'dup'), (82, 'v')",
}


def neighbour(number: int) -> bytes:
    return execute("INSERT INTO item VALUES (?, ?, ?)", [number, f"n{number}", number])


def surrounded(*entries: bytes) -> list[bytes]:
    """Setup, then every entry between innocent neighbours."""
    records = [batch(SCHEMA)]
    for position, entry in enumerate(entries):
        records += [neighbour(100 + position), entry]
    return [*records, neighbour(199), execute("UPDATE item SET amount = amount + 1 WHERE id >= 100")]


def quoted_as_entries(sql: str) -> list[bytes]:
    """The statement alone, in a txn between innocents, in a batch between innocents, and in a migration."""
    inner = "INSERT INTO noted VALUES ('before')"
    outer = "INSERT INTO noted VALUES ('after')"
    return [
        execute(sql),
        txn(inner, sql, outer),
        batch(f"INSERT INTO noted VALUES ('b1'); {sql}; INSERT INTO noted VALUES ('b2');"),
        execute(sql),
        migration(1, f"INSERT INTO noted VALUES ('m'); {sql};"),
    ]


@pytest.mark.parametrize("name", POISON)
def test_poison_fails_alone_and_everything_around_it_stays_equal(name: str, tmp_path: Path) -> None:
    """One clear error wherever the statement stands; neighbours unharmed; every cut into runs gives the same."""
    records = surrounded(*quoted_as_entries(POISON[name]))
    answers = apply_alike(tmp_path, records)
    alone, in_txn, in_batch, again, migrated = answers[2::2][:5]
    assert [status_of(answer) for answer in (alone, in_txn, again, migrated)] == [1, 1, 1, 1]
    assert status_of(in_batch) == 0
    for neighbours in (*answers[1::2][:6], answers[-1]):
        assert status_of(neighbours) == 0
    with machine(tmp_path / "one.db") as made:
        assert healthy(made)
        noted = [row[0] for row in made.rows("SELECT x FROM noted ORDER BY rowid")]
        assert noted in (["b1", "b2"], ["b1"])  # the latter where a syntax error ended the batch
        assert made.rows("SELECT id, n FROM strictly") == [(1, 1), (2, 2)]
        assert made.rows("SELECT a, b FROM at_once_and_later") == []
        assert status_of(made.one(neighbour(500))) == 0


@pytest.mark.parametrize("name", PARTIAL)
def test_or_fail_keeps_its_part_and_says_so(name: str, tmp_path: Path) -> None:
    """OR FAIL and RAISE(FAIL): status 2 alone; undone as a whole in a txn; kept in a batch."""
    entries = quoted_as_entries(PARTIAL[name])[:3]
    answers = apply_alike(tmp_path, surrounded(*entries))
    alone, in_txn, in_batch = answers[2::2][:3]
    assert [status_of(alone), status_of(in_txn), status_of(in_batch)] == [2, 1, 0]
    assert all(status_of(answer) == 0 for answer in answers[1::2])


@pytest.mark.parametrize("name", PARTIAL)
def test_a_batch_says_of_which_statement_a_part_remains(name: str, tmp_path: Path) -> None:
    """Its error has outcome applied; that of one that left nothing is told in `..._runs_what_is_good`."""
    in_batch = quoted_as_entries(PARTIAL[name])[2]
    answers = apply_alike(tmp_path, [batch(SCHEMA), in_batch])
    assert [getattr(one, "outcome", None) for one in decode_batch(answers[1], 2)] == [None, "applied", None]


def test_every_poison_in_one_log_at_once(tmp_path: Path) -> None:
    """All of it in one sequence, so that one poison cannot prepare the ground for another."""
    entries = [execute(sql) for sql in POISON.values()]
    records = [batch(SCHEMA)]
    for number, entry in enumerate(entries):
        records += [entry, neighbour(200 + number)]
    answers = apply_alike(tmp_path, records)
    assert [status_of(answer) for answer in answers[1::2]] == [1] * len(entries)
    assert [status_of(answer) for answer in answers[2::2]] == [0] * len(entries)


def test_a_batch_of_all_poison_runs_what_is_good(tmp_path: Path) -> None:
    """Every statement of a batch stands for itself; those that end the transaction do not take the others along."""
    good = "INSERT INTO noted VALUES ('good')"
    syntax = {"syntax", "token", "parentheses", "deep"}
    several = {"explain trick"}
    chosen = [sql for name, sql in POISON.items() if name not in syntax | several]
    text = ";\n".join(part for sql in chosen for part in (good, sql)) + ";"
    answers = apply_alike(tmp_path, [batch(SCHEMA), neighbour(300), batch(text), neighbour(301)])
    results = decode_batch(answers[2], 3)
    assert len(results) == 2 * len(chosen)
    assert all(not isinstance(result, Exception) for result in results[0::2])
    assert [result.outcome for result in results[1::2]] == ["not_applied"] * len(chosen)


def test_schema_changes_in_the_middle_of_a_run(tmp_path: Path) -> None:
    """New tables, columns, triggers and indexes count from the next statement on, in every cut."""
    apply_alike(
        tmp_path,
        [
            batch(SCHEMA),
            neighbour(1000 - 999 + 1),
            execute("ALTER TABLE item ADD COLUMN extra TEXT DEFAULT 'e'"),
            execute("INSERT INTO item(id, name) VALUES (?, ?)", [20, "a"]),
            execute("INSERT INTO item(id, name) VALUES (?, ?)", [21, "b"]),
            execute("CREATE TRIGGER seen AFTER INSERT ON item BEGIN INSERT INTO noted VALUES (changes()); END"),
            execute("INSERT INTO item(id, name) VALUES (?, ?)", [22, "c"]),
            execute("UPDATE item SET amount = 5"),
            execute("INSERT INTO item(id, name) VALUES (?, ?)", [23, "d"]),
            txn("CREATE TABLE fresh(x)", "INSERT INTO fresh VALUES (1)", "INSERT INTO nowhere VALUES (1)"),
            execute("INSERT INTO fresh VALUES (2)"),
            txn("CREATE TABLE fresh(x, y)", "INSERT INTO fresh VALUES (1, 2)"),
            execute("INSERT INTO fresh VALUES (3, 4)"),
            execute("ANALYZE"),
            execute("REINDEX"),
            execute("DROP TABLE item"),
            execute("INSERT INTO item(id, name) VALUES (?, ?)", [24, "e"]),
        ],
    )


def test_autoincrement_at_its_maximum_is_a_result_not_a_full_disk(tmp_path: Path) -> None:
    """FULL from AUTOINCREMENT ends SQLite's transaction; here it is an error of that statement and of nothing else."""
    answers = apply_alike(
        tmp_path,
        surrounded(
            execute("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'counted'"),
            *quoted_as_entries("INSERT INTO counted(x) VALUES (1)"),
            execute("INSERT INTO counted(x) SELECT value FROM json_each('[1, 2, 3]')"),
        ),
    )
    assert [status_of(answer) for answer in answers[2::2]] == [0, 1, 1, 0, 1, 1, 1, 0]


def test_large_values_pass_or_fail_alike(tmp_path: Path) -> None:
    """A blob under the limit is stored, one of many returned rows over the answer's limit is refused and undone."""
    answers = apply_alike(
        tmp_path,
        surrounded(
            execute("INSERT INTO noted VALUES (?)", [b"\x00" * 30_000_000]),
            execute(f"INSERT INTO noted VALUES {', '.join(['(zeroblob(30000000))'] * 3)} RETURNING x", rows=True),
            execute("DELETE FROM noted"),
        ),
    )
    assert [status_of(answer) for answer in answers[2::2]] == [0, 1, 0, 0]


def test_wrong_encodings_and_odd_names_are_kept_as_they_are(tmp_path: Path) -> None:
    """Text that is no UTF-8 (by CAST), NUL in text, names with quotes: stored and compared, never a stop."""
    apply_alike(
        tmp_path,
        surrounded(
            execute("INSERT INTO noted VALUES (CAST(x'ff00fe' AS TEXT))"),
            execute("INSERT INTO noted VALUES (?)", ["a\x00b"]),
            execute('CREATE TABLE "a""b;c"("x y" TEXT)'),
            execute('INSERT INTO "a""b;c" VALUES (1)'),
            execute("INSERT INTO noted VALUES (CAST(x'c0' AS TEXT)) RETURNING x", rows=True),
        ),
    )


def test_shadow_tables_of_full_text_indexes_do_not_depend_on_cuts(tmp_path: Path) -> None:
    """FTS4 merges at COMMIT and FTS5 writes what it gathered: both once per entry, wherever runs end."""
    records = [
        batch("CREATE VIRTUAL TABLE f4 USING fts4(body); INSERT INTO f4(f4) VALUES ('automerge=2');"
              "CREATE VIRTUAL TABLE f5 USING fts5(body); INSERT INTO f5(f5, rank) VALUES ('automerge', 2);"
              "CREATE TABLE plain(x)")
    ]
    for number in range(60):
        words = " ".join(f"w{(number * 7 + i) % 50}" for i in range(40))
        records += [
            execute("INSERT INTO f4 VALUES (?)", [words]),
            execute("INSERT INTO plain VALUES (?)", [number]),
            execute("INSERT INTO f5 VALUES (?)", [words]),
            batch(f"INSERT INTO f4 VALUES ('{words}'); INSERT INTO f5 VALUES ('x'); DELETE FROM f5 WHERE rowid = 3"),
        ]
    answers = apply_alike(tmp_path, records)
    assert all(status_of(answer) == 0 for answer in answers)


def test_a_replay_for_another_entrys_sake_changes_no_count(tmp_path: Path) -> None:
    """What a full-text index still has to write is written by the next savepoint, and counted as rows of whatever
    statement comes then: so savepoints stand where the entry itself wants them, whatever its neighbours do."""
    mixed = batch(
        "INSERT INTO words VALUES ('one'); CREATE TABLE made(a PRIMARY KEY, b CHECK ('abc')) WITHOUT ROWID;"
        "INSERT INTO words VALUES ('two'); ALTER TABLE made RENAME TO other; UPDATE words SET body = 'three';"
        "CREATE INDEX by_b ON other(b); DELETE FROM words; DROP TABLE other"
    )
    for poison in ("a sum that overflows in a later group", "a foreign key counted and given up"):
        folder = tmp_path / poison
        folder.mkdir()
        failing = execute(POISON[poison])
        apply_alike(folder, [batch(SCHEMA), neighbour(100), failing, neighbour(101), mixed, failing, neighbour(102)])


def test_a_batch_that_ends_the_transaction_many_times_gives_each_statement_its_own_end(tmp_path: Path) -> None:
    """Each failure repeats the batch; comments and empty statements between, all words and rows stay right."""
    parts = []
    for number in range(60):
        parts.append(f"/* {number} */ ; INSERT INTO noted VALUES ({number})")
        parts.append(f"-- {number};\nINSERT OR ROLLBACK INTO item VALUES (1, 'x', {number})")
        parts.append(f"INSERT OR ROLLBACK INTO item VALUES ({1000 + number}, 'one', {number})")
        parts.append("INSERT INTO child VALUES (NULL, 77)")
    records = [batch(SCHEMA), neighbour(300), batch(";\n".join(parts)), neighbour(301), batch("; ".join(parts))]
    answers = apply_alike(tmp_path, records)
    for answer in (answers[2], answers[4]):
        results = decode_batch(answer, 3)
        assert len(results) == 240
        assert not any(isinstance(result, Exception) for result in results[0::4])
        assert {str(result) for result in results[1::4]} == {str(results[1])}
        assert "item.id" in str(results[1]) and "item.name" in str(results[2]) and "FOREIGN KEY" in str(results[3])
        assert {str(result) for result in results[2::4]} == {str(results[2])}
        assert all(isinstance(result, Exception) for result in (*results[1::4], *results[2::4], *results[3::4]))
    with machine(tmp_path / "one.db") as made:
        assert made.rows("SELECT x FROM noted ORDER BY rowid") == [(number,) for number in range(60)] * 2
        assert healthy(made)


def test_a_batch_that_is_repeated_often_leaves_the_entries_before_it_alone(tmp_path: Path) -> None:
    """They are committed when it is to be repeated a second time, and it begins the next run."""
    text = "; ".join(["INSERT OR ROLLBACK INTO item VALUES (1, 'x', 1)"] * 5)
    with machine(tmp_path / "db") as made:
        made.apply([batch(SCHEMA)])
        records = [neighbour(number) for number in range(100, 150)] + [batch(text), neighbour(200)]
        assert made.applier.apply_inline(2, 53, 1, [sealed(records, 2)], True)
        runs = [(run.first, run.last) for run in made.applier.take()]
        assert runs == [(2, 51), (52, 52), (53, 53)]
        assert made.rows("SELECT count(*) FROM item") == [(52,)]


def test_the_group_time_of_what_is_applied_stands_in_the_database_and_never_goes_back(tmp_path: Path) -> None:
    """It is that of the run's last entry, unless an earlier one had a later time."""
    with machine(tmp_path / "db") as made:
        assert made.applier.group_time_ns == 0
        for index, time_ns, newest_ns in ((1, 5, 5), (2, 9, 9), (3, 4, 9), (4, 1 << 62, 1 << 62)):
            record = bytearray(no_op())
            seal_records(record, 1, index, time_ns, 1, 1)
            assert made.applier.apply_inline(index, index, 1, [bytes(record)], False)
            made.applier.take()
            assert made.applier.group_time_ns == newest_ns
            made.reopen()
            assert made.applier.group_time_ns == newest_ns
