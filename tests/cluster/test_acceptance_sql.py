"""The scenarios of SQL on three real nodes, through the public interface."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import hiqlite
from hiqlite import ExecuteResult, Json, ref
from hiqlite.logstore.folder import DB
from hiqlite.testing import Cluster, cluster
from hiqlite.transport.loopback import loopback_cluster
from tests.cluster.agreement import check_equal, eventually, everywhere

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODES = [1, 2, 3]
UNIQUE = 2067
BEATS = 5  # of the leader: 100 ms each


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster(3, cache=False, wal_size="8 MiB") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def equal_afterwards(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Each test that used the shared cluster leaves it alive and its nodes equal."""
    yield
    if "three" in request.fixturenames:
        await check_equal(request.getfixturevalue("three"))


# --------------------------------------------------------------------------- A1


async def formed(clients: list[Any]) -> None:
    """One cluster, three voters, one leader whom all know, and writes from each node."""
    leaders = set()
    for client in clients:
        group = (await client.metrics()).db
        leaders.add(group.leader_id)
        assert group.members == (1, 2, 3) and group.learners == ()
        assert [(member.id, member.role) for member in await client.members()] == [(n, "voter") for n in NODES]
    assert len(leaders) == 1 and leaders <= set(NODES)
    for client in clients:
        await client.execute("CREATE TABLE IF NOT EXISTS t (x)")
        await client.execute("INSERT INTO t VALUES (1)")
    assert await clients[0].query_value("SELECT count(*) FROM t", consistency="linearizable") == 3


async def waiting(client: Any) -> None:
    """It has said "forming" and goes on saying it over several rounds of greetings."""
    for _ in range(50):
        assert (await client.metrics()).db.role == "forming"
        await asyncio.sleep(0)


@pytest.mark.parametrize("order", ["at once", "one two three", "three one two"])
async def test_three_empty_nodes_form_one_cluster_in_any_order(tmp_path: Path, order: str):
    """At once, or one after the other: those who are there wait for the others, then all are voters of one cluster."""
    settings = loopback_cluster(tmp_path, 3, {"cache": False, "wal_size": "8 MiB"})
    clients: list[Any] = []
    try:
        if order == "at once":
            clients = list(await asyncio.gather(*(hiqlite.open(settings[number]) for number in NODES)))
        else:
            for number in NODES if order == "one two three" else (3, 1, 2):
                for client in clients:
                    await waiting(client)
                clients.append(await hiqlite.open(settings[number], wait=False))
            await asyncio.gather(*(client.wait_until_healthy() for client in clients))
        await formed(clients)
    finally:
        await asyncio.gather(*(client.shutdown() for client in clients))


async def test_two_of_three_do_not_form_a_cluster_unless_told(tmp_path: Path):
    """They wait for the third; with `form_without` they go on, and the third joins nothing of its own."""
    settings = loopback_cluster(tmp_path, 3, {"cache": False, "wal_size": "8 MiB"})
    first, second = [await hiqlite.open(settings[number], wait=False) for number in (1, 2)]
    await waiting(first)
    with pytest.raises(hiqlite.NoLeader) as caught:
        await first.execute("CREATE TABLE t (x)", timeout=0.3)
    assert caught.value.outcome == "not_applied"
    await asyncio.gather(first.shutdown(), second.shutdown())
    pair = await asyncio.gather(*(hiqlite.open(settings[number], form_without=(3,)) for number in (1, 2)))
    assert (await pair[0].metrics()).db.members == (1, 2)
    await pair[1].execute("CREATE TABLE t (x)")
    await asyncio.gather(*(client.shutdown() for client in pair))


# --------------------------------------------------------------------------- A2 (A3: test_migrating.py)


async def test_a_migration_with_a_wrong_statement_leaves_nothing_on_any_node(three: Cluster, tmp_path: Path):
    """The error names file and statement, from leader and follower; earlier files stay."""
    (tmp_path / "1_good.sql").write_text("CREATE TABLE good (x); INSERT INTO good VALUES (1);")
    (tmp_path / "2_wrong.sql").write_text(
        "CREATE TABLE half (x);\nINSERT INTO nowhere VALUES (1);\nCREATE TABLE late (x);"
    )
    for number in (three.leader, three.followers[0]):
        with pytest.raises(hiqlite.MigrationError) as caught:
            await three.nodes[number].migrate(tmp_path)
        assert "2_wrong.sql" in str(caught.value) and "nowhere" in str(caught.value)
        assert caught.value.statement_index == 1 and caught.value.outcome == "not_applied"
    tables = await everywhere(three, "SELECT name FROM sqlite_master WHERE name IN ('good', 'half', 'late')")
    assert tables == [[("good",)]] * 3
    assert await everywhere(three, "SELECT id, name FROM _migrations") == [[(1, "1_good.sql")]] * 3


