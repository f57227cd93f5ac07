"""Poison and bad input on three real nodes: one clear error each, neighbours unharmed, databases equal afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, everywhere, same_content, same_index
from tests.cluster.poison import POISON, SCHEMA, Poison

pytestmark = pytest.mark.asyncio(loop_scope="module")

INNOCENT = "INSERT INTO innocent (tag) VALUES (?)"
SETTINGS = {"cache": False, "wal_size": "8 MiB"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster(3, **SETTINGS) as running:
        (await running.client.batch(SCHEMA)).raise_for_error()
        for node in running.nodes.values():  # each has its session then: opening it is an entry
            await node.execute(INNOCENT, ["before"])
        yield running
        await check_equal(running)  # each takes writes and gives reads of each kind, after all that was run


def shortened(poison: Poison) -> str:
    return poison.sql[:50] or "(nothing)"


async def tags(db: LocalClient, name: str) -> list[str]:
    sql = "SELECT tag FROM innocent WHERE tag LIKE ? ORDER BY tag"
    rows = await db.query(sql, [f"{name}.%"], consistency="linearizable")
    return [row.tag for row in rows]


async def definite(poison: Poison, call: object) -> bool:
    """Whether the call went well; if not, its error is the one that is expected, and says for certain what became of
    it."""
    try:
        await call  # type: ignore[misc]  # any awaitable
    except hiqlite.HiqliteError as error:
        assert error.outcome in ("not_applied", "applied") and str(error)
        assert type(error) in poison.kinds or not poison.refused, error
        assert isinstance(error, hiqlite.StatementError | hiqlite.UsageError), error
        return False
    return True


async def give(db: LocalClient, poison: Poison, name: str) -> None:
    """The poison alone, in a transaction, in a batch, and beside innocent writes of the same turn."""
    refused, sql = poison.refused, poison.sql
    alone = await definite(poison, db.execute(sql))
    assert not (alone and refused)

    in_txn = await definite(
        poison, db.txn([(INNOCENT, [f"{name}.txn1"]), (sql, ()), (INNOCENT, [f"{name}.txn2"])])
    )
    assert not (in_txn and refused)
    both = [f"{name}.txn1", f"{name}.txn2"]
    if in_txn:
        assert await tags(db, name) == both
    elif refused:
        assert await tags(db, name) == []

    if sql.strip(" ;") and not sql.startswith("--"):
        insert = "INSERT INTO innocent (tag) VALUES"
        result = await db.batch(f"{insert} ('{name}.batch1'); {sql}; {insert} ('{name}.batch2')")
        assert result[0].rows_affected == 1
        kinds = {type(one) for one in result if isinstance(one, hiqlite.HiqliteError)}
        assert not refused or (kinds and kinds <= set(poison.kinds))
        assert f"{name}.batch1" in await tags(db, name)

    beside = [db.execute(INNOCENT, [f"{name}.beside{n}"]) for n in range(3)]
    beside.append(db.execute(sql))
    beside += [db.execute(INNOCENT, [f"{name}.beside{n}"]) for n in range(3, 6)]
    ends = await asyncio.gather(*beside, return_exceptions=True)
    assert type(ends.pop(3)) in poison.kinds or not refused
    assert [end.rows_affected for end in ends if not isinstance(end, BaseException)] == [1] * 6, ends


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize("poison", POISON, ids=shortened)
async def test_poison_harms_nobody(three: Cluster, poison: Poison, role: str):
    """Alone, in a transaction, in a batch, beside neighbours: a definite end, equal databases, and the term stays."""
    before = (await three.client.metrics()).db
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    await give(db, poison, f"{POISON.index(poison)}{role}")
    await same_content(list(three.nodes.values()))
    after = (await three.client.metrics()).db
    assert (after.term, after.leader_id) == (before.term, before.leader_id)


async def test_poison_with_restarts_in_between_keeps_the_nodes_equal():
    """Equal uptime hides differences: nodes are stopped, killed and started between the statements."""
    async with cluster(3, **SETTINGS) as three:
        (await three.client.batch(SCHEMA)).raise_for_error()
        for number, poison in enumerate(POISON):
            db = three.nodes[three.followers[number % 2]] if number % 3 else three.client
            await give(db, poison, f"r{number}")
            if number % 12 == 5:
                victim = three.followers[number % 2]
                await three.stop(victim) if number % 24 == 5 else await three.kill(victim)
                await three.client.execute(INNOCENT, [f"without {victim}"])
                await three.start(victim)
                await three.wait_until(lambda: len(three.followers) == 2 and three.leader != 0)
        await check_equal(three)
        before = await everywhere(three, "SELECT count(*), max(id) FROM innocent")
        for number in (1, 2, 3):
            await three.stop(number)
        for number in (3, 1, 2):
            await three.start(number)
        await three.wait_for_leader()
        assert await everywhere(three, "SELECT count(*), max(id) FROM innocent") == before
        await check_equal(three)


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_partial_rows_of_or_fail_are_told_as_applied(three: Cluster, role: str):
    """As in SQLite the rows before the conflict stay, so the outcome is not "not_applied"."""
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    key = f"partial {role}"
    with pytest.raises(hiqlite.ConstraintError) as caught:
        await db.execute("INSERT OR FAIL INTO u VALUES (?, 1), ('there', 2), ('never', 3)", [key])
    assert caught.value.outcome == "applied"
    assert await everywhere(three, f"SELECT n FROM u WHERE k = '{key}'") == [[(1,)]] * 3


@pytest.mark.parametrize("role", ["leader", "follower"])
@pytest.mark.parametrize(
    "sql, params, kind",
    [
        ("INSERT INTO b (x) VALUES (?)", [], hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (?)", [1, 2], hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (:a)", {}, hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (:a)", {"a": 1, "b": 2}, hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (?)", [float("nan")], hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (?)", [2**64], hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (?)", ["\ud800"], hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (?)", [object()], hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (?)", "a", hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (?)", 5, hiqlite.ParameterError),
        ("INSERT INTO b (x) VALUES (?)", [1] * 40_000, hiqlite.ParameterError),
        ("SELECT 1", (), hiqlite.UsageError),
        ("INSERT INTO b (x) VALUES (1); DELETE FROM b", (), hiqlite.UsageError),
        ("INSERT INTO b (x) VALUES (1) RETURNING x", (), hiqlite.UsageError),
        ("INSERT INTO b (x) VALUES ('\ud800')", (), hiqlite.UsageError),
        ("INSERT INTO b (x) VALUES (1)\0", (), hiqlite.UsageError),
        (5, (), hiqlite.UsageError),
        (["INSERT"], (), hiqlite.UsageError),
        ("INSERT INTO b (z) VALUES (1)", (), hiqlite.SchemaError),
        ("INSERT INTO b VALUE (1)", (), hiqlite.StatementError),
    ],
)
async def test_a_wrong_call_is_the_same_error_on_every_node(
    three: Cluster, role: str, sql: str, params: object, kind: type[hiqlite.HiqliteError]
):
    """Refused before anything is replicated, whichever node was asked."""
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    await same_index(list(three.nodes.values()))
    before = (await three.client.metrics()).db.last_log_index
    with pytest.raises(kind) as caught:
        await db.execute(sql, params)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.outcome == "not_applied"
    assert (await three.client.metrics()).db.last_log_index == before
    await same_content(list(three.nodes.values()))


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_large_blob_travels_and_a_larger_one_is_refused(three: Cluster, role: str):
    """60 MB as a parameter goes through every node; beyond the limit of an entry it is a UsageError."""
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    await db.execute("CREATE TABLE IF NOT EXISTS large (x BLOB)")
    await db.execute("INSERT INTO large VALUES (?)", [bytes(60_000_000)], timeout=60)
    with pytest.raises(hiqlite.UsageError) as caught:
        await db.execute("INSERT INTO large VALUES (?)", [bytes(70_000_000)], timeout=60)
    assert caught.value.outcome == "not_applied"
    assert await db.query_value("SELECT sum(length(x)) FROM large") == 60_000_000
    await db.execute("DELETE FROM large")
    await check_equal(three)
