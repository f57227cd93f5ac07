"""A `session` read behind a write that the leader has answered and this node has not applied."""

from __future__ import annotations

import asyncio

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal

# The log travels in small pieces, each acknowledged before the next one: a node that lags comes up slowly.
SLOW = {"raft_frame_bytes_max": "16 KiB", "raft_window_bytes": "16 KiB", "raft_window_frames": 64}
SETTINGS = {"cache": False, "election_timeout_ms": "3000-5000", **SLOW}
MINE = "SELECT count(*) FROM t WHERE id = ?"
SOON_S = 0.2


async def answered_not_applied(three: Cluster, db: LocalClient, follower: int, number: int, lag: int) -> bool:
    """The follower is cut off at a moment at which its client knows that a write is applied, and it has not applied it
    itself; False: it was too fast, or too late."""
    await three.partition([three.leader], [follower], one_way=True)
    insert = "INSERT INTO t (filler) VALUES (?)"
    await asyncio.gather(*(three.client.execute(insert, [bytes(10_000)]) for _ in range(lag)))
    write = asyncio.ensure_future(db.execute("INSERT INTO t VALUES (?, 'mine')", [number], timeout=SOON_S))
    await three.client.query(MINE, [number], consistency="linearizable")
    await three.heal()
    try:
        await write
    except hiqlite.RequestTimeout as error:
        await three.partition([three.leader], [follower])
        return error.outcome == "applied"
    return False


@pytest.mark.long
async def test_a_session_read_waits_for_what_its_client_was_told_is_applied() -> None:
    """Cut off in between: it ends in time, and never shows the state before, which a local read does; healed, it goes
    on and shows the write."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, filler)")
        follower = three.followers[0]
        db = three.nodes[follower]
        await db.execute("INSERT INTO t VALUES (1, 'before')")
        for number in range(1_000_000, 12_000_000, 1_000_000):
            if await answered_not_applied(three, db, follower, number, lag=300):
                break
            await three.heal()
            await check_equal(three)
        assert await db.query_value(MINE, [number], consistency="local") == 0
        with pytest.raises(hiqlite.RequestTimeout) as late:
            await db.query(MINE, [number], consistency="session", timeout=SOON_S)
        assert late.value.outcome is None
        reading = asyncio.ensure_future(db.query_value(MINE, [number], consistency="session"))
        await asyncio.sleep(0)
        assert await db.query_value(MINE, [number], consistency="local") == 0 and not reading.done()
        await three.heal()
        assert await reading == 1
        assert await db.query_value(MINE, [number], consistency="local") == 1
        await check_equal(three)