# --------------------------------------------------------------------------- A4, A5


async def visible(three: Cluster, number: int, row_number: int) -> None:
    """A node has a row before it has heard five more beats of the leader, which comes to 500 ms.

    Not by a clock: what keeps the whole process waiting, or what stands between the nodes, holds up beats as it does
    entries, so this is as true on a busy machine as on an idle one. Where the leader itself is asked, at once.
    """
    heard, leader = three._running[number].groups[DB]._pulse._heard, three.leader
    beats = {heard.get(leader)}

    async def there() -> bool:
        beats.add(heard.get(leader))
        found = await three.nodes[number].query("SELECT 1 FROM a4 WHERE id = ?", [row_number])
        assert found or (number != leader and len(beats) <= BEATS), f"node {number} has heard {len(beats) - 1} beats"
        return bool(found)

    await eventually(there)


async def test_an_insert_through_any_node_is_there_at_once_and_everywhere_soon(three: Cluster):
    """One row affected, the right rowid, visible where it was written when the call returns, elsewhere within five
    heartbeats."""
    await three.client.execute("CREATE TABLE a4 (id INTEGER PRIMARY KEY, node INTEGER)")
    for number in NODES:  # a local read of a node that has not applied that yet would be an error
        await three.nodes[number].query("SELECT 1 FROM a4", consistency="linearizable")
    for row_number, number in enumerate(NODES * 5, 1):
        db = three.nodes[number]
        result = await db.execute("INSERT INTO a4 (node) VALUES (?)", [number])
        assert (result.rows_affected, result.last_insert_rowid) == (1, row_number)
        assert await db.query_value("SELECT node FROM a4 WHERE id = ?", [row_number]) == number
        for other in NODES:
            await visible(three, other, row_number)


async def test_indexes_of_one_client_ascend_through_a_follower(three: Cluster):
    """Many writes at once through each node: all succeed, each follower keeps the order of its calls."""
    await three.client.execute("CREATE TABLE a4b (id INTEGER PRIMARY KEY, node INTEGER, n INTEGER)")

    async def through(number: int) -> None:
        db = three.nodes[number]
        insert = "INSERT INTO a4b (node, n) VALUES (?, ?)"
        results = await asyncio.gather(*(db.execute(insert, [number, n]) for n in range(200)))
        indexes = [result.log_index for result in results]
        assert indexes == sorted(set(indexes))

    await asyncio.gather(*(through(number) for number in NODES))
    for rows in await everywhere(three, "SELECT node, n FROM a4b ORDER BY id"):
        assert [n for node, n in rows if node == 2] == list(range(200))
        assert len(rows) == 600


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_duplicate_key_is_a_constraint_error_everywhere(three: Cluster, role: str):
    """With SQLite's extended code, alone, inside a transaction and in execute_many; nothing remains."""
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    table = f"a5_{role}"
    await db.execute(f"CREATE TABLE {table} (k TEXT UNIQUE)")
    insert = f"INSERT INTO {table} VALUES (?)"
    await db.execute(insert, ["a"])
    for call, index in (
        (lambda: db.execute(insert, ["a"]), 0),
        (lambda: db.execute_returning(insert + " RETURNING k", ["a"]), 0),
        (lambda: db.txn([(insert, ["b"]), (insert, ["a"])]), 1),
        (lambda: db.execute_many(insert, [["c"], ["d"], ["c"]]), 2),
    ):
        with pytest.raises(hiqlite.ConstraintError) as caught:
            await call()
        error = caught.value
        assert (error.sqlite_code, error.extended_code, error.statement_index) == (19, UNIQUE, index)
        assert error.outcome == "not_applied" and "UNIQUE" in str(error)
    assert await everywhere(three, f"SELECT k FROM {table}") == [[("a",)]] * 3


# --------------------------------------------------------------------------- A6, A7


