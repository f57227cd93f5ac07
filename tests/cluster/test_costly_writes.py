"""Writes that never end, or take long, on three real nodes: refused before they are replicated, by every way in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hiqlite.client.local import LocalClient
from hiqlite.errors import StatementTimeout
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal

pytestmark = pytest.mark.asyncio(loop_scope="module")
RECURSIVE = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
SWEEP = f"DELETE FROM t WHERE x IN ({RECURSIVE} SELECT x FROM c)"
ENDLESS = f"INSERT INTO t {RECURSIVE} SELECT x FROM c"
CALLS: dict[str, Callable[[LocalClient], Awaitable[Any]]] = {
    "execute": lambda db: db.execute(ENDLESS),
    "execute_many": lambda db: db.execute_many(f"INSERT INTO t {RECURSIVE} SELECT x + ? FROM c", [[1], [2]]),
    "execute_returning": lambda db: db.execute_returning(f"{ENDLESS} RETURNING x"),
    "txn": lambda db: db.txn([("INSERT INTO t VALUES (1)", ()), (ENDLESS, ())]),
    "batch": lambda db: db.batch(f"INSERT INTO t VALUES (1); {ENDLESS}"),
    "a trigger and its cause": lambda db: db.txn(
        [
            (f"CREATE TRIGGER e AFTER INSERT ON t BEGIN {SWEEP}; END", ()),
            ("INSERT INTO t VALUES (1)", ()),
        ]
    ),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("costly")
    async with cluster(3, base_dir=folder, cache=False, statement_timeout=0.2) as running:
        await running.client.execute("CREATE TABLE t (x)")
        yield running


def node(three: Cluster, which: str) -> LocalClient:
    return three.client if which == "leader" else three.nodes[three.followers[0]]


@pytest.mark.parametrize("which", ["leader", "follower"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_an_endless_write_is_refused_and_harms_nobody(
    three: Cluster, which: str, call: Callable[[LocalClient], Awaitable[Any]]
) -> None:
    """Writes beside it only wait for the trial."""
    db = node(three, which)
    beside = [db.execute("INSERT INTO t VALUES (2)") for _ in range(3)]
    endless = asyncio.ensure_future(call(db))
    behind = [db.execute("INSERT INTO t VALUES (3)") for _ in range(3)]
    with pytest.raises(StatementTimeout) as caught:
        await endless
    assert caught.value.outcome == "not_applied"
    assert [(await one).rows_affected for one in (*beside, *behind)] == [1] * 6
    await check_equal(three)


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_an_endless_migration_is_refused_within_the_callers_time(three: Cluster, which: str) -> None:
    with pytest.raises(StatementTimeout) as caught:
        await node(three, which).migrate({"1_endless.sql": ENDLESS}, timeout=0.3)
    assert caught.value.outcome == "not_applied"
    await check_equal(three)


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_a_trigger_without_an_end_that_came_in_the_same_turn(three: Cluster, which: str) -> None:
    """The INSERT was cheap when it was issued; it is judged by the schema that it will meet."""
    db = node(three, which)
    await db.execute("CREATE TABLE victim (x)")
    for _ in range(3):
        await db.execute("INSERT INTO victim VALUES (1)")
    body = f"DELETE FROM victim WHERE x IN ({RECURSIVE} SELECT x FROM c)"
    trigger = db.execute(f"CREATE TRIGGER without_end AFTER INSERT ON victim BEGIN {body}; END")
    insert = db.execute("INSERT INTO victim VALUES (1)")
    await trigger
    with pytest.raises(StatementTimeout):
        await insert
    await db.execute("DROP TRIGGER without_end")
    await db.execute("INSERT INTO victim VALUES (1)")
    await db.execute("DROP TABLE victim")
    await check_equal(three)


@pytest.mark.parametrize("which", [pytest.param("leader", marks=pytest.mark.long), "follower"])
async def test_who_waits_for_longer_may_write_for_longer(three: Cluster, which: str) -> None:
    """A timeout above the usual one is the limit of the trial, too."""
    db = node(three, which)
    rows = 6_000_000
    slow = f"INSERT INTO t {RECURSIVE[:-1]} WHERE x < {rows}) SELECT x FROM c"
    with pytest.raises(StatementTimeout):
        await db.execute(slow)
    assert (await db.execute(slow, timeout=60)).rows_affected == rows
    await db.execute("DELETE FROM t", timeout=60)
    await check_equal(three)


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_writes_of_all_kinds_stand_in_the_order_in_which_they_were_issued(three: Cluster, which: str) -> None:
    """Cheap ones, tried ones, and changes of the schema, all in one turn."""
    db = node(three, which)
    await db.execute("CREATE TABLE noted (id INTEGER PRIMARY KEY AUTOINCREMENT, n)")
    calls: list[Awaitable[Any]] = []
    for number in range(30):
        match number % 5:
            case 0:
                calls.append(db.execute("INSERT INTO noted (n) SELECT ?", [number]))
            case 1:
                calls.append(db.batch(f"INSERT INTO noted (n) VALUES ({number})"))
            case 2 if number == 12:
                both = [("CREATE INDEX noted_n ON noted (n)", ()), ("INSERT INTO noted (n) VALUES (?)", [number])]
                calls.append(db.transact(both, None, rows=False, timeout=None, request_id=None))
            case 3:
                calls.append(db.execute_returning("INSERT INTO noted (n) VALUES (?) RETURNING id", [number]))
            case _:
                calls.append(db.execute("INSERT INTO noted (n) VALUES (?)", [number]))
    await asyncio.gather(*calls)
    assert [row[0] for row in await db.query("SELECT n FROM noted ORDER BY id")] == list(range(30))
    await db.execute("DROP TABLE noted")
    await check_equal(three)


async def test_what_is_applied_is_what_was_tried_its_chance_included(three: Cluster) -> None:
    """A statement that ends or not by the toss of a coin: it is tossed once, for trial and entry."""
    limit = "LIMIT CASE WHEN random() & 1 THEN 1 ELSE 1000000000000 END"
    coin = f"INSERT INTO t {RECURSIVE[:-1]} {limit}) SELECT x FROM c"
    calls = [node(three, which).execute(coin) for which in ("leader", "follower") * 8]
    found = await asyncio.gather(*calls, return_exceptions=True)
    ended = [one.rows_affected for one in found if not isinstance(one, BaseException)]
    assert set(ended) == {1} and len(ended) < len(found)
    assert {type(one) for one in found if isinstance(one, BaseException)} == {StatementTimeout}
    await check_equal(three)


async def test_a_leader_that_goes_during_a_trial_leaves_the_write_to_the_next_one(tmp_path: Path) -> None:
    """What waits behind it comes with it, in order; nothing is applied twice."""
    async with cluster(3, base_dir=tmp_path, cache=False, statement_timeout=5.0) as three:
        await three.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, x)")
        leader, follower = three.leader, three.followers[0]
        db = three.nodes[leader]
        endless = asyncio.ensure_future(db.execute(f"INSERT INTO t (x) {RECURSIVE} SELECT x FROM c"))
        behind = [asyncio.ensure_future(db.execute("INSERT INTO t (x) VALUES (?)", [n])) for n in range(20)]
        await three.wait_until(lambda: len(three._running[leader].group.proposals.gate) > 0)
        await three.nodes[follower].transfer_leadership(follower)
        with pytest.raises(StatementTimeout):
            await endless
        await asyncio.gather(*behind)
        rows = await db.query("SELECT x FROM t ORDER BY id", consistency="linearizable")
        assert [row[0] for row in rows] == list(range(20))
        await check_equal(three)
