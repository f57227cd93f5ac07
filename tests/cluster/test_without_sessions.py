"""Writes while a member does not know sessions: nothing is sent again, and whose leader is lost is told so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.node import Node
from hiqlite.testing import Cluster, cluster
from hiqlite.transport.relay import HOST
from hiqlite.transport.settings import NetworkSettings
from hiqlite.transport.versions import SESSIONS, Versions
from tests.cluster.agreement import check_equal, everywhere

OLDER = Versions(SESSIONS - 1, SESSIONS - 1)
INSERT = "INSERT INTO t VALUES (?)"
SETTINGS = {"cache": False, "wal_size": "1 MiB", "election_timeout_ms": "1500-2500"}  # long before a leader steps down
WRITES: list[Callable[[LocalClient, int], Awaitable[Any]]] = [
    lambda db, n: db.execute(INSERT, [n], timeout=60),
    lambda db, n: db.execute_many(INSERT, [[n]], timeout=60),
    lambda db, n: db.execute_returning(f"{INSERT} RETURNING id", [n], timeout=60),
    lambda db, n: db.transact([(INSERT, [n])], None, rows=False, timeout=60, request_id=None),
]
TOLD = {
    "leader": "leadership was lost before the write was confirmed",
    "follower": "the leader was lost before it answered",
}


async def taken_back(three: Cluster, number: int) -> None:
    """This node is of the release before sessions from now on, and the others know it."""
    await three.stop(number)
    reach = NetworkSettings(versions=OLDER, reach=lambda peer, _: (HOST, three._relay.ports[number, peer]))
    node = await Node.start(three._configs[number], wait=False, network=reach)
    three._running[number], three.nodes[number] = node, node.client
    networks = [one.network for one in three._running.values() if one is not node and one.network is not None]
    await three.wait_until(lambda: all(one.spoken.get(number) == OLDER.high for one in networks) and three.settled())


@pytest.mark.long
async def test_a_write_whose_leader_is_lost_is_told_so() -> None:
    """LeadershipLost, unknown, by the leader that was deposed and by a follower; none of these has happened. A request
    id is refused, since it would promise more."""
    async with cluster(3, **SETTINGS) as three:
        older = three.followers[0]
        await taken_back(three, older)
        leader, follower = three.leader, next(one for one in three.followers if one != older)
        dbs = {"leader": three.nodes[leader], "follower": three.nodes[follower]}
        await three.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        for number, db in enumerate(dbs.values(), 1000):
            await db.execute(INSERT, [number])
            with pytest.raises(hiqlite.Overloaded, match="request ids are not possible now") as refused:
                await db.execute(INSERT, [1002], request_id="by hand")
            assert refused.value.outcome == "not_applied"
        await three.partition([leader], [follower, older])
        writes = {
            role: [write(db, 10 * step + len(role)) for step, write in enumerate(WRITES)] for role, db in dbs.items()
        }
        tried = dbs["leader"].batch("INSERT INTO t VALUES (500)", timeout=60)
        for role in ("follower", "leader"):
            for error in await asyncio.gather(*writes[role], return_exceptions=True):
                assert isinstance(error, hiqlite.LeadershipLost), repr(error)
                assert (error.message, error.outcome, error.retryable) == (TOLD[role], "unknown", True)
            await three.heal()  # else its old leader would say of what reaches it now that it was not applied
        await three.wait_until(three.settled)
        assert (await tried).ok, "it waited to be tried, so the next leader may have it"
        await check_equal(three)
        assert await everywhere(three, "SELECT id FROM t") == [[(500,), (1000,), (1001,)]] * 3
