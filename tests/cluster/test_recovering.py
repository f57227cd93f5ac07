"""A majority lost for good: a survivor goes on as another cluster, and nobody of the old one takes part in it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import hiqlite
from hiqlite.node_recovery import RecoveryReport, recover
from tests.cluster.growing import Growing, growing

ALL = (1, 2, 3)


async def three_with_data(nodes: Growing, rows: int = 50) -> None:
    await nodes.form(*ALL)
    await nodes.members(set(ALL), set())
    await nodes.client(1).execute("CREATE TABLE t (x)")
    await nodes.client(1).execute_many("INSERT INTO t VALUES (?)", [(number,) for number in range(rows)])


async def report(nodes: Growing, number: int, *, write: bool = False) -> RecoveryReport:
    return await recover(nodes.config(number, ALL), write=write)


@pytest.mark.parametrize("settings", [{}, {"cache_storage_disk": False}, {"cache": False}])
async def test_a_survivor_goes_on_and_empty_nodes_join_it(tmp_path: Path, settings: dict[str, object]) -> None:
    """With all that it had; under another id; with voters again in the end, in both groups."""
    async with growing(tmp_path, **settings) as nodes:
        await three_with_data(nodes)
        before = nodes.running[1].storage.meta.cluster_id
        for number in ALL:
            await nodes.kill(number)
        for number in (2, 3):
            nodes.lose(number)
        looked = await report(nodes, 1)
        assert (looked.voters, looked.alive, looked.refusal, looked.new_cluster_id) == (ALL, (), "", "")
        done = await report(nodes, 1, write=True)
        assert bytes.fromhex(done.cluster_id) == before and done.new_cluster_id not in ("", done.cluster_id)
        one = await nodes.start(1, ALL, wait=True)
        assert await one.query_value("SELECT count(*) FROM t", consistency="linearizable") == 50
        await nodes.members({1}, set())
        await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in (2, 3)))
        await nodes.members(set(ALL), set())
        assert {node.storage.meta.cluster_id.hex() for node in nodes.running.values()} == {done.new_cluster_id}  # type: ignore[union-attr]  # None fails the test
        await nodes.check_equal()
        for number in ALL:
            await nodes.stop(number)
        await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in ALL))
        await nodes.check_equal()


async def test_the_rest_of_the_old_cluster_does_not_mix_with_the_new_one(tmp_path: Path) -> None:
    """It was not lost after all: it goes on without the one that was recovered; both refuse each other."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        for number in ALL:
            await nodes.stop(number)
        await report(nodes, 1, write=True)
        await nodes.start(1, ALL, wait=True)
        await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in (2, 3)))
        await nodes.client(1).execute("INSERT INTO t VALUES ('new')")
        await nodes.client(2).execute("INSERT INTO t VALUES ('old')")
        await nodes.wait_until(lambda: nodes.running[2].network.refusals.counts["cluster"] > 0)
        await nodes.members({1}, set(), 1)
        await nodes.members(set(ALL), set(), 2, 3)
        assert await nodes.client(1).query_value("SELECT count(*) FROM t WHERE x = 'old'") == 0
        assert await nodes.client(3).query_value("SELECT count(*) FROM t WHERE x = 'new'") == 0
        await nodes.stop(2)  # its operator gives the old cluster up: empty, it joins the new one
        nodes.lose(2)
        await nodes.stop(3)
        await nodes.start(2, ALL, wait=True)
        await nodes.members({1, 2}, set())


async def test_two_survivors_that_are_both_recovered_are_two_clusters(tmp_path: Path) -> None:
    """Even from copies of one folder: neither takes anything from the other."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        for number in ALL:
            await nodes.stop(number)
        ids = {(await report(nodes, number, write=True)).new_cluster_id for number in (1, 2)}
        assert len(ids) == 2
        for number in (1, 2):
            await nodes.start(number, ALL, wait=True)
        await nodes.wait_until(lambda: nodes.running[1].network.refusals.counts["cluster"] > 0)
        await nodes.members({1}, set(), 1)
        await nodes.members({2}, set(), 2)


async def test_what_needs_no_recovery_is_not_recovered(tmp_path: Path) -> None:
    """The majority lives; a node is alone; a folder is in use, or nobody's. Nothing is written."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        with pytest.raises(hiqlite.DataFolderInUse):
            await report(nodes, 1, write=True)
        await nodes.stop(1)
        with pytest.raises(hiqlite.UsageError, match="majority of the voters lives"):
            await report(nodes, 1, write=True)
        await nodes.start(1, ALL, wait=True)
        await nodes.check_equal()
        with pytest.raises(hiqlite.UsageError, match="no cluster"):
            await recover(nodes.config(4, (1, 2, 3, 4)), write=True)
        await nodes.client(1).set_voters([1])
        await nodes.members({1}, set(), 1)
        await nodes.stop(1)
        with pytest.raises(hiqlite.UsageError, match="only voter"):
            await report(nodes, 1, write=True)


async def test_the_report_says_who_has_more(tmp_path: Path) -> None:
    """Of two survivors the one that was away for longer ends earlier; what is not known to be committed counts too."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        away = next(number for number in ALL if number != nodes.leader)
        await nodes.stop(away)
        leader = nodes.leader
        for number in range(20):
            await nodes.client(leader).execute("INSERT INTO t VALUES (?)", [number])
        other = next(number for number in ALL if number not in (away, leader))
        await nodes.stop(other)
        with pytest.raises(hiqlite.HiqliteError):  # it stands in the leader's log, and nobody else has it
            await nodes.client(leader).execute("INSERT INTO t VALUES ('uncertain')", timeout=0.3)
        await nodes.kill(leader)
        reports = {number: await report(nodes, number) for number in ALL}
        assert reports[away].last_index < reports[other].last_index < reports[leader].last_index
        assert reports[leader].uncertain > 0
        assert all(one.refusal == "" for one in reports.values())
        await report(nodes, leader, write=True)
        one = await nodes.start(leader, ALL, wait=True)
        assert await one.query_value("SELECT count(*) FROM t") == 50 + 20 + 1
