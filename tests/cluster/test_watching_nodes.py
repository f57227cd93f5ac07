"""Nodes that know how they are: healthy, ready, how far behind; and clusters that must not be two, on real nodes."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.node_recovery import recover
from hiqlite.testing import Cluster, cluster
from hiqlite.transport.loopback import loopback_cluster
from tests.cluster.agreement import check_equal, eventually
from tests.cluster.growing import Growing, growing
from tests.waiting import moment

ALL = (1, 2, 3)
SECRETS = {"secret_raft": "one secret for all of them", "secret_api": "another one for all of them"}
QUICK: dict[str, Any] = {"heartbeat_interval_ms": 50, "election_timeout_ms": "250-400"}
LONG_WRITE = (
    "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000000) "
    "SELECT count(*) FROM n"
)


async def reasons(db: LocalClient) -> str:
    """Why a node is not ready. The metrics and the calls say the same."""
    before = await db.is_healthy(), await db.is_ready()
    found = (await db.metrics()).node
    after = await db.is_healthy(), await db.is_ready()
    assert found["healthy"] in (before[0], after[0]) and found["ready"] in (before[1], after[1])
    assert found["ready"] is (not found["reasons"]) and (found["healthy"] or not found["ready"])
    return "; ".join(found["reasons"])


async def all_ready(nodes: Any) -> None:
    async def ready() -> bool:
        return all([await db.is_ready() for db in nodes])

    await eventually(ready)


async def until_reason(db: LocalClient, text: str) -> None:
    async def says() -> bool:
        return text in await reasons(db)

    await eventually(says)


async def split_brain(db: LocalClient) -> str:
    return "; ".join((await db.metrics()).node["split_brain"])


async def until_split(db: LocalClient, text: str) -> None:
    async def says() -> bool:
        return text in await split_brain(db)

    await eventually(says)


# --------------------------------------------------------------------------- health and readiness


async def test_a_single_node_is_ready_once_it_is_open(tmp_path: Path) -> None:
    """And no more once it is closed; nobody is there to contradict it."""
    async with hiqlite.open(tmp_path / "data") as db:
        assert await db.is_healthy()
        await all_ready([db])
        found = (await db.metrics()).node
        assert found["id"] == 1 and len(found["cluster_id"]) == 64 and found["uptime_s"] > 0
        assert (found["reasons"], found["split_brain"], found["strangers"]) == ([], [], [])
        assert (await db.metrics()).db.millis_since_quorum == 0.0
    assert not await db.is_ready() and not await db.is_healthy()
    found = (await db.metrics()).node
    assert (found["healthy"], found["ready"]) == (False, False)
    assert "shutting down" in "".join(found["reasons"])


async def test_a_cache_group_that_waits_for_a_lost_founder_makes_a_node_unhealthy() -> None:
    """It forgets, so it begins anew with all of them: the database has a leader, and the other group never gets one."""
    async with cluster(3, cache_storage_disk=False, **QUICK) as three:
        await all_ready(three.nodes.values())
        for number in ALL:
            await three.kill(number)
        for number in (1, 2):
            await three.start(number)
        await three.wait_until(lambda: three.leader != 0)

        async def unhealthy() -> bool:
            return not any([await db.is_healthy() for db in three.nodes.values()])

        await eventually(unhealthy)
        assert "cache: no leader is known" in await reasons(three.nodes[1])
        await three.start(3)
        await all_ready(three.nodes.values())


async def test_nodes_become_ready_when_their_cluster_forms_and_not_before(tmp_path: Path) -> None:
    """One alone waits, and says for what; with all of them there, both groups lead to readiness."""
    settings = loopback_cluster(tmp_path, 3, QUICK)
    clients = [await hiqlite.open(settings[1], wait=False)]
    try:
        assert "no member of a cluster yet" in await reasons(clients[0])
        assert not await clients[0].is_healthy()
        clients += [await hiqlite.open(settings[number], wait=False) for number in (2, 3)]
        await all_ready(clients)
        metrics = [await client.metrics() for client in clients]
        assert len({one.node["cluster_id"] for one in metrics}) == 1
        assert all(one.node["network"]["refusals"].get("cluster") is None for one in metrics)
    finally:
        await asyncio.gather(*(client.shutdown() for client in clients))


async def test_a_lost_majority_is_noticed_and_an_election_is_none(tmp_path: Path) -> None:
    """Who is left works on, though nobody can write: unhealthy after the grace, well again with the others."""
    async with cluster(3, base_dir=tmp_path, **QUICK) as three:
        await all_ready(three.nodes.values())
        left = three.followers[0]
        db = three.nodes[left]
        for number in [one for one in three.nodes if one != left]:
            await three.kill(number)
        assert await db.is_healthy()
        await until_reason(db, "db: no leader is known for")
        await until_reason(db, "cache: no leader is known for")
        assert not await db.is_healthy()
        group = (await db.metrics()).db
        assert (group.leader_id, group.millis_since_leader, group.millis_since_quorum) == (0, None, None)
        for number in ALL:
            if number != left:
                await three.start(number)
        await all_ready(three.nodes.values())
        await check_equal(three)


async def test_nodes_stay_healthy_and_ready_while_the_leader_changes(tmp_path: Path) -> None:
    """A balancer that looks at each moment sees nothing of it."""
    async with cluster(3, base_dir=tmp_path) as three:
        await all_ready(three.nodes.values())
        before = three.leader
        moving = asyncio.create_task(three.client.transfer_leadership())
        while not (moving.done() and three.leader not in (0, before)):
            for db in three.nodes.values():
                assert await db.is_healthy() and await db.is_ready(), await reasons(db)
            await asyncio.sleep(0)
        await moving
        await check_equal(three)


async def test_a_restarted_node_is_ready_only_with_what_was_committed_before_it_came(tmp_path: Path) -> None:
    """Whoever finds it ready finds all that was acknowledged while it was away. Meanwhile the leader counts its lag."""
    async with cluster(3, base_dir=tmp_path, cache=False, wal_size="256 KiB", logs_until_snapshot=200) as three:
        await three.client.execute("CREATE TABLE t (x)")
        away = three.followers[0]
        await three.stop(away)
        # More than the logs keep: it is sent an image, and what follows.
        for _ in range(40):
            await asyncio.gather(*(three.client.execute("INSERT INTO t VALUES (1)") for _ in range(50)))
        leader = (await three.client.metrics()).db
        assert leader.follower_lag[away] >= 2000 and set(leader.follower_lag) == set(ALL) - {three.leader}
        await all_ready(three.nodes.values())  # those that are left
        db = await three.start(away)
        looks = 0
        while not await db.is_ready():
            looks += 1
            await moment()
        assert looks > 0
        assert await db.query_value("SELECT count(*) FROM t") == 2000

        async def level() -> bool:
            found = (await three.client.metrics()).db
            return set(found.follower_lag.values()) == {0} and found.lag == 0

        await eventually(level)
        await check_equal(three)


async def test_a_node_that_lags_too_far_is_not_ready_and_is_healthy(tmp_path: Path) -> None:
    """A statement that takes its time is applied; what is committed behind it waits."""
    async with cluster(3, base_dir=tmp_path, cache=False, ready_max_lag=5) as three:
        await three.client.execute("CREATE TABLE t (x)")
        await all_ready(three.nodes.values())
        follower = three.nodes[three.followers[0]]
        writes = [asyncio.ensure_future(three.client.execute(LONG_WRITE, timeout=60))]
        insert = "INSERT INTO t VALUES (1)"
        writes += [asyncio.ensure_future(three.client.execute(insert, timeout=60)) for _ in range(9)]
        await until_reason(follower, "db: it lags")
        assert await follower.is_healthy()
        assert (await follower.metrics()).db.lag >= 5
        await asyncio.gather(*writes)
        await all_ready(three.nodes.values())
        assert (await three.client.metrics()).db.lag == 0
        await check_equal(three)


async def test_a_node_that_drains_works_on_and_is_not_ready(tmp_path: Path) -> None:
    """For as long as it was told to; then it stops as ever. Who asks for the end again waits for the same one."""
    drain_s = 0.5
    async with hiqlite.open(tmp_path / "data", cache=False, shutdown_drain=drain_s) as db:
        await db.execute("CREATE TABLE t (x)")
        await all_ready([db])
        begun = time.monotonic()
        ends = [asyncio.ensure_future(db.shutdown()) for _ in range(2)]
        await until_reason(db, "the node is about to stop")
        while time.monotonic() < begun + 0.6 * drain_s:
            assert await db.is_healthy() and not await db.is_ready()
            await db.execute("INSERT INTO t VALUES (1)")
        await asyncio.gather(*ends)
        assert drain_s <= time.monotonic() - begun < drain_s + 10
    assert not await db.is_healthy()


async def test_a_removed_node_is_not_healthy(tmp_path: Path) -> None:
    """It runs and takes no part: whoever looks after the process is told."""
    async with growing(tmp_path, **QUICK) as nodes:
        await nodes.form(*ALL)
        await nodes.stop(3)
        await nodes.client(1).remove_member(3)
        three = await nodes.start(3, ALL)
        await nodes.check_removed(3)
        assert not await three.is_healthy() and "was removed" in await reasons(three)
        await all_ready([nodes.client(1), nodes.client(2)])


async def test_metrics_tell_of_quorum_writes_and_peers(tmp_path: Path) -> None:
    """A leader knows how old its majority is and how long writes take; a follower when it heard the leader."""
    async with cluster(3, base_dir=tmp_path, cache=False) as three:
        await three.client.execute("CREATE TABLE t (x)")
        for number in range(20):
            await three.client.execute("INSERT INTO t VALUES (?)", [number])
        leader, follower = await three.client.metrics(), await three.nodes[three.followers[0]].metrics()
        assert leader.db.millis_since_leader == 0.0 and leader.db.millis_since_quorum is not None
        assert 0 <= leader.db.millis_since_quorum < 5000
        assert follower.db.millis_since_quorum is None and follower.db.follower_lag == {}
        assert follower.db.millis_since_leader is not None and 0 <= follower.db.millis_since_leader < 5000
        counters = leader.db.counters
        assert counters["writes_proposed"] == counters["writes_applied"] == 22  # the first one opened a session
        assert 0 < counters["writes_p50_us"] <= counters["writes_p99_us"] <= counters["writes_max_us"]
        assert follower.db.counters["writes_proposed"] == 0
        assert set(leader.node["network"]["peers"]) == set(ALL) - {three.leader}
        assert leader.node["disk_low"] is False and leader.node["reads"]["threads"] >= 0


# --------------------------------------------------------------------------- two of what must be one


async def meet(one: Growing, other: Growing, number: int, named: tuple[int, ...] = ALL) -> LocalClient:
    """A node of `other` whose config has the addresses of `one` for everybody but itself; is started, not awaited."""
    for peer in named:
        if peer != number:
            other.ports[peer] = one.ports[peer]
    return await other.start(number, named)


async def test_a_stray_node_of_another_cluster_is_reported_and_harms_nobody_but_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Same secret, same ids: the cluster it comes to stays ready and says who came; it is not ready itself. Each says
    so once, however often it is dialled, and once more when it is over."""
    async with growing(tmp_path / "one", **SECRETS, **QUICK) as one, growing(tmp_path / "two", **SECRETS) as two:
        await asyncio.gather(one.form(*ALL), two.form(*ALL))
        ids = {nodes.running[1].storage.meta.cluster_id for nodes in (one, two)}
        assert len(ids) == 2
        for number in ALL:
            await two.stop(number)
        await all_ready(node.client for node in one.running.values())
        with caplog.at_level(logging.WARNING, "hiqlite"):
            stray = await meet(one, two, 3)
            for number in (1, 2):
                await until_reason(stray, f"split brain: node {number} belongs to another cluster")
                await until_split(one.client(number), "node 3 belongs to another cluster (")
            assert (await stray.metrics()).node["strangers"] == [1, 2]
            assert await split_brain(one.client(3)) == ""  # nobody came to it
            await one.wait_until(lambda: one.running[1].network.refusals.counts["cluster"] > 8)
            for number in ALL:
                assert await one.client(number).is_ready(), await reasons(one.client(number))
            await one.check_equal()
        # By nodes 1 and 2 of the one cluster, and by the stray one of each of them.
        said = [record.getMessage() for record in caplog.records if "split brain: " in record.getMessage()]
        assert sorted(text.partition("(")[0].partition(", not")[0].strip() for text in said) == [
            "split brain: node 1 belongs to another cluster", "split brain: node 2 belongs to another cluster",
            "split brain: node 3 belongs to another cluster", "split brain: node 3 belongs to another cluster",
        ]  # fmt: skip
        assert one.running[1].storage.meta.cluster_id.hex()[:16] in "".join(said)


