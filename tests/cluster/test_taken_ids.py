"""Two nodes with one id: a copy-pasted config, or a new instance that is started while the old one still runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiqlite.engine.change import members_of
from hiqlite.engine.model import Change, ChangeKind, Identity
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.node import Node
from hiqlite.testing import cluster
from tests.cluster.agreement import check_equal, same_index
from tests.cluster.growing import Growing, growing

GROUPS = (DB, CACHE)


async def twin_of(nodes: Growing, number: int, named: tuple[int, ...]) -> Node:
    """Another, empty node under that id, at an address of its own."""
    there = nodes.ports[number]
    nodes.move(number)
    config = nodes.config(number, named, data_dir=str(nodes.folder / "twin"))
    nodes.ports[number] = there
    return await Node.start(config, wait=False)


def identity(node: Node, group: int) -> Identity:
    return node.groups[group].storage.identity


async def test_an_empty_node_with_the_id_of_one_that_takes_part_is_not_let_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no node that lost its disk, though it says the same; the other one keeps its place and gets all writes."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.members({1, 2, 3}, set())
        await nodes.client(1).execute("CREATE TABLE t (x)")
        taken = next(number for number in (1, 2, 3) if number != nodes.leader)
        rest = tuple(number for number in (1, 2, 3) if number != taken)
        twin = await twin_of(nodes, taken, (1, 2, 3))
        try:
            networks = [nodes.running[number].network for number in rest]
            before = [network.epochs() for network in networks]
            await nodes.wait_until(lambda: all(network.refusals.counts["double"] > 3 for network in networks))
            assert [network.epochs() for network in networks] == before
            for number in range(200):
                await nodes.client(rest[number % 2]).execute("INSERT INTO t VALUES (?)", [number])
            for group in GROUPS:
                assert not twin.groups[group].group.started
                for number in rest:
                    members = members_of(nodes.running[number].groups[group].group.engine.membership)
                    assert identity(nodes.running[taken], group) in members and identity(twin, group) not in members
        finally:
            await twin.shutdown()
        assert f"a second node gives the id {taken}" in caplog.text
        await nodes.check_equal()
        assert await nodes.client(taken).query_value("SELECT count(*) FROM t") == 200


async def test_two_nodes_that_come_with_one_id_leave_the_cluster_whole(tmp_path: Path) -> None:
    """The other one came while the member was away: one of the two is it in the end, and nobody waits for the other."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.members({1, 2, 3}, set())
        await nodes.client(1).execute("CREATE TABLE t (x)")
        taken = next(number for number in (1, 2, 3) if number != nodes.leader)
        await nodes.stop(taken)
        nodes.move(taken)
        twin = await Node.start(nodes.config(taken, (1, 2, 3), data_dir=str(nodes.folder / "twin")), wait=False)
        try:
            networks = [nodes.running[number].network for number in (1, 2, 3) if number != taken]
            await nodes.wait_until(lambda: all(network.connected(taken) for network in networks))
            nodes.move(taken)
            await nodes.start(taken, (1, 2, 3))
            await nodes.members({1, 2, 3}, set(), *(number for number in (1, 2, 3) if number != taken))
        finally:
            await twin.shutdown()
        assert await nodes.client(nodes.leader).query_value("SELECT count(*) FROM t", consistency="linearizable") == 0


@pytest.mark.parametrize("group", GROUPS)
async def test_what_is_left_of_another_node_with_the_id_of_a_voter_is_cleared_away(group: int) -> None:
    """It had come in while the voter was cut off, and is gone: nothing would be sent to the voter ever again."""
    async with cluster(3) as three:
        await three.client.execute("CREATE TABLE t (x)")
        await same_index(list(three.nodes.values()))
        leading = next(node for node in three._running.values() if node.groups[group].group.leads)
        taken = next(number for number in three.nodes if number != leading.config.node_id)
        found = leading.groups[group].group
        stranger = Identity(taken, identity(three._running[taken], group).incarnation + 1)
        await found.change_members(Change(ChangeKind.ADD_LEARNER, (stranger,)), 10)
        await three.wait_until(
            lambda: all(
                one.groups[group].group.engine.membership.learners == ()
                and one.groups[group].group.applier.applied_index == found.engine.commit_index
                for one in three._running.values()
            )
        )
        assert identity(three._running[taken], group) in found.engine.membership.voters
        await check_equal(three)
