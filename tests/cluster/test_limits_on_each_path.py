"""What a caller is told at the limits of the queue, of time, and of SQLite: by the leader, and through a follower."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, everywhere

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUEUE_BYTES = 4 << 20
LARGE = "x" * 100_000
INSERT = "INSERT INTO t VALUES (?, ?)"
SOON_S = 0.25  # far below an election timeout: nobody is deposed meanwhile
FRESH = itertools.count(1000)  # ids, which are request ids too
ROLES = pytest.mark.parametrize("role", ["leader", "follower"])

# Every kind of write, of one row with this id; each is issued by the call.
WRITES: dict[str, Callable[[LocalClient, int, float | None], Awaitable[Any]]] = {
    "execute": lambda db, n, limit: db.execute(INSERT, [n, LARGE], timeout=limit),
    "execute_many": lambda db, n, limit: db.execute_many(INSERT, [[n, LARGE]], timeout=limit),
    "execute_returning": lambda db, n, limit: db.execute_returning(f"{INSERT} RETURNING id", [n, LARGE], timeout=limit),
    "txn": lambda db, n, limit: db.transact([(INSERT, [n, LARGE])], None, rows=False, timeout=limit, request_id=None),
    "by hand": lambda db, n, limit: db.execute(INSERT, [n, LARGE], timeout=limit, request_id=f"{n}"),
    "batch": lambda db, n, limit: db.batch(f"INSERT INTO t VALUES ({n}, '{LARGE}')", timeout=limit),
}
FULL = {
    "leader": ("too many bytes of writes wait to be proposed", "await earlier writes first"),
    "follower": ("too many bytes of writes wait for the leader", "slow down, or raise the limit"),
}
LATE = {
    "leader": ("unknown", "the write was not confirmed in time"),
    "follower": ("unknown", "the leader did not answer in time"),
}
UNTRIED = ("not_applied", "the write was not proposed in time")  # a batch is tried behind all before it


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three() -> AsyncIterator[Cluster]:
    sizes = {"max_entry_size": QUEUE_BYTES, "raft_proposal_queue_bytes": QUEUE_BYTES, "wal_size": "8 MiB"}
    async with cluster(3, cache=False, election_timeout_ms="3000-5000", **sizes) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def healed_afterwards(three: Cluster) -> AsyncIterator[None]:
    yield
    await three.heal()


async def emptied(three: Cluster, role: str) -> LocalClient:
    """The client of a node of that role, which has written before; the table is there, and empty."""
    await three.wait_until(three.settled)
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    await db.batch("DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER PRIMARY KEY, filler)")
    return db


async def ids(three: Cluster) -> list[int]:
    """What is there, the same on all nodes."""
    await check_equal(three)
    first, *others = await everywhere(three, "SELECT id FROM t ORDER BY id")
    assert others == [first] * 2
    return [row[0] for row in first]  # type: ignore[misc]


@ROLES
async def test_writes_that_find_no_room_are_refused_and_leave_nothing(three: Cluster, role: str) -> None:
    """Overloaded, of any kind; what was taken before is applied, and then there is room, under the same request id."""
    db = await emptied(three, role)
    taken: list[Any] = []
    while not taken or not taken[-1].done():  # all in one turn
        taken.append(db.execute(INSERT, [len(taken), LARGE]))
    refused = taken.pop()
    assert isinstance(refused.exception(), hiqlite.Overloaded)
    more = dict(zip(itertools.islice(FRESH, len(WRITES)), WRITES.values(), strict=True))
    for number, write in more.items():
        with pytest.raises(hiqlite.Overloaded) as caught:
            await write(db, number, None)
        assert (caught.value.message, caught.value.hint) == FULL[role]
        assert caught.value.outcome == "not_applied" and caught.value.retryable
    assert [one.rows_affected for one in await asyncio.gather(*taken)] == [1] * len(taken)
    assert 0.9 * QUEUE_BYTES < len(taken) * len(LARGE) < 1.1 * QUEUE_BYTES
    for number, write in more.items():
        await write(db, number, None)
    assert await ids(three) == [*range(len(taken)), *more]


@ROLES
async def test_a_write_that_is_not_confirmed_in_time_is_unknown(three: Cluster, role: str) -> None:
    """RequestTimeout, of any kind: where only the answer is lost it has happened, else once at most. Under its request
    id it is given its first answer."""
    db = await emptied(three, role)
    leader, others = three.leader, three.followers
    await three.partition([leader], others if role == "leader" else others[:1], one_way=True)
    numbers = dict(zip(WRITES, FRESH, strict=False))
    writes = [asyncio.ensure_future(WRITES[kind](db, number, SOON_S)) for kind, number in numbers.items()]
    with pytest.raises(hiqlite.RequestTimeout) as migrated:  # it asks what is applied before it writes
        await db.migrate({"1_late.sql": "CREATE TABLE late (x)"}, timeout=SOON_S)
    assert migrated.value.outcome == "not_applied"
    for kind, error in zip(WRITES, await asyncio.gather(*writes, return_exceptions=True), strict=True):
        assert isinstance(error, hiqlite.RequestTimeout), repr(error)
        untried = (role, kind) == ("leader", "batch")
        assert (error.outcome, error.message) == (UNTRIED if untried else LATE[role]) and error.retryable
    await three.heal()
    await three.wait_until(three.settled)
    by_hand = numbers["by hand"]
    assert (await WRITES["by hand"](db, by_hand, None)).last_insert_rowid == by_hand
    assert await everywhere(three, "SELECT 1 FROM sqlite_schema WHERE name = 'late'") == [[]] * 3
    found = await ids(three)
    if role == "follower":
        assert found == list(numbers.values())
    else:
        assert by_hand in found and set(found) <= {*numbers.values()} - {numbers["batch"]}


@ROLES
async def test_as_many_parameters_as_sqlite_takes_and_not_one_more(three: Cluster, role: str) -> None:
    """32 766; one more is refused before anything is replicated."""
    db = await emptied(three, role)
    sql = "INSERT INTO t (filler) VALUES " + ",".join(["(?)"] * 32_766)
    assert (await db.execute(sql, [1] * 32_766)).rows_affected == 32_766
    before = (await three.client.metrics()).db.last_log_index
    too_many = [1] * 32_767
    for text in (f"{sql},(?)", f"{sql},(?32767)", INSERT):
        for call in (db.execute(text, too_many), db.txn([(text, too_many)])):
            with pytest.raises(hiqlite.ParameterError, match="32767 parameters are more than SQLite takes") as caught:
                await call
            assert caught.value.outcome == "not_applied"
    with pytest.raises(hiqlite.StatementError, match="too many SQL variables") as refused:
        await db.execute(f"{sql},(?)", [1] * 32_766)
    assert refused.value.outcome == "not_applied"
    assert (await three.client.metrics()).db.last_log_index == before
    assert len(await ids(three)) == 32_766


@pytest.mark.long
@ROLES
async def test_a_transaction_of_25_000_statements_is_all_or_nothing(three: Cluster, role: str) -> None:
    """Each is answered in its place; where the last one fails, none of them has happened."""
    db = await emptied(three, role)
    rows = [(INSERT, [number, None]) for number in range(25_000)]
    with pytest.raises(hiqlite.ConstraintError) as caught:
        await db.txn([*rows[:-1], rows[0]])
    assert (caught.value.statement_index, caught.value.outcome) == (24_999, "not_applied")
    assert await ids(three) == []
    results = await db.txn(rows)
    assert [one.last_insert_rowid for one in results] == list(range(25_000))
    assert await ids(three) == list(range(25_000))