async def test_two_clusters_of_one_node_each_that_should_be_one_are_both_not_ready(tmp_path: Path) -> None:
    """Each leads, each takes writes; neither can know that it is the right one. One gives up, then both are well."""
    async with growing(tmp_path, **QUICK) as nodes:
        for number in (1, 2):
            await nodes.start(number, [number], wait=True)
            await nodes.client(number).execute("CREATE TABLE t (x)")
            await nodes.stop(number)
        for number in (1, 2):
            await nodes.start(number, (1, 2), wait=True)
        for number, other in ((1, 2), (2, 1)):
            await until_reason(nodes.client(number), f"split brain: node {other} belongs to another cluster")
            assert await nodes.client(number).is_healthy() and await nodes.client(number).is_leader()
        await nodes.stop(2)
        nodes.lose(2)
        two = await nodes.start(2, (1, 2))
        await all_ready([nodes.client(1), two])
        await nodes.members({1, 2}, set())
        await nodes.check_equal()


async def test_the_survivor_that_was_recovered_and_the_old_cluster_see_each_other(tmp_path: Path) -> None:
    """The majority was not lost after all. It goes on; the one that left it is not ready."""
    async with growing(tmp_path, **QUICK) as nodes:
        await nodes.form(*ALL)
        await nodes.members(set(ALL), set())  # the cache group, too: it would wait for the one that leaves
        for number in ALL:
            await nodes.stop(number)
        await recover(nodes.config(1, ALL), write=True)
        await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in ALL))
        await until_reason(nodes.client(1), "split brain: node 2 belongs to another cluster")
        for number in (2, 3):
            await until_split(nodes.client(number), "node 1 belongs to another cluster")
        await all_ready([nodes.client(2), nodes.client(3)])


