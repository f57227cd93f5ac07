"""Nodes that come to a cluster that has formed: by themselves, by command, empty again after they lost their disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import hiqlite
from hiqlite.logstore.folder import DB
from tests.cluster.growing import growing


@pytest.mark.parametrize("asked", [1, 2, 3])
async def test_a_node_whose_config_and_theirs_name_it_joins_by_itself(tmp_path: Path, asked: int) -> None:
    """It learns, catches up, votes; one member whose config names it is enough, whoever leads."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        await nodes.stop(asked)
        await nodes.start(asked, (1, 2, 3, 4))
        four = await nodes.start(4, (asked, 4), wait=True)
        assert await four.query_value("SELECT count(*) FROM t") == 0
        await nodes.members({1, 2, 3, 4}, set())
        shown = {one.id: (one.raft_addr, one.api_addr) for one in await nodes.client(1).members()}
        assert shown == {number: nodes.addresses(number) for number in (1, 2, 3, 4)}
        await nodes.check_equal()
        for number in (1, 2, 3, 4):  # also those whose config does not name the fourth find it again
            await nodes.stop(number)
            await nodes.start(number, (1, 2, 3) if number < 4 else (asked, 4))
            await nodes.members({1, 2, 3, 4}, set())
        await nodes.check_equal()


async def test_a_node_that_only_its_own_config_names_is_let_in_by_command_only(tmp_path: Path) -> None:
    """As a learner, until it is promoted, also after a restart. Before that it waits."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        four = await nodes.start(4, (1, 2, 3, 4))
        with pytest.raises(hiqlite.RequestTimeout, match="node 5 has not been reached"):
            await nodes.client(1).add_learner(5, *nodes.addresses(5), timeout=3)
        await nodes.members({1, 2, 3}, set(), 1, 2, 3)
        assert not nodes.running[4].group.started
        await nodes.client(2).add_learner(4, *nodes.addresses(4))
        await nodes.members({1, 2, 3}, {4})
        await four.execute("INSERT INTO t VALUES (4)")
        await nodes.stop(4)
        await nodes.start(4, (1, 2, 3, 4), wait=True)
        await nodes.members({1, 2, 3}, {4})
        await nodes.client(4).promote(4)
        await nodes.members({1, 2, 3, 4}, set())
        await nodes.check_equal()


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("lost", ["a follower", "the leader"])
async def test_a_node_that_lost_its_disk_comes_back_as_another_one(tmp_path: Path, lost: str, on_disk: bool) -> None:
    """It learns and takes its own place; the members are the same afterwards, the data all there."""
    async with growing(tmp_path, cache_storage_disk=on_disk) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        await nodes.client(1).execute_many("INSERT INTO t VALUES (?)", [(number,) for number in range(100)])
        one = nodes.leader if lost == "the leader" else next(one for one in (1, 2, 3) if one != nodes.leader)
        before = nodes.running[one].groups[DB].group.identity
        await nodes.kill(one)
        nodes.lose(one)
        again = await nodes.start(one, (1, 2, 3), wait=True)
        after = nodes.running[one].groups[DB].group.identity
        await nodes.wait_until(lambda: all(
            after in node.group.engine.membership.voters and not node.group.engine.membership.joint
            for node in nodes.running.values()
        ))  # fmt: skip
        assert after != before
        await nodes.members({1, 2, 3}, set())
        assert await again.query_value("SELECT count(*) FROM t") == 100
        await nodes.check_equal()


async def test_a_node_that_comes_to_a_long_log_gets_an_image(tmp_path: Path) -> None:
    """What the others purged it is sent whole, then it follows and votes."""
    async with growing(tmp_path, logs_until_snapshot=50, cache=False) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        for number in range(400):
            await nodes.client(1).execute("INSERT INTO t VALUES (?)", [number])
        await nodes.wait_until(lambda: all(node.group.engine.base_index > 100 for node in nodes.running.values()))
        await nodes.stop(1)
        await nodes.start(1, (1, 2, 3, 4))
        four = await nodes.start(4, (1, 2, 3, 4), wait=True)
        await nodes.members({1, 2, 3, 4}, set())
        assert nodes.running[4].group.engine.base_index > 100
        assert await four.query_value("SELECT count(*) FROM t") == 400
        await nodes.check_equal()


async def test_a_joining_node_that_is_restarted_at_any_moment_votes_in_the_end(tmp_path: Path) -> None:
    """It goes on asking; what it was half way through is not begun anew as another one."""
    async with growing(tmp_path, logs_until_snapshot=50) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        await nodes.stop(1)
        await nodes.start(1, (1, 2, 3, 4))
        await nodes.start(4, (1, 2, 3, 4))
        for turns in (0, 20, 60, 200, 600):
            for _ in range(turns):
                await asyncio.sleep(0)
            await nodes.kill(4)
            await nodes.start(4, (1, 2, 3, 4))
        await nodes.members({1, 2, 3, 4}, set())
        await nodes.check_equal()


async def test_a_node_that_only_learns_founds_nothing_and_never_votes(tmp_path: Path) -> None:
    """At forming, when it joins later, when it comes back empty, and when a voter becomes one."""
    async with growing(tmp_path) as nodes:
        await asyncio.gather(
            *(nodes.start(number, (1, 2, 3), wait=True) for number in (1, 2)),
            nodes.start(3, (1, 2, 3), wait=True, learner_only=True),
        )
        await nodes.members({1, 2}, {3})
        await nodes.kill(3)
        nodes.lose(3)
        await nodes.start(3, (1, 2, 3), learner_only=True, wait=True)
        await nodes.members({1, 2}, {3})
        await nodes.check_equal()
        for number in (1, 2, 3):
            await nodes.wait_until(lambda number=number: 3 in nodes.running[number].members._never_vote)
            for call in (nodes.client(number).promote(3), nodes.client(number).set_voters([1, 3])):
                with pytest.raises(hiqlite.UsageError, match="node 3 never votes"):
                    await call
        await nodes.stop(3)
        await nodes.start(3, (1, 2, 3))
        await nodes.client(1).promote(3)
        await nodes.members({1, 2, 3}, set())
        await nodes.kill(3)
        nodes.lose(3)
        await nodes.start(3, (1, 2, 3), learner_only=True)
        await nodes.members({1, 2}, {3})
        await nodes.check_equal()


async def test_a_bare_path_grows_into_a_cluster(tmp_path: Path) -> None:
    """The same data under the same cluster id; the others join it, in both groups."""
    async with hiqlite.open(tmp_path / "node1", wal_size="256 KiB") as db:
        await db.execute("CREATE TABLE t (x)")
        await db.execute_many("INSERT INTO t VALUES (?)", [(number,) for number in range(50)])
        before = db._services.node.storage.meta.cluster_id
    async with growing(tmp_path) as nodes:
        two = await nodes.start(2, (1, 2, 3))
        await nodes.start(1, (1, 2, 3), wait=True)
        await nodes.start(3, (1, 2, 3), wait=True)
        await nodes.members({1, 2, 3}, set())
        assert await two.query_value("SELECT count(*) FROM t") == 50
        assert {node.storage.meta.cluster_id for node in nodes.running.values()} == {before}
        await nodes.check_equal()
        await nodes.kill(1)
        await nodes.wait_until(lambda: nodes.leader)
        await nodes.check_equal()


async def test_a_member_opened_by_its_bare_path_says_whom_it_misses(tmp_path: Path) -> None:
    """It cannot reach the others and would wait for ever; nothing is changed by the attempt."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.stop(2)
        for wait in (True, False):
            with pytest.raises(hiqlite.ConfigError, match="1, 2, 3"):
                await asyncio.wait_for(hiqlite.open(tmp_path / "node2", node_id=2, wait=wait)._open(), 20)
        await nodes.start(2, (1, 2, 3), wait=True)
        await nodes.check_equal()


