"""Statements that could stop, wedge or divide a cluster, each with what makes it dangerous."""

from __future__ import annotations

from dataclasses import dataclass

from hiqlite import (
    ConstraintError,
    DeterminismError,
    HiqliteError,
    ParameterError,
    SchemaError,
    StatementError,
    UsageError,
)

SCHEMA = """
CREATE TABLE innocent (id INTEGER PRIMARY KEY, tag TEXT);
CREATE TABLE u (k TEXT UNIQUE, n INTEGER);
CREATE TABLE rolls (k TEXT UNIQUE ON CONFLICT ROLLBACK);
CREATE TABLE parent (id INTEGER PRIMARY KEY);
CREATE TABLE child (p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE keyed (k TEXT UNIQUE, p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE hasty (a INTEGER REFERENCES parent (id), b INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE typed (n INTEGER) STRICT;
CREATE TABLE raising (how TEXT);
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, x);
CREATE TABLE deep (n INTEGER);
CREATE TABLE b (x);
CREATE TRIGGER raises AFTER INSERT ON raising BEGIN
    SELECT CASE new.how WHEN 'rollback' THEN RAISE(ROLLBACK, 'poison') WHEN 'abort' THEN RAISE(ABORT, 'poison')
                        WHEN 'fail' THEN RAISE(FAIL, 'poison') WHEN 'ignore' THEN RAISE(IGNORE) END;
END;
INSERT INTO u VALUES ('there', 1), ('too', 2);
INSERT INTO rolls VALUES ('there');
INSERT INTO b VALUES ('x');
"""


@dataclass(frozen=True, slots=True)
class Poison:
    """`kinds`: in every kind of call it is an error of one of these classes, of which nothing remains. None: only the
    cluster and the neighbours matter."""

    sql: str
    kinds: tuple[type[HiqliteError], ...] = ()

    @property
    def refused(self) -> bool:
        return bool(self.kinds)


def refused(*texts: str, by: type[HiqliteError] = StatementError) -> list[Poison]:
    return [Poison(text, (by,)) for text in texts]


def harmless(*texts: str) -> list[Poison]:
    return [Poison(text) for text in texts]


