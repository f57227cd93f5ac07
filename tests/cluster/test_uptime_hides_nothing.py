"""What a connection remembers may not decide about results: the same SQL before and after a restart of one node.

A node that runs for long has plans, caches, counters and a schema in memory that one which was just started lacks. Each
program is cut in two; in between one node is stopped and started. Then all hold the same, and a program of the second
half behaves on them as one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio

import hiqlite
from hiqlite import HiqliteError
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster

Call = Callable[[LocalClient], Awaitable[object]]
LARGEST = 2**63 - 1
FIRST = "CREATE TABLE mi (a); CREATE TABLE of_it (b); INSERT INTO mi VALUES (5)"


def sql(text: str, *params: object) -> Call:
    return lambda db: db.execute(text, params)


def batch(text: str) -> Call:
    return lambda db: db.batch(text)


def refused(call: Call, *kinds: type[HiqliteError]) -> Call:
    """Nothing of it happens."""

    async def checked(db: LocalClient) -> None:
        with pytest.raises(kinds or HiqliteError) as caught:
            await call(db)
        assert caught.value.outcome == "not_applied"

    return checked


def together(*calls: Call) -> Call:
    """Issued in one turn, so that they go into one batch; how each ends is open."""

    async def run(db: LocalClient) -> None:
        await asyncio.gather(*(call(db) for call in calls), return_exceptions=True)

    return run


@dataclass(frozen=True, slots=True)
class Story:
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
            refused(sql("CREATE TEMP TRIGGER g AFTER INSERT ON main.tt BEGIN INSERT INTO tt VALUES (new.a + 1); END")),
            batch("CREATE TEMP TABLE hidden (a)"),
        ],
        [sql("INSERT INTO tt VALUES (1)"), refused(sql("INSERT INTO hidden VALUES (1)"))],
        "SELECT a FROM tt",
        [(1,)],
    ),
    Story(
        "a PRAGMA",
        [
            sql("CREATE TABLE pr (id INTEGER PRIMARY KEY, a)"),
            sql("CREATE TRIGGER g AFTER INSERT ON pr WHEN new.a < 5 BEGIN INSERT INTO pr (a) VALUES (new.a + 1); END"),
            *[
                refused(sql(f"PRAGMA {text}"))
                for text in ("recursive_triggers = ON", "case_sensitive_like = ON", "reverse_unordered_selects = ON")
            ],
            batch("PRAGMA recursive_triggers = ON; PRAGMA automatic_index = OFF"),
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
            batch("UPDATE sqlite_stat1 SET stat = '300 1' WHERE idx = 'st_a'; ANALYZE sqlite_schema"),
            sql("CREATE TABLE seen (n INTEGER PRIMARY KEY, a, b)"),
        ],
        # The order of the rows is the plan's.
        [
            sql("INSERT INTO seen (a, b) SELECT a, b FROM st WHERE a = 1 AND b < 25"),
            sql("DELETE FROM st WHERE a = 2 AND b = 7"),
        ],
        "SELECT * FROM seen",
    ),
    Story(
        "AUTOINCREMENT at its end",
        [
            sql("CREATE TABLE au (id INTEGER PRIMARY KEY AUTOINCREMENT, a)"),
            sql(f"INSERT INTO au VALUES ({LARGEST - 1}, 'last')"),
        ],
        [refused(sql("INSERT INTO au (a) VALUES ('none is left')"))] * 2,
        "SELECT id FROM au",
        [(LARGEST - 1,)],
    ),
    Story(
        "the largest rowid",
        [
            sql("CREATE TABLE la (id INTEGER PRIMARY KEY, a)"),
            refused(sql("INSERT INTO la VALUES (?, 'x')", LARGEST), hiqlite.ConstraintError),
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
            refused(sql("INSERT INTO ch (p) VALUES (1)"), hiqlite.ConstraintError),
            refused(sql("INSERT INTO ch VALUES (1, 1)"), hiqlite.ConstraintError),
        ],
        [
            sql("INSERT INTO pa VALUES (1)"),
            refused(sql("INSERT INTO ch VALUES (2, 3)"), hiqlite.ConstraintError),
            lambda db: db.txn([("INSERT INTO ch (p) VALUES (2)", ()), ("INSERT INTO pa VALUES (2)", ())]),
        ],
        "SELECT p FROM ch",
        [(2,)],
    ),
    Story(
        "OR ROLLBACK in the middle",
        [sql("CREATE TABLE ro (k UNIQUE)"), sql("INSERT INTO ro VALUES (1)")],
        [
            refused(
                lambda db: db.txn([
                    ("INSERT INTO ro VALUES (2)", ()), ("INSERT OR ROLLBACK INTO ro VALUES (1)", ()),
                    ("INSERT INTO ro VALUES (3)", ()),
                ]),
                hiqlite.ConstraintError,
            ),
            together(*[sql(f"INSERT OR ROLLBACK INTO ro VALUES ({n % 3})") for n in range(12)]),
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
        "a table that a migration builds anew",
        [lambda db: db.migrate({"1_first.sql": FIRST})],
        [
            lambda db: db.migrate({
                "1_first.sql": FIRST,
                "2_anew.sql": "-- hiqlite: foreign_keys=off\nCREATE TABLE new_mi (a INTEGER NOT NULL);"
                " INSERT INTO new_mi SELECT a FROM mi; DROP TABLE mi; ALTER TABLE new_mi RENAME TO mi",
            }),
            refused(sql("INSERT INTO mi VALUES (NULL)"), hiqlite.ConstraintError),
        ],
        "SELECT a FROM mi",
        [(5,)],
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
            ),
        ],
        [
            refused(sql("INSERT INTO en VALUES (2)"), hiqlite.StatementTimeout),
            sql("DROP TRIGGER en_g"),
            sql("INSERT INTO en VALUES (3)"),
        ],
        "SELECT a FROM en WHERE a > 1",
        [(3,)],
    ),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster(3, cache=False, statement_timeout=3.0) as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_a_restart_changes_no_result(three: Cluster, story: Story) -> None:
    await three.wait_until(three.settled)
    for call in story.before:
        await call(three.client)
    restarted = three.followers[0]
    await three.stop(restarted)
    await three.start(restarted)
    await three.wait_until(three.settled)
    for number, call in enumerate(story.after):
        await call(three.nodes[restarted] if number % 2 else three.client)
    found = []
    for client in three.nodes.values():
        rows = await client.query(story.query, consistency="linearizable")
        found.append([tuple(row) for row in rows])
        assert found[-1] == found[0]
    assert story.rows is None or found[0] == list(story.rows)
    assert len({await client.content_hash() for client in three.nodes.values()}) == 1