@dataclass
class Account:
    id: int
    owner: str
    balance: int


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_returning_references_and_expectations_through_any_node(three: Cluster, role: str):
    """Values as inserted; everything or nothing."""
    db = three.client if role == "leader" else three.nodes[three.followers[1]]
    table = f"a6_{role}"
    await db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, owner TEXT, balance INTEGER)")
    insert = f"INSERT INTO {table} (owner, balance) VALUES (?, ?) RETURNING *"
    assert await db.execute_returning(insert, ["eve", 10]) == [(1, "eve", 10)]
    assert await db.execute_returning_one(insert, ["bob", 0], into=Account) == Account(2, "bob", 0)
    async with db.atomic() as t:
        taken = t.execute(f"UPDATE {table} SET balance = balance - 5 WHERE id = 1 RETURNING id, owner").expect(rows=1)
        t.execute(f"UPDATE {table} SET balance = balance + 5, owner = owner || ? WHERE id = 2", [taken["owner"]])
    assert taken.rows == [(1, "eve")]
    await db.txn(
        [
            (f"UPDATE {table} SET balance = balance + 1 WHERE id = 1 RETURNING balance AS new", ()),
            (f"INSERT INTO {table} (owner, balance) VALUES ('copy', ?)", [ref(0, "new")]),
        ]
    )
    with pytest.raises(hiqlite.ExpectationFailed) as caught:
        async with db.atomic() as t:
            t.execute(f"DELETE FROM {table}")
            t.execute(f"UPDATE {table} SET balance = 0 WHERE id = 1").expect(rows=1)
    assert caught.value.statement_index == 1 and caught.value.outcome == "not_applied"
    expected = [(1, "eve", 6), (2, "bobeve", 5), (3, "copy", 6)]
    assert await everywhere(three, f"SELECT * FROM {table} ORDER BY id") == [expected] * 3


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_batch_through_any_node_tells_each_statement(three: Cluster, role: str):
    """Multi-row insert, comment, duplicate insert, select: results in order, earlier ones stay."""
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    table = f"a7_{role}"
    result = await db.batch(
        f"""CREATE TABLE {table} (id INTEGER PRIMARY KEY);
        INSERT INTO {table} VALUES (1), (2), (3);
        -- a comment between
        INSERT INTO {table} VALUES (2);
        SELECT * FROM {table};
        INSERT INTO {table} VALUES (4);"""
    )
    assert [type(item) for item in result] == [
        ExecuteResult, ExecuteResult, hiqlite.ConstraintError, ExecuteResult, ExecuteResult,
    ]  # fmt: skip
    assert (result[1].rows_affected, result[1].last_insert_rowid) == (3, 3)
    assert result[2].statement_index == 2 and result[2].extended_code == 1555
    assert (result[3].rows_affected, result[4].rows_affected) == (0, 1)
    assert await everywhere(three, f"SELECT id FROM {table}") == [[(1,), (2,), (3,), (4,)]] * 3


# --------------------------------------------------------------------------- A8


class Colour(enum.Enum):
    RED = "red"


NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 1)
VALUES = [
    (None, None), (True, 1), (False, 0), (0, 0), (-1, -1), (-(2**63), -(2**63)), (2**63 - 1, 2**63 - 1),
    (0.1, 0.1), (-0.0, -0.0), (1e-310, 1e-310), (float("inf"), float("inf")), ("", ""),
    ("e\u0301 \U0001f600\0x", "e\u0301 \U0001f600\0x"), (b"", b""), (bytes(range(256)), bytes(range(256))),
    (bytearray(b"\0\1"), b"\0\1"), (NOON, "2024-02-29 12:00:00.000001"),
    (NOON.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-3))), "2024-02-29 15:00:00.000001+00:00"),
    (NOON.date(), "2024-02-29"), (NOON.time(), "12:00:00.000001"), (decimal.Decimal("10.50"), "10.50"),
    (uuid.UUID(int=7), uuid.UUID(int=7).bytes), (Colour.RED, "red"), (Json([1, {"a": None}]), '[1,{"a":null}]'),
]  # fmt: skip


async def test_values_of_twenty_types_are_the_same_on_every_path(three: Cluster):
    """Written through each node; read locally, linearizably and by RETURNING: equal values of equal types."""
    await three.client.execute("CREATE TABLE a8 (id INTEGER PRIMARY KEY, node INTEGER, x)")
    exact = [repr(stored) for _, stored in VALUES]
    for number in NODES:
        db, insert = three.nodes[number], "INSERT INTO a8 (node, x) VALUES (?, ?)"
        returned = [
            await db.execute_returning_one(f"{insert} RETURNING x", [number, given]) for given, _ in VALUES
        ]
        assert [repr(row[0]) for row in returned] == exact
        await db.txn([(insert, [number + 10, given]) for given, _ in VALUES])
        await db.execute_many(insert, [[number + 20, given] for given, _ in VALUES])
    select = "SELECT x FROM a8 WHERE node = ? ORDER BY id"
    for number in NODES:
        for writer in (n + offset for n in NODES for offset in (0, 10, 20)):
            rows = await three.nodes[number].query(select, [writer], consistency="linearizable")
            assert [repr(row[0]) for row in rows] == exact
            assert [repr(row[0]) for row in await three.nodes[number].query(select, [writer])] == exact