DEPTH = 3000
BEFORE_AND_AFTER_ANALYZE = (SchemaError, StatementError)  # there is no such table, or it is not the caller's
POISON = [
    # the entry's own transaction is not the caller's
    *refused("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "COMMIT", "END", "ROLLBACK"),
    *refused("SAVEPOINT s", "RELEASE s", "ROLLBACK TO s", "SAVEPOINT _hiqlite_entry", "RELEASE hq"),
    *refused(
        "INSERT OR ROLLBACK INTO u VALUES ('there', 9)", "UPDATE OR ROLLBACK u SET k = 'there' WHERE k = 'too'",
        "INSERT INTO rolls VALUES ('there')", "INSERT INTO raising VALUES ('rollback')",
        "INSERT INTO raising VALUES ('abort')", "INSERT INTO child VALUES (12345)",
        "INSERT INTO hasty VALUES (12345, 12345)", "INSERT INTO typed VALUES (1), (2), ('three')",
        "INSERT OR FAIL INTO keyed VALUES ('a', 12345), ('a', 12345)", by=ConstraintError,
    ),
    *harmless("INSERT INTO raising VALUES ('ignore')", "INSERT INTO raising VALUES ('fail')"),
    *harmless("INSERT OR FAIL INTO u VALUES ('one' || random(), 1), ('there', 2), ('never', 3)"),
    *harmless("INSERT OR REPLACE INTO u VALUES ('there', 5)", "INSERT OR IGNORE INTO u VALUES ('there', 5)"),
    # files and connections are not the caller's either
    *refused(
        "CREATE VIRTUAL TABLE pages USING dbstat(main)", "INSERT INTO b SELECT hex(fts3_tokenizer('simple'))",
        "INSERT INTO b SELECT load_extension('x')", by=DeterminismError,
    ),
    *refused("ATTACH ':memory:' AS m", "ATTACH 'other.db' AS other", "DETACH main", "VACUUM", "VACUUM INTO 'copy.db'"),
    *refused("PRAGMA journal_mode = DELETE", "PRAGMA synchronous = OFF", "PRAGMA foreign_keys = OFF"),
    *refused("PRAGMA writable_schema = ON", "PRAGMA encoding = 'UTF-16'", "PRAGMA wal_checkpoint(TRUNCATE)"),
    *refused("PRAGMA locking_mode = NORMAL", "PRAGMA recursive_triggers = ON", "PRAGMA cache_size = 1"),
    *refused("PRAGMA temp_store = MEMORY", "PRAGMA optimize", "PRAGMA max_page_count = 1", "PRAGMA query_only = 1"),
    *refused("PRAGMA case_sensitive_like = 1", "PRAGMA hard_heap_limit = 1", "PRAGMA incremental_vacuum"),
    *refused("INSERT INTO b SELECT * FROM pragma_journal_mode"),
    # objects that die with a connection, and tables that are ours
    *refused("CREATE TEMP TABLE x (a)", "CREATE TABLE temp.x (a)", "CREATE TEMP VIEW v AS SELECT 1"),
    *refused("CREATE TEMP TRIGGER tt AFTER INSERT ON innocent BEGIN DELETE FROM innocent; END"),
    *refused("INSERT INTO sqlite_temp_master VALUES (1, 2, 3, 4, 5)"),
    *refused("DELETE FROM sqlite_temp_master", by=SchemaError),
    *refused("INSERT INTO sqlite_master VALUES (1, 2, 3, 4, 5)", "UPDATE sqlite_schema SET sql = ''", by=SchemaError),
    *refused("DELETE FROM _hiqlite_run", "DROP TABLE _hiqlite_run", "UPDATE _hiqlite_run SET last_index = 0"),
    *refused("INSERT INTO _hiqlite_run DEFAULT VALUES", "CREATE TABLE _hiqlite_mine (x)", "DROP TABLE _migrations"),
    *refused("CREATE TABLE pragma_mine (x)", "ALTER TABLE b RENAME TO pragma_b", "CREATE VIEW pragma_v AS SELECT 1"),
    *refused("ALTER TABLE b RENAME TO _hiqlite_b", "ALTER TABLE _hiqlite_run ADD COLUMN x", "DELETE FROM _migrations"),
    *refused("CREATE INDEX i ON _hiqlite_run (answers)", "INSERT INTO _migrations VALUES (9, 'x', 1, 'x')"),
    *refused("CREATE TRIGGER ours AFTER INSERT ON _hiqlite_run BEGIN DELETE FROM innocent; END"),
    Poison("INSERT INTO sqlite_stat1 VALUES ('innocent', NULL, '1')", BEFORE_AND_AFTER_ANALYZE),
    Poison("DELETE FROM sqlite_stat1", BEFORE_AND_AFTER_ANALYZE),
    # what would differ between nodes
    *refused("INSERT INTO b VALUES (datetime('now', 'localtime'))", by=DeterminismError),
    *refused("INSERT INTO b VALUES (total_changes())", by=DeterminismError),
    *harmless("INSERT INTO b VALUES (random()), (randomblob(9)), (datetime('now'))"),
    *harmless("DELETE FROM b WHERE random() > 0", "INSERT INTO b VALUES (last_insert_rowid()), (changes())"),
    # limits
    *refused("INSERT INTO b VALUES (zeroblob(2000000000))", "INSERT INTO b VALUES (randomblob(1500000000))"),
    *refused("INSERT INTO b VALUES (" + "(" * DEPTH + "1" + ")" * DEPTH + ")"),
    *refused("INSERT INTO b VALUES (" + "+".join(["1"] * DEPTH) + ")", "INSERT INTO b VALUES (" + "-" * DEPTH + "1)"),
    *refused("INSERT INTO b SELECT " + " UNION ALL SELECT ".join(["1"] * 600)),
    *refused(f"INSERT INTO b SELECT x FROM b WHERE 'a' LIKE '{'%a' * 600}'"),
    *refused("CREATE TABLE w (" + "c," * 3000 + "d)", by=SchemaError),
    *harmless("INSERT INTO b VALUES (zeroblob(20000000))", "DELETE FROM b WHERE length(x) > 1000000"),
    *harmless("INSERT INTO b VALUES (CAST(x'ff00fe' AS TEXT))", "INSERT INTO b VALUES (x'')"),
    *refused("INSERT INTO counted VALUES (9223372036854775807, 'last')", by=ConstraintError),
    *harmless("INSERT INTO parent VALUES (9223372036854775806)", "INSERT INTO parent DEFAULT VALUES"),
    # schema changes in the middle of a run
    *harmless("CREATE TABLE IF NOT EXISTS made (x)", "ALTER TABLE b ADD COLUMN y", "ALTER TABLE b DROP COLUMN y"),
    *harmless("CREATE INDEX IF NOT EXISTS b_x ON b (x)", "DROP INDEX IF EXISTS b_x", "DROP TABLE IF EXISTS made"),
    *harmless("ANALYZE", "REINDEX", "PRAGMA user_version = 7"),
    *harmless(
        "CREATE TRIGGER IF NOT EXISTS dt AFTER INSERT ON deep WHEN new.n < 2000"
        " BEGIN INSERT INTO deep VALUES (new.n + 1); END"
    ),
    *harmless("INSERT INTO deep VALUES (1)", "DROP TRIGGER IF EXISTS dt", "DELETE FROM deep"),
    *harmless("CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (text)", "INSERT INTO words VALUES ('some words')"),
    *harmless("INSERT INTO words (words) VALUES ('rebuild')", "DELETE FROM words", "DROP TABLE IF EXISTS words"),
    # what the writer accepts, a connection that trusts no schema calls damage: from here on every node holds it
    *harmless("CREATE TABLE IF NOT EXISTS unsafe (a, CHECK (a IS NULL OR a MATCH 'x'))"),
    *harmless("CREATE TABLE IF NOT EXISTS unsafer (a, CHECK (a IS NULL OR rtreedepth(a)), b DEFAULT (random()))"),
    *harmless("CREATE VIEW IF NOT EXISTS unsafest AS SELECT rtreenode(2, x'00')", "INSERT INTO unsafe VALUES ('x')"),
    # what every check of a file would find now and then
    *harmless("CREATE TABLE IF NOT EXISTS unsure (a, CHECK (abs(random()) % 2 = 0))"),
    *harmless("INSERT OR IGNORE INTO unsure VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12)"),
    # not writes at all
    *refused("", ";", "-- nothing", by=UsageError),
    *refused("this is no SQL", "INSERT INTO"),
    *refused("INSERT INTO nowhere VALUES (1)", by=SchemaError),
    *harmless("EXPLAIN INSERT INTO b VALUES (1)", "SELECT 1"),
    *refused("INSERT INTO b VALUES (?)", "INSERT INTO b VALUES (:name)", by=ParameterError),
]  # fmt: skip