async def test_a_member_can_be_replaced_by_another_node(tmp_path: Path) -> None:
    """Also one that is dead; in one step once the new one has caught up. The old one is out for good."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        await nodes.kill(3)
        await nodes.start(4, (1, 2, 4))
        for _ in range(2):
            await nodes.client(2).replace_member(3, 4, *nodes.addresses(4))
            await nodes.members({1, 2, 4}, set())
        await nodes.start(3, (1, 2, 3))
        await nodes.check_removed(3)
        await nodes.stop(3)
        await nodes.check_equal()


async def test_a_learner_is_replaced_by_a_learner(tmp_path: Path) -> None:
    """The role goes with the place."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).demote(3)
        await nodes.start(4, (1, 2, 4))
        await nodes.client(3).replace_member(3, 4, *nodes.addresses(4), timeout=20)
        await nodes.stop(3)
        await nodes.members({1, 2}, {4})
        await nodes.check_equal()


async def test_nodes_of_two_clusters_do_not_mix(tmp_path: Path) -> None:
    """A folder of one cluster whose config names members of the other: it is refused, both live on."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2)
        await nodes.form(3, 4)
        await nodes.stop(4)
        await nodes.stop(1)
        await nodes.start(1, (1, 2, 4))
        await nodes.start(4, (1, 2, 4))
        await nodes.wait_until(lambda: nodes.running[4].network.refusals.counts["cluster"] > 0)
        await nodes.members({1, 2}, set(), 1, 2)
        with pytest.raises(hiqlite.RequestTimeout, match=r"node 4 has not been reached: .*another cluster"):
            await nodes.client(1).add_learner(4, *nodes.addresses(4), timeout=3)
        with pytest.raises(hiqlite.RequestTimeout, match=r"node 5 has not been reached: .*another node answers"):
            await nodes.client(1).add_learner(5, *nodes.addresses(4), timeout=3)
        await nodes.members({1, 2}, set(), 1, 2)
        await nodes.stop(4)
        await nodes.start(4, (3, 4))
        await nodes.members({3, 4}, set(), 3, 4)


async def test_a_disk_lost_while_the_cache_group_forms_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The set that the others had recorded names who is gone: they give it up, and another one forms."""
    for turns in (0, 3, 10, 30, 100):
        async with growing(tmp_path / str(turns)) as nodes:
            await nodes.form(1, 2, 3)  # returns when the database's group is there
            for _ in range(turns):
                await asyncio.sleep(0)
            one = next(number for number in (1, 2, 3) if number != nodes.leader)
            await nodes.kill(one)
            nodes.lose(one)
            await nodes.start(one, (1, 2, 3), wait=True)
            await nodes.members({1, 2, 3}, set())
            await nodes.check_equal()