async def test_a_copy_of_a_node_is_reported_and_told(tmp_path: Path) -> None:
    """Two processes with the data, the id and the secrets of one: peers stay ready, the two are not. It ends with the
    copy."""
    async with growing(tmp_path / "one", **SECRETS, **QUICK) as one, growing(tmp_path / "two", **SECRETS) as two:
        await one.form(*ALL)
        await one.stop(3)
        shutil.copytree(one.folder / "node3", two.folder / "node3")
        await one.start(3, ALL, wait=True)
        begun = time.monotonic()
        copy = await meet(one, two, 3)
        for number in (1, 2):
            await until_split(one.client(number), "two processes answer as node 3")
        accused = [one.client(3), copy]

        async def one_knows() -> bool:
            return any(["another process answers as node 3 too" in await reasons(db) for db in accused])

        await eventually(one_knows)
        for number in (1, 2):
            assert "split brain" not in await reasons(one.client(number))
        # Each of the two says for ever that it is elsewhere than the other one said: that must not keep anybody busy.
        words = one.running[1].members.book.entries[3].stamp
        assert words < 20 + 20 * (time.monotonic() - begun)
        await two.stop(3)

        async def over() -> bool:
            return not any([await split_brain(node.client) for node in one.running.values()])

        await eventually(over)
        await all_ready(node.client for node in one.running.values())


