"""Every call of a client on a cluster, cancelled at each of its awaits in turn, at once and some turns of the loop
later: what was cancelled happened as a whole or not at all, and nothing of it stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from hiqlite.transport.loopback import loopback_cluster
from tests.cluster.agreement import check_equal
from tests.cluster.interrupting import Interrupted, awaited, cancel_after

pytestmark = pytest.mark.asyncio(loop_scope="module")
INSERT = "INSERT INTO t VALUES (?1)"
COSTLY = "INSERT INTO t SELECT ?1 FROM (SELECT max(x) FROM t)"
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
FILES = {"1_m.sql": "CREATE TABLE m (x); INSERT INTO m VALUES (1)"}
LAST = 3  # the node whose role is changed
POINTS_MAX = 200
MARKS = count(1)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster(3, cache=False, wal_size="8 MiB") as running:
        await running.client.execute("CREATE TABLE t (x)")
        yield running
        await nothing_of_them_stays(running)


async def nothing_of_them_stays(three: Cluster) -> None:
    """No bytes are waited for, all vote, the nodes are equal, and a migration that was cancelled is there once."""
    for _ in range(2):
        report = await three.client.migrate(FILES)
        assert report.applied + report.already_applied == [1]
    assert report.already_applied == [1]
    assert await three.client.query("SELECT x FROM m") == [(1,)]
    await three.client.promote(LAST)  # a call that was cancelled may have left it a learner
    assert [(one.id, one.role) for one in await three.client.members()] == [(n, "voter") for n in range(1, LAST + 1)]
    await check_equal(three)

    def idle() -> bool:
        """The queues of all nodes, in bytes."""
        every = [node.group.proposals for node in three._running.values()]
        return not any(one.gate.queued_bytes or one.buffer.queued_bytes or one.forwarder.waiting_bytes for one in every)

    await three.wait_until(idle)


async def atomic(db: LocalClient, mark: int) -> None:
    async with db.atomic() as block:
        block.execute(INSERT, [mark]).expect(rows=1)
        block.execute(INSERT, [mark])


async def stream(db: LocalClient, _mark: int) -> None:
    async for _ in db.query_iter("SELECT x FROM t", consistency="linearizable"):
        pass


async def change_roles(db: LocalClient, _mark: int) -> None:
    await db.demote(LAST)
    await db.promote(LAST)


# A call, and how many rows with its mark it makes. What is called twice in one coroutine is two calls.
CALLS: dict[str, tuple[int, Callable[[LocalClient, int], Awaitable[Any]]]] = {
    "execute": (1, lambda db, mark: db.execute(INSERT, [mark])),
    "a large execute": (1, lambda db, mark: db.execute(f"{INSERT} /* {'x' * 20_000} */", [mark])),
    "execute_many": (2, lambda db, mark: db.execute_many(INSERT, [[mark], [mark]])),
    "execute_returning": (1, lambda db, mark: db.execute_returning(f"{INSERT} RETURNING x", [mark])),
    "execute_returning_one": (1, lambda db, mark: db.execute_returning_one(f"{INSERT} RETURNING x", [mark])),
    "txn": (2, lambda db, mark: db.txn([(INSERT, [mark]), (INSERT, [mark])])),
    "atomic": (2, atomic),
    "batch": (2, lambda db, mark: db.batch(f"INSERT INTO t VALUES ({mark}); INSERT INTO t VALUES ({mark})")),
    "a costly write": (1, lambda db, mark: db.execute(COSTLY, [mark])),
    "a change of the schema": (0, lambda db, mark: db.execute(f"CREATE TABLE IF NOT EXISTS made_{mark % 3} (x)")),
    "a request id": (1, lambda db, mark: db.execute(INSERT, [mark], request_id=f"request {mark}")),
    "migrate": (0, lambda db, mark: db.migrate(FILES)),
    "a dry run": (0, lambda db, mark: db.migrate(FILES, dry_run=True)),
    "query": (0, lambda db, mark: db.query("SELECT x FROM t WHERE x = ?", [mark])),
    "query, linearizable": (0, lambda db, mark: db.query("SELECT x FROM t", consistency="linearizable")),
    "query, session": (0, lambda db, mark: db.query("SELECT x FROM t", consistency="session")),
    "an endless query": (0, lambda db, mark: db.query(ENDLESS, timeout=0.3)),
    "query_one": (0, lambda db, mark: db.query_one("SELECT count(*) FROM t")),
    "query_optional": (0, lambda db, mark: db.query_optional("SELECT max(x) FROM t", consistency="session")),
    "query_value": (0, lambda db, mark: db.query_value("SELECT max(x) FROM t", consistency="linearizable")),
    "query_iter": (0, stream),
    "metrics": (0, lambda db, mark: db.metrics()),
    "members": (0, lambda db, mark: db.members()),
    "content_hash": (0, lambda db, mark: db.content_hash()),
    "snapshot": (0, lambda db, mark: db.snapshot()),
    "demote, promote": (0, change_roles),
    "transfer_leadership": (0, lambda db, mark: db.transfer_leadership()),
}


async def cancelled(db: LocalClient, name: str, mark: int, at: int, turns: int) -> bool:
    """Whether there was an `at`-th await."""

    async def work() -> Any:
        return await CALLS[name][1](db, mark)

    interrupted = Interrupted(work(), at, cancel_after(turns))
    (end,) = await asyncio.gather(asyncio.create_task(awaited(interrupted)), return_exceptions=True)
    late = isinstance(end, hiqlite.RequestTimeout) and name == "an endless query"
    assert late or isinstance(end, asyncio.CancelledError) or not isinstance(end, BaseException), end
    return interrupted.reached


@pytest.mark.parametrize("turns", [0, 4, 64])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_a_call_is_cancelled_at_each_of_its_awaits(three: Cluster, which: str, name: str, turns: int) -> None:
    """The next call is served, and what was cancelled is there as a whole or not at all."""
    rows = CALLS[name][0]
    tried: list[int] = []
    for at in range(1, POINTS_MAX):
        await three.wait_until(three.settled)
        db = three.client if which == "leader" else three.nodes[three.followers[0]]
        tried.append(next(MARKS))
        reached = await cancelled(db, name, tried[-1], at, turns)
        assert (await db.execute("UPDATE t SET x = x WHERE x < 0", timeout=20)).rows_affected == 0
        if not reached:
            break
    else:
        pytest.fail("the call has no end")
    found = await three.client.query("SELECT x, count(*) FROM t WHERE x >= ? GROUP BY x", [tried[0]])
    assert {row[1] for row in found} <= {rows}
    assert rows == 0 or tried[-1] in [row[0] for row in found]


async def test_waiting_for_health_is_cancelled_at_each_of_its_awaits(tmp_path: Path) -> None:
    """On a node that waits for others; it goes on waiting, and whoever asks next is told so."""
    settings = loopback_cluster(tmp_path, 3, {"cache": False, "wal_size": "8 MiB"})
    async with hiqlite.open(settings[1], wait=False) as db:
        for at, turns in product((1, 2, 3), (0, 4)):
            interrupted = Interrupted(db.wait_until_healthy(), at, cancel_after(turns))
            with pytest.raises(asyncio.CancelledError):
                await asyncio.create_task(awaited(interrupted))
            assert interrupted.reached
        with pytest.raises(hiqlite.NoLeader):
            await db.wait_until_healthy(timeout=0.02)
        assert (await db.metrics()).db.role == "forming"