# --------------------------------------------------------------------------- A9 (more: test_chance_and_time.py)


async def test_time_and_chance_are_equal_on_all_nodes(three: Cluster):
    """Defaults, triggers, random(), ORDER BY random(): the same everywhere, and plausible."""
    db = three.nodes[three.followers[0]]
    schema = """
        CREATE TABLE a9 (id INTEGER PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP, day TEXT DEFAULT CURRENT_DATE,
                         r INTEGER DEFAULT (random()), b BLOB DEFAULT (randomblob(16)), late TEXT);
        CREATE TRIGGER a9_late AFTER INSERT ON a9 BEGIN
            UPDATE a9 SET late = datetime('now') || strftime('%s', 'now') || unixepoch() WHERE id = new.id;
        END;
        CREATE TABLE a9_order (position INTEGER PRIMARY KEY, id INTEGER);"""
    (await db.batch(schema)).raise_for_error()
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)
    await asyncio.gather(*(three.nodes[n].execute("INSERT INTO a9 DEFAULT VALUES") for n in NODES * 20))
    await db.execute("INSERT INTO a9_order (id) SELECT id FROM a9 ORDER BY random()")
    await db.execute("UPDATE a9 SET r = abs(random()) % 100 WHERE id % 2 = 0")
    after = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    first, *others = await everywhere(three, "SELECT * FROM a9 ORDER BY id")
    assert all(rows == first for rows in others) and len(first) == 60
    assert all(before <= datetime.datetime.fromisoformat(str(row[1])) <= after for row in first)
    assert all(str(row[5]).startswith(str(row[1])) for row in first)
    assert len({row[4] for row in first}) == 60 and len({row[3] for row in first[::2]}) == 30
    order, *orders = await everywhere(three, "SELECT id FROM a9_order ORDER BY position")
    assert all(rows == order for rows in orders) and order != sorted(order)


# --------------------------------------------------------------------------- A10


async def test_a_linearizable_read_sees_every_write_that_ended_before_it(three: Cluster):
    """On each node, right after a write on each other, also while others write and read."""
    await three.client.execute("CREATE TABLE a10 (id INTEGER PRIMARY KEY, n INTEGER)")
    await three.client.execute("INSERT INTO a10 VALUES (1, 0)")
    fresh = "SELECT n FROM a10 WHERE id = 1"

    async def noise(number: int) -> None:
        for _ in range(60):
            await three.nodes[number].execute("INSERT INTO a10 (n) VALUES (-1)")
            await three.nodes[number].query("SELECT max(n) FROM a10", consistency="linearizable")

    async def checked() -> None:
        for step in range(1, 61):
            await three.nodes[NODES[step % 3]].execute("UPDATE a10 SET n = ? WHERE id = 1", [step])
            for number in NODES:
                assert await three.nodes[number].query_value(fresh, consistency="linearizable") == step

    await asyncio.gather(checked(), *(noise(number) for number in NODES))


async def test_many_linearizable_reads_share_rounds_and_none_is_stale(three: Cluster):
    """64 readers per node against a writer that only counts up: what a reader sees never goes back."""
    await three.client.execute("CREATE TABLE a10b (n INTEGER)")
    await three.client.execute("INSERT INTO a10b VALUES (0)")
    done = 0

    async def write() -> None:
        nonlocal done
        for step in range(1, 101):
            await three.client.execute("UPDATE a10b SET n = ?", [step])
            done = step

    async def read(number: int) -> None:
        while done < 100:
            known = done
            seen = await three.nodes[number].query_value("SELECT n FROM a10b", consistency="linearizable")
            assert seen >= known

    await asyncio.gather(write(), *(read(number) for number in NODES for _ in range(16)))


async def test_a_session_sees_what_it_was_told_is_applied(three: Cluster):
    """Also where the time of a write was over when the leader had answered and this node had not applied it yet."""
    follower = three.followers[0]
    db = three.nodes[follower]
    await db.execute("CREATE TABLE IF NOT EXISTS told (x)")
    node = three._running[follower]
    forwarder = node.group.proposals.forwarder
    forwarder.answered_index = node.group.applier.applied_index + 1
    reading = asyncio.create_task(db.query("SELECT x FROM told", consistency="session"))
    await asyncio.sleep(0)
    assert not reading.done() and await db.query("SELECT x FROM told") == []
    await three.client.execute("INSERT INTO told VALUES (1)")
    assert await reading == [(1,)]
    forwarder.answered_index = node.group.applier.applied_index + 1_000_000
    with pytest.raises(hiqlite.RequestTimeout):
        await db.query("SELECT x FROM told", consistency="session", timeout=0.05)
    forwarder.answered_index = 0