async def test_a_cluster_that_was_started_twice_from_copies_is_reported_when_the_two_meet(tmp_path: Path) -> None:
    """One cluster id, one membership, two histories: what both call committed differs, and every node that hears of it
    says so and is not ready."""
    settings = {**SECRETS, **QUICK, "cache": False, "logs_until_snapshot": 100_000}
    async with growing(tmp_path / "one", **settings) as one, growing(tmp_path / "two", **settings) as two:
        await one.form(*ALL)
        await one.client(1).execute("CREATE TABLE t (x)")
        for number in ALL:
            await one.stop(number)
        shutil.copytree(one.folder, two.folder, dirs_exist_ok=True)
        for nodes, leaders in ((two, (1, 2, 1, 2)), (one, ())):  # terms pass in one of them
            await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in ALL))
            for leader in leaders:
                await nodes.client(3).transfer_leadership(leader)
            for number in range(30):
                await nodes.client(1).execute("INSERT INTO t VALUES (?)", [number])
            assert not any([await split_brain(node.client) for node in nodes.running.values()])
            for number in ALL if nodes is two else (3,):
                await nodes.stop(number)
        copy = await meet(one, two, 3)
        met = [one.client(1), one.client(2), copy]

        async def known() -> bool:
            return all(["two entries committed at index" in await split_brain(db) for db in met])

        await eventually(known)
        for db in met:
            assert not await db.is_ready()


@pytest.mark.parametrize("settings", [{}, {"cache_storage_disk": False}])
async def test_changes_restarts_and_faults_are_no_split_brain(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Leaders that change, nodes that die, members that are demoted and promoted: nobody contradicts anybody."""
    async with cluster(3, base_dir=tmp_path, **QUICK, **settings) as three:
        await disturb(three)
        await check_equal(three)


async def disturb(three: Cluster) -> None:
    await three.client.execute("CREATE TABLE t (x)")
    for _ in range(3):
        await three.client.transfer_leadership()
        await three.wait_for_leader()
        killed = three.leader
        await three.kill(killed)
        await three.wait_for_leader()
        await three.client.execute("INSERT INTO t VALUES (1)")
        await three.start(killed)
        await three.wait_until(three.settled)
        other = three.followers[0]
        await three.client.demote(other)
        await three.client.promote(other)
        await all_ready(three.nodes.values())
