"""Chance and time in every place where SQL lets them be: each node has the same, and it is what one SQLite would give.

All is written while a follower is down, which applies it later: what a node drew itself, or read off its own clock,
would be something else there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import pytest_asyncio

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, everywhere

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLUMNS = "r, b, stamp, at, unix, ms"
DRAWN = "random(), hex(randomblob(8)), CURRENT_TIMESTAMP, datetime('now'), unixepoch(), unixepoch('now', 'subsec')"
NAMED = (
    "random() AS r, hex(randomblob(8)) AS b, CURRENT_TIMESTAMP AS stamp, datetime('now') AS at, unixepoch() AS unix,"
    " unixepoch('now', 'subsec') AS ms"
)
PLAIN = "r INTEGER, b TEXT, stamp TEXT, at TEXT, unix INTEGER, ms REAL"
DEFAULTS = (
    "r INTEGER DEFAULT (random()), b TEXT DEFAULT (hex(randomblob(8))), stamp TEXT DEFAULT CURRENT_TIMESTAMP,"
    " at TEXT DEFAULT (datetime('now')), unix INTEGER DEFAULT (unixepoch()),"
    " ms REAL DEFAULT (unixepoch('now', 'subsec'))"
)
THINGS = "CREATE TABLE things (id INTEGER PRIMARY KEY); INSERT INTO things VALUES (1), (2), (3), (4), (5), (6), (7)"


@dataclass(frozen=True, slots=True)
class Place:
    """`write` is run several times, in each kind of call; `rows` is a table or query with what came of it."""

    name: str
    schema: str
    write: str
    rows: str


PLACES = [
    Place("a default", f"CREATE TABLE p1 (id INTEGER PRIMARY KEY, {DEFAULTS})", "INSERT INTO p1 DEFAULT VALUES", "p1"),
    Place(
        "a STRICT table",
        f"CREATE TABLE p2 (id INTEGER PRIMARY KEY, {DEFAULTS}) STRICT",
        "INSERT INTO p2 (id) VALUES (NULL), (NULL)",
        "p2",
    ),
    Place(
        "a WITHOUT ROWID table, by its key",
        f"CREATE TABLE p3 (k BLOB PRIMARY KEY DEFAULT (randomblob(16)), {DEFAULTS}) WITHOUT ROWID",
        "INSERT INTO p3 DEFAULT VALUES",
        "p3",
    ),
    Place(
        "a trigger",
        f"CREATE TABLE p4 (id INTEGER PRIMARY KEY, {PLAIN}); CREATE TABLE p4_source (x);"
        f"CREATE TRIGGER p4_after AFTER INSERT ON p4_source BEGIN INSERT INTO p4 ({COLUMNS}) VALUES ({DRAWN}); END",
        "INSERT INTO p4_source VALUES (1), (2)",
        "p4",
    ),
    Place(
        "a trigger of a view",
        f"CREATE TABLE p5 ({PLAIN}); CREATE VIEW p5_view AS SELECT 1 AS x;"
        f"CREATE TRIGGER p5_instead INSTEAD OF INSERT ON p5_view BEGIN INSERT INTO p5 VALUES ({DRAWN}); END",
        "INSERT INTO p5_view VALUES (1)",
        "p5",
    ),
    Place(
        "a view",
        f"CREATE TABLE p6 ({PLAIN}); CREATE VIEW p6_view AS SELECT {NAMED} FROM things",
        "INSERT INTO p6 SELECT * FROM p6_view",
        "p6",
    ),
    Place(
        "ORDER BY",
        "CREATE TABLE p7 (r TEXT, b TEXT, stamp TEXT, at TEXT, unix INTEGER, ms REAL)",
        "INSERT INTO p7 SELECT group_concat(id), hex(randomblob(8)), CURRENT_TIMESTAMP, datetime('now'), unixepoch(),"
        " unixepoch('now', 'subsec') FROM (SELECT a.id * 10 + b.id AS id FROM things a, things b ORDER BY random())",
        "p7",
    ),
    Place(
        "a CTE",
        f"CREATE TABLE p8 ({PLAIN})",
        f"WITH drawn AS MATERIALIZED (SELECT {NAMED} FROM things) INSERT INTO p8 SELECT * FROM drawn",
        "p8",
    ),
    Place(
        "a recursive CTE",
        f"CREATE TABLE p9 ({PLAIN})",
        f"WITH RECURSIVE n AS (SELECT 1 AS i, {NAMED} UNION ALL SELECT i + 1, {DRAWN} FROM n WHERE i < 5)"
        f" INSERT INTO p9 SELECT {COLUMNS} FROM n",
        "p9",
    ),
    Place(
        "an upsert",
        f"CREATE TABLE p10 (id INTEGER PRIMARY KEY, {PLAIN}); INSERT INTO p10 (id) SELECT id FROM things",
        f"INSERT INTO p10 (id) SELECT id FROM things WHERE true ON CONFLICT (id) DO UPDATE SET ({COLUMNS}) = ({DRAWN})",
        "p10",
    ),
    Place(
        "an UPDATE",
        f"CREATE TABLE p11 (id INTEGER PRIMARY KEY, {PLAIN}); INSERT INTO p11 (id) SELECT id FROM things",
        f"UPDATE p11 SET ({COLUMNS}) = ({DRAWN}) WHERE random() IS NOT unixepoch()",
        "p11",
    ),
    Place(
        "a full-text table",
        "CREATE VIRTUAL TABLE p12 USING fts5 (word, r, b, stamp, at, unix UNINDEXED, ms UNINDEXED)",
        f"INSERT INTO p12 VALUES ('common', {DRAWN}), ('common', {DRAWN})",
        "(SELECT * FROM p12 WHERE p12 MATCH 'common')",
    ),
    Place(
        "an R-tree",
        "CREATE VIRTUAL TABLE p13 USING rtree_i32 (id, low, high, +r, +b, +stamp, +at, +unix, +ms)",
        f"INSERT INTO p13 (low, high, {COLUMNS}) VALUES (random() % 1000 - 1001, unixepoch(), {DRAWN})",
        "(SELECT * FROM p13 WHERE low < 0 AND high = unix)",
    ),
    Place(
        "generated columns of what was drawn",
        f"CREATE TABLE p14 (id INTEGER PRIMARY KEY, {DEFAULTS}, half AS (r / 2),"
        " day AS (date(unix, 'unixepoch')) STORED)",
        "INSERT INTO p14 DEFAULT VALUES",
        "(SELECT * FROM p14 WHERE half = r / 2 AND day = date(stamp))",
    ),
    Place(
        "indexes of expressions of what was drawn",
        f"CREATE TABLE p15 (id INTEGER PRIMARY KEY, {DEFAULTS});"
        "CREATE INDEX p15_day ON p15 (date(unix, 'unixepoch'), r % 10) WHERE abs(r) > 0",
        "INSERT INTO p15 DEFAULT VALUES",
        "(SELECT * FROM p15 INDEXED BY p15_day WHERE date(unix, 'unixepoch') > '2' AND abs(r) > 0)",
    ),
    Place(
        "a CHECK",
        f"CREATE TABLE p16 (id INTEGER PRIMARY KEY, {DEFAULTS}, CHECK (random() % 2))",
        "INSERT OR IGNORE INTO p16 (id) SELECT NULL FROM things a, things b",
        "p16",
    ),
    Place("CREATE TABLE AS", "", f"CREATE TABLE IF NOT EXISTS p17 AS SELECT {NAMED} FROM things", "p17"),
]
GENERATED = "CREATE TABLE refused (x, y AS ({}))"
INDEX = "CREATE INDEX refused ON things ({})"
INSERT, DROP = "INSERT INTO refused (x) VALUES (1)", "DROP TABLE refused"
PROHIBITED, USE = "non-deterministic functions prohibited in", "non-deterministic use of"
# A statement, and what SQLite says of it; None: nothing, or only of the first row.
REFUSED = [
    (GENERATED.format("random()"), f"{PROHIBITED} generated columns"),
    (GENERATED.format("hex(randomblob(4))"), f"{PROHIBITED} generated columns"),
    (GENERATED.format("CURRENT_TIMESTAMP"), f"{PROHIBITED} generated columns"),
    (GENERATED.format("datetime('now')"), None),
    (INSERT, f"{USE} datetime() in a generated column"),
    (DROP, None),
    (GENERATED.format("unixepoch()"), None),
    (INSERT, f"{USE} unixepoch() in a generated column"),
    (DROP, None),
    ("CREATE TABLE refused (x CHECK (x < unixepoch()))", None),
    (INSERT, f"{USE} unixepoch() in a CHECK constraint"),
    (DROP, None),
    (INDEX.format("random()"), f"{PROHIBITED} index expressions"),
    (INDEX.format("randomblob(id)"), f"{PROHIBITED} index expressions"),
    (INDEX.format("CURRENT_TIMESTAMP"), f"{PROHIBITED} index expressions"),
    (INDEX.format("datetime('now')"), f"{USE} datetime() in an index"),
    (INDEX.format("id + unixepoch()"), f"{USE} unixepoch() in an index"),
    (INDEX.format("id) WHERE (random()"), f"{PROHIBITED} partial index WHERE clauses"),
    (INDEX.format("id) WHERE (id < unixepoch()"), f"{USE} unixepoch() in an index"),
]
TIME_ZONES = "the modifiers localtime and utc are not allowed in a write: nodes may live in different time zones"
OF_A_BUILD = "the version and the build of SQLite differ from node to node: a write must not read them"
COUNTS = "total_changes() is not allowed: it counts since the connection was opened, which differs per node"
OTHER_CODE = "load_extension() is not allowed: nodes could load different code"


@dataclass(frozen=True, slots=True)
class Written:
    three: Cluster
    began_s: float
    ended_s: float


async def write(one: LocalClient, other: LocalClient, sql: str) -> None:
    """In each kind of call, through both nodes."""
    await one.execute(sql)
    await other.txn([(sql, ()), (sql, ())])
    (await other.batch(sql)).raise_for_error()
    await one.execute_many(sql, [(), ()])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def written() -> AsyncIterator[Written]:
    async with cluster(3, cache=False, wal_size="8 MiB") as three:
        schema = "; ".join([THINGS, *(place.schema for place in PLACES if place.schema)])
        (await three.client.batch(schema)).raise_for_error()
        away = three.followers[0]
        await three.kill(away)
        began_s = time.time()
        one, other = three.nodes.values()
        await asyncio.gather(*(write(one, other, place.write) for place in PLACES))
        ended_s = time.time()
        await three.start(away)
        await three.wait_until(three.settled)
        yield Written(three, began_s, ended_s)
        await check_equal(three)


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_every_node_has_the_same_chance_and_time(written: Written, place: Place) -> None:
    """No two rows drew the same, and the time is that of the write, once for all that it does."""
    first, *others = await everywhere(written.three, f"SELECT {COLUMNS} FROM {place.rows}")
    assert others == [first, first] and len(first) >= 2
    assert len({row[0] for row in first}) == len({row[1] for row in first}) == len(first)
    for _, _, stamp, at, unix, ms in first:
        assert stamp == at and seconds(at) == int(unix) == int(float(ms))
        assert written.began_s - 0.001 <= float(ms) <= written.ended_s


async def test_returning_gives_what_every_node_found(written: Written) -> None:
    """The stored row, and what RETURNING draws itself: whoever leads when the caller asks again has the same answer."""
    three = written.three
    await three.client.execute(f"CREATE TABLE p18 (id INTEGER PRIMARY KEY, {DEFAULTS})")
    began_s = time.time()
    insert = f"INSERT INTO p18 DEFAULT VALUES RETURNING {COLUMNS}, {DRAWN}"
    answer = await three.nodes[three.followers[0]].execute_returning_one(insert, request_id="drawn")
    stored, drawn = tuple(answer)[:6], tuple(answer)[6:]
    assert await everywhere(three, f"SELECT {COLUMNS} FROM p18") == [[stored]] * 3
    assert stored[2:] == drawn[2:] and len({stored[0], drawn[0]}) == len({stored[1], drawn[1]}) == 2
    assert began_s - 0.001 <= drawn[5] <= time.time()
    for number in three.followers:
        await three.client.transfer_leadership(to=number)
        await three.wait_until(lambda: three.settled() and three.leader == number)  # noqa: B023  (it is called here)
        assert await three.client.execute_returning_one(insert, request_id="drawn") == answer


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_what_must_be_the_same_at_any_time_takes_neither(written: Written, role: str) -> None:
    """Generated columns, indexes, and constraints on time: the error of SQLite itself, of each statement."""
    three = written.three
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    said = [
        (one.message, one.outcome) if isinstance(one, hiqlite.StatementError) else None
        for one in await db.batch("; ".join(sql for sql, _ in REFUSED))
    ]
    assert said == [reason and (reason, "not_applied") for _, reason in REFUSED]


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("INSERT INTO differing VALUES (datetime('now', 'localtime'))", TIME_ZONES),
        ("INSERT INTO differing VALUES (datetime('2024-07-01 00:00:00', 'utc'))", TIME_ZONES),
        ("INSERT INTO differing SELECT datetime('now', m) FROM (SELECT 'localtime' AS m)", TIME_ZONES),
        ("INSERT INTO differing VALUES (sqlite_version())", OF_A_BUILD),
        ("INSERT INTO differing VALUES (total_changes())", COUNTS),
        ("INSERT INTO differing VALUES (load_extension('x'))", OTHER_CODE),
    ],
)
async def test_what_would_differ_between_nodes_is_refused(written: Written, role: str, sql: str, reason: str) -> None:
    """DeterminismError with its reason, nothing applied, through any node and in every kind of call."""
    three = written.three
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    await db.execute("CREATE TABLE IF NOT EXISTS differing (x)")
    for call in (lambda: db.execute(sql), lambda: db.txn([("INSERT INTO differing VALUES (1)", ()), (sql, ())])):
        with pytest.raises(hiqlite.DeterminismError) as caught:
            await call()
        assert (caught.value.message, caught.value.outcome) == (reason, "not_applied")
    result = await db.batch(sql)
    assert isinstance(result[0], hiqlite.DeterminismError) and result[0].message == reason
    assert await db.query_value("SELECT count(*) FROM differing", consistency="linearizable") == 0
