"""Programs of SQL, each cut in two, for a cluster of which a node is restarted in between.

A call is made with a client and checks its own end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest

from hiqlite import ConstraintError, HiqliteError, RequestTimeout, SchemaError, StatementError, StatementTimeout
from hiqlite.client.local import LocalClient

Call = Callable[[LocalClient], Awaitable[object]]
End = type[HiqliteError] | None  # the class of the error, None: it went well
LARGEST = 2**63 - 1
SQLITE_FULL = 13
PATIENT_S = 30.0  # for a migration that has an end, on a machine that has more to do
MIGRATION_S_MAX = 8.0  # for one that has none: less than any limit but `migration_timeout`
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
FILL = f"INSERT INTO wr {ENDLESS} SELECT i FROM n"
# The parent is dropped: its child goes with it where foreign keys are on.
MIGRATIONS = {
    "1_first.sql": "CREATE TABLE mi (a INTEGER PRIMARY KEY); INSERT INTO mi VALUES (5);"
    " CREATE TABLE of_it (b REFERENCES mi (a) ON DELETE CASCADE); INSERT INTO of_it VALUES (5)",
    "2_anew.sql": "-- hiqlite: foreign_keys=off\nCREATE TABLE new_mi (a INTEGER PRIMARY KEY, c NOT NULL);"
    " INSERT INTO new_mi SELECT a, 'anew' FROM mi; DROP TABLE mi; ALTER TABLE new_mi RENAME TO mi",
}


def sql(text: str, *params: object) -> Call:
    return lambda db: db.execute(text, params)


def txn(*texts: str) -> Call:
    return lambda db: db.txn([(text, ()) for text in texts])


def kind_of(end: object) -> End:
    if isinstance(end, BaseException) and not isinstance(end, HiqliteError):
        raise end
    return type(end) if isinstance(end, HiqliteError) else None


def batch(text: str, *ends: End) -> Call:
    """`ends`: of its statements, in order; without them all end well."""

    async def run(db: LocalClient) -> None:
        result = await db.batch(text)
        assert [kind_of(one) for one in result] == (list(ends) or [None] * len(result)), result

    return run


def first_migrations(count: int) -> dict[str, str]:
    return dict(list(MIGRATIONS.items())[:count])


def migrate(count: int) -> Call:
    return lambda db: db.migrate(first_migrations(count), timeout=PATIENT_S)


async def migrate_without_end(db: LocalClient) -> None:
    """It follows those that are there, whichever story was first."""
    done = await db.query_value("SELECT count(*) FROM _migrations")
    async with asyncio.timeout(MIGRATION_S_MAX):
        await db.migrate({**first_migrations(done), f"{done + 1}_endless.sql": FILL})


def refused(
    call: Call, kind: type[HiqliteError], *, code: int | None = None, outcome: str | None = "not_applied"
) -> Call:
    """Nothing of it happens; `outcome` is None for a read, of which nothing could."""

    async def checked(db: LocalClient) -> None:
        with pytest.raises(kind) as caught:
            await call(db)
        assert type(caught.value) is kind, repr(caught.value)
        assert caught.value.outcome == outcome
        assert code is None or getattr(caught.value, "extended_code", None) == code

    return checked


def together(*calls: Call, ends: Sequence[End] = ()) -> Call:
    """Issued in one turn, so that they go into one batch. `ends`: of each; without them all end well."""

    async def run(db: LocalClient) -> None:
        found = await asyncio.gather(*(call(db) for call in calls), return_exceptions=True)
        assert [kind_of(one) for one in found] == (list(ends) or [None] * len(calls)), found

    return run


# Each in every way in which SQL comes to a node.
RECURSIONS: list[Call] = [
    refused(lambda db: db.query(f"{ENDLESS} SELECT count(*) FROM n", timeout=0.1), RequestTimeout, outcome=None),
    refused(sql(FILL), StatementTimeout),
    refused(txn("INSERT INTO wr VALUES (0)", FILL), StatementTimeout),
    refused(batch(f"INSERT INTO wr VALUES (0); {FILL}"), StatementTimeout),
    refused(migrate_without_end, StatementTimeout),
]


@dataclass(frozen=True, slots=True)
class Story:
    """The leader takes what is `before` the restart; after it, leader and restarted node take turns."""

    name: str
    before: Sequence[Call]
    after: Sequence[Call]
    query: str
    rows: Sequence[tuple[object, ...]] | None = None  # None: the same on all nodes, whatever it is


STORIES = [
    Story(
        "a temporary trigger",
        [
            sql("CREATE TABLE tt (a)"),
            refused(
                sql("CREATE TEMP TRIGGER g AFTER INSERT ON main.tt BEGIN INSERT INTO tt VALUES (new.a + 1); END"),
                StatementError,
            ),
            batch("CREATE TEMP TABLE hidden (a)", StatementError),
        ],
        [sql("INSERT INTO tt VALUES (1)"), refused(sql("INSERT INTO hidden VALUES (1)"), SchemaError)],
        "SELECT a FROM tt",
        [(1,)],
    ),
    Story(
        "a PRAGMA",
        [
            sql("CREATE TABLE pr (id INTEGER PRIMARY KEY, a)"),
            sql("CREATE TRIGGER g AFTER INSERT ON pr WHEN new.a < 5 BEGIN INSERT INTO pr (a) VALUES (new.a + 1); END"),
            *[
                refused(sql(f"PRAGMA {text}"), StatementError)
                for text in ("recursive_triggers = ON", "case_sensitive_like = ON", "reverse_unordered_selects = ON")
            ],
            batch("PRAGMA recursive_triggers = ON; PRAGMA automatic_index = OFF", StatementError, StatementError),
        ],
        [sql("INSERT INTO pr (a) VALUES (1)"), sql("INSERT INTO pr (a) SELECT 'X' LIKE 'x'")],
        "SELECT a FROM pr ORDER BY id",
        [(1,), (2,), (1,), (2,)],
    ),
    Story(
        "statistics that somebody changed",
        [
            batch("CREATE TABLE st (a, b); CREATE INDEX st_a ON st (a); CREATE INDEX st_b ON st (b)"),
            lambda db: db.execute_many("INSERT INTO st VALUES (?, ?)", [(n % 3, n % 50) for n in range(300)]),
            sql("ANALYZE"),
            refused(sql("UPDATE sqlite_stat1 SET stat = '300 1' WHERE idx = 'st_a'"), StatementError),
            batch("DELETE FROM sqlite_stat1 WHERE idx = 'st_a'; ANALYZE sqlite_schema", StatementError, StatementError),
            sql("CREATE TABLE seen (n INTEGER PRIMARY KEY, a, b)"),
        ],
        # The order in which rows come to `seen` is the plan's; the nodes' contents are compared with it.
        [
            sql("INSERT INTO seen (a, b) SELECT a, b FROM st WHERE a = 1 AND b < 25"),
            refused(sql("INSERT INTO sqlite_stat1 VALUES ('st', 'st_a', '300 1')"), StatementError),
            sql("DELETE FROM st WHERE a = 2 AND b = 7"),
        ],
        "SELECT idx, stat FROM sqlite_stat1 WHERE tbl = 'st' UNION ALL SELECT a, b FROM seen ORDER BY 1, 2",
        [*[(1, b) for b in range(25) for _ in range(2)], ("st_a", "300 100"), ("st_b", "300 6")],
    ),
    Story(
        "AUTOINCREMENT at its end",
        [
            sql("CREATE TABLE au (id INTEGER PRIMARY KEY AUTOINCREMENT, a)"),
            sql(f"INSERT INTO au VALUES ({LARGEST - 1}, 'last')"),
            refused(sql("INSERT INTO au (a) VALUES ('the largest rowid')"), ConstraintError),
            sql(f"UPDATE sqlite_sequence SET seq = {LARGEST} WHERE name = 'au'"),
            refused(sql("INSERT INTO au (a) VALUES ('none is left')"), StatementError, code=SQLITE_FULL),
        ],
        [
            *[refused(sql("INSERT INTO au (a) VALUES ('none is left')"), StatementError, code=SQLITE_FULL)] * 2,
            refused(txn("INSERT INTO au VALUES (1, '')", "INSERT INTO au (a) VALUES ('')"), StatementError, code=13),
            together(
                sql("INSERT INTO au VALUES (2, 'beside')"),
                sql("INSERT INTO au (a) VALUES ('none is left')"),
                batch("INSERT INTO au (a) VALUES (''); INSERT INTO au VALUES (3, 'beside')", StatementError, None),
                ends=[None, StatementError, None],
            ),
        ],
        "SELECT id, seq FROM au, sqlite_sequence WHERE name = 'au' ORDER BY id",
        [(2, LARGEST), (3, LARGEST), (LARGEST - 1, LARGEST)],
    ),
    Story(
        "the largest rowid",
        [
            sql("CREATE TABLE la (id INTEGER PRIMARY KEY, a)"),
            refused(sql("INSERT INTO la VALUES (?, 'x')", LARGEST), ConstraintError),
            sql("INSERT INTO la VALUES (7, 'y')"),
        ],
        [sql("INSERT INTO la (a) VALUES ('z')")],
        "SELECT id FROM la ORDER BY id",
        [(7,), (8,)],
    ),
    Story(
        "floating point",
        [
            sql("CREATE TABLE fl (x REAL)"),
            lambda db: db.execute_many("INSERT INTO fl VALUES (?)", [(0.1 * n,) for n in range(100)]),
            sql("CREATE TABLE su (a, b, c, d, e)"),
        ],
        [
            sql(
                "INSERT INTO su SELECT sum(x), avg(x), total(x * 1e16), printf('%.17g', sum(x) / 3), "
                "round(avg(x), 3) FROM fl"
            ),
            sql("INSERT INTO su SELECT exp(x), sqrt(x), pow(x, 0.3), sin(x), log(x + 1) FROM fl"),
        ],
        "SELECT * FROM su",
    ),
    Story(
        "last_insert_rowid()",
        [sql("CREATE TABLE lr (id INTEGER PRIMARY KEY, a)"), sql("INSERT INTO lr VALUES (41, 'x')")],
        [sql("INSERT INTO lr (a) VALUES (last_insert_rowid())"), sql("INSERT INTO lr (a) VALUES (changes())")],
        "SELECT id, a FROM lr ORDER BY id",
        [(41, "x"), (42, 0), (43, 0)],
    ),
    Story(
        "deferred foreign keys",
        [
            sql("CREATE TABLE pa (id INTEGER PRIMARY KEY)"),
            sql("CREATE TABLE ch (p INTEGER REFERENCES pa (id) DEFERRABLE INITIALLY DEFERRED, q REFERENCES pa (id))"),
            refused(sql("INSERT INTO ch (p) VALUES (1)"), ConstraintError),
            refused(sql("INSERT INTO ch VALUES (1, 1)"), ConstraintError),
        ],
        [
            sql("INSERT INTO pa VALUES (1)"),
            refused(sql("INSERT INTO ch VALUES (2, 3)"), ConstraintError),
            txn("INSERT INTO ch (p) VALUES (2)", "INSERT INTO pa VALUES (2)"),
        ],
        "SELECT p FROM ch",
        [(2,)],
    ),
    Story(
        "OR ROLLBACK in the middle",
        [sql("CREATE TABLE ro (k UNIQUE)"), sql("INSERT INTO ro VALUES (1)")],
        [
            refused(
                txn("INSERT INTO ro VALUES (2)", "INSERT OR ROLLBACK INTO ro VALUES (1)", "INSERT INTO ro VALUES (3)"),
                ConstraintError,
            ),
            together(
                *[sql(f"INSERT OR ROLLBACK INTO ro VALUES ({n % 3})") for n in range(12)],
                ends=[None, ConstraintError, None, *[ConstraintError] * 9],
            ),
        ],
        "SELECT k FROM ro ORDER BY k",
        [(0,), (1,), (2,)],
    ),
    Story(
        "a full-text index",
        [
            sql("CREATE VIRTUAL TABLE ft USING fts5 (body)"),
            together(*[sql("INSERT INTO ft VALUES (?)", f"word{n} common") for n in range(60)]),
        ],
        [
            together(*[sql("DELETE FROM ft WHERE rowid = ?", n) for n in range(1, 20)]),
            sql("INSERT INTO ft (ft) VALUES ('optimize')"),
            sql("INSERT INTO ft VALUES ('last common')"),
        ],
        "SELECT count(*) FROM ft WHERE ft MATCH 'common'",
        [(42,)],
    ),
    Story(
        "a recursion without end",
        [migrate(1), sql("CREATE TABLE wr (x)"), *RECURSIONS],
        # Each by the node that was restarted, behind a write of the leader.
        [
            *[call for one in RECURSIONS for call in (sql("INSERT INTO wr VALUES (7)"), one)],
            *[sql("INSERT INTO wr VALUES (8)")] * 2,
        ],
        "SELECT x FROM wr",
        [(7,)] * 5 + [(8,)] * 2,
    ),
    Story(
        "a table that a migration builds anew",
        [migrate(1), refused(sql("INSERT INTO of_it VALUES (6)"), ConstraintError)],
        [
            migrate(2),
            refused(sql("INSERT INTO mi VALUES (6, NULL)"), ConstraintError),
            refused(sql("INSERT INTO of_it VALUES (6)"), ConstraintError),
            batch("INSERT INTO mi VALUES (7, 'goes'); INSERT INTO of_it VALUES (7); DELETE FROM mi WHERE a = 7"),
        ],
        "SELECT a, b, c FROM mi FULL JOIN of_it ON b = a",
        [(5, 5, "anew")],
    ),
    Story(
        "a trigger without end, made in the turn of an insert",
        [
            sql("CREATE TABLE en (a)"),
            sql("CREATE TABLE sink (a)"),
            together(
                sql(
                    "CREATE TRIGGER en_g AFTER INSERT ON en BEGIN INSERT INTO sink WITH RECURSIVE n (i) AS "
                    "(SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n; END"
                ),
                sql("INSERT INTO en VALUES (1)"),
                ends=[None, StatementTimeout],
            ),
        ],
        [
            refused(sql("INSERT INTO en VALUES (2)"), StatementTimeout),
            sql("DROP TRIGGER en_g"),
            sql("INSERT INTO en VALUES (3)"),
        ],
        "SELECT a FROM en",
        [(3,)],
    ),
]
