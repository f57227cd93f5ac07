"""Networks that are cut, both ways or one way, and heal: `partition` and `heal` of the cluster for users' tests."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.testing import Cluster, cluster
from hiqlite.transport.session import LinkKind
from tests.cluster.agreement import check_equal, same_index

CREATE = "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)"
INSERT = "INSERT INTO t VALUES (?, ?)"
SHORT_LOGS = {"wal_size": "256 KiB", "logs_until_snapshot": 100}
SOON_S = 1.0  # for a call that is not to succeed


def role_of(running: Cluster, number: int, group: int = DB) -> str:
    return running._running[number].groups[group].group.engine.role.name


def term_of(running: Cluster, number: int) -> int:
    return int(running._running[number].group.engine.term)


async def leader_among(running: Cluster, numbers: list[int]) -> int:
    """The one of these that leads, once the others of them follow it."""

    def led() -> list[int]:
        leaders = {running._running[number].group.leader_id for number in numbers}
        return [number for number in leaders if number in numbers and len(leaders) == 1]

    await running.wait_until(lambda: led() != [])
    return led()[0]


async def applied(node: LocalClient) -> int:
    return (await node.metrics()).db.applied_index


async def test_a_leader_without_a_majority_steps_down_and_the_others_go_on() -> None:
    """In both groups, in a higher term; once healed it follows, and has what was written without it."""
    async with cluster(3) as three:
        await three.client.execute(CREATE)
        leader, others = three.leader, three.followers
        first = term_of(three, leader)
        await three.partition([leader], others)
        next_leader = await leader_among(three, others)
        assert (await three.nodes[others[0]].execute(INSERT, [1, "in the majority"])).rows_affected == 1
        await three.wait_until(lambda: role_of(three, leader) != "LEADER" and role_of(three, leader, CACHE) != "LEADER")
        assert term_of(three, next_leader) > first
        assert three.leader == next_leader
        await three.heal()
        await three.wait_until(three.settled)
        await check_equal(three)


async def test_a_minority_refuses_linearizable_reads_and_writes_and_serves_its_own_file() -> None:
    """Whoever was cut off may be out of date and does not pretend otherwise."""
    async with cluster(3) as three:
        await three.client.execute(CREATE)
        await three.client.execute(INSERT, [1, "before"])
        await same_index(list(three.nodes.values()))
        for alone in (three.leader, three.followers[0]):
            others = [number for number in three.nodes if number != alone]
            await three.partition([alone], others)
            await leader_among(three, others)
            with pytest.raises(hiqlite.ClusterError):
                await three.nodes[alone].query("SELECT * FROM t", consistency="linearizable", timeout=SOON_S)
            with pytest.raises(hiqlite.ClusterError) as failed:
                await three.nodes[alone].execute(INSERT, [2, "in the minority"], timeout=SOON_S)
            assert failed.value.outcome != "applied"
            assert await three.nodes[alone].query_value("SELECT body FROM t WHERE id = 1") == "before"
            await three.heal()
            await three.wait_until(three.settled)
        await check_equal(three)


async def test_a_leader_that_is_heard_by_nobody_is_replaced_though_it_hears_all() -> None:
    """One-way: it would lead for ever by what it hears if only its peers' answers counted for them."""
    async with cluster(3) as three:
        await three.client.execute(CREATE)
        leader, others = three.leader, three.followers
        await three.partition([leader], others, one_way=True)
        await leader_among(three, others)
        await three.nodes[others[0]].execute(INSERT, [1, "heard"])
        await three.wait_until(lambda: role_of(three, leader) != "LEADER")
        await three.heal()
        await three.wait_until(three.settled)
        await check_equal(three)


async def test_a_leader_that_hears_nobody_steps_down_though_all_hear_it() -> None:
    """One-way, the other direction: nothing can be committed by it, so it must not keep the others from electing."""
    async with cluster(3) as three:
        await three.client.execute(CREATE)
        leader, others = three.leader, three.followers
        await three.partition(others, [leader], one_way=True)
        await leader_among(three, others)
        await three.nodes[others[0]].execute(INSERT, [1, "without it"])
        assert role_of(three, leader) != "LEADER"
        await three.heal()
        await three.wait_until(three.settled)
        await check_equal(three)


async def test_a_follower_that_hears_no_leader_disturbs_nobody() -> None:
    """It asks for votes for ever, heard by all; the leader and its term stay, and it catches up when healed."""
    async with cluster(3, cache=False) as three:
        await three.client.execute(CREATE)
        leader, (deaf, other) = three.leader, three.followers
        term = term_of(three, leader)
        await same_index(list(three.nodes.values()))
        await three.partition([leader, other], [deaf], one_way=True)
        await three.wait_until(lambda: role_of(three, deaf) == "PRE_CANDIDATE")
        for number in range(50):
            await three.client.execute(INSERT, [number, "goes on"])
        assert (three.leader, term_of(three, leader)) == (leader, term)
        assert await three.nodes[deaf].query_value("SELECT count(*) FROM t") == 0
        await three.heal()
        await three.wait_until(three.settled)
        assert (three.leader, term_of(three, leader)) == (leader, term)
        await check_equal(three)
        assert await three.nodes[deaf].query_value("SELECT count(*) FROM t") == 50


async def test_a_node_that_is_started_while_it_is_cut_off_meets_nobody() -> None:
    """New connections are cut as those that stood: it finds no way around, though others told it their addresses."""
    async with cluster(3, cache=False) as three:
        await three.client.execute(CREATE)
        away = three.followers[0]
        others = [number for number in three.nodes if number != away]
        await same_index(list(three.nodes.values()))
        await three.partition([away], others)
        await three.kill(away)
        node = await three.start(away)
        await three.wait_until(lambda: three._running[away].group.started)
        for number in range(100):
            await three.client.execute(INSERT, [number, "without it"])
        network = three._running[away].network
        assert network is not None and network.epochs() == {} and three._running[away].group.leader_id == 0
        assert await node.query_value("SELECT count(*) FROM t") == 0
        await three.heal()
        await three.wait_until(three.settled)
        await check_equal(three)


async def test_an_image_on_its_way_is_cut_too_and_arrives_when_healed() -> None:
    """The bulk link is a link like the others."""
    async with cluster(3, cache=False, **SHORT_LOGS) as three:
        await three.client.execute(CREATE)
        away = three.followers[0]
        await three.stop(away)
        body = "x" * 100_000
        for number in range(300):
            await three.client.execute(INSERT, [number, body])
        leader = three.leader
        node = await three.start(away)
        network = three._running[leader].network
        assert network is not None
        await three.wait_until(lambda: LinkKind.BULK in network._peers[away].out)
        await three.partition([leader], [away])
        before = await applied(node)
        await three.wait_until(lambda: role_of(three, away) != "FOLLOWER" or three._running[away].group.leader_id == 0)
        assert await applied(node) == before < await applied(three.nodes[leader])
        await three.heal()
        await three.wait_until(three.settled)
        await check_equal(three)
        assert await node.query_value("SELECT count(*) FROM t") == 300


async def test_cuts_add_up_and_wrong_ones_are_refused() -> None:
    """Each cut holds until `heal`; ids that no node has, or one on both sides, are a mistake of the caller."""
    async with cluster(3, cache=False) as three:
        for one, other in (([1], [4]), ([1, 2], [2, 3]), ([0], [1])):
            with pytest.raises(hiqlite.UsageError):
                await three.partition(one, other)
        await three.partition([1], [2])
        await three.partition([2], [3])
        await three.partition([3], [1])
        await three.wait_until(lambda: three.leader == 0 and all(role_of(three, one) != "LEADER" for one in (1, 2, 3)))
        await three.heal()
        await three.wait_until(three.settled)
        await check_equal(three)


async def test_a_busy_callback_of_the_application_cuts_nothing() -> None:
    """What is on the wire travels beside the application's loop: nobody is deposed."""
    async with cluster(3, cache=False) as three:
        leader, term = three.leader, term_of(three, three.leader)
        for _ in range(3):
            await asyncio.sleep(0)
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                pass
        await three.client.execute(CREATE)
        assert (three.leader, term_of(three, leader)) == (leader, term)


async def test_nothing_of_the_relay_is_left_after_a_partition() -> None:
    """Also when the block ends while nodes are cut off from each other."""
    async with cluster(3, cache=False) as three:
        await three.partition([1], [2, 3])
        relay = three._relay._process
        assert relay.poll() is None
    assert relay.poll() is not None
    async with cluster(1, cache=False) as one:
        await one.client.execute(CREATE)


async def test_the_ports_of_a_node_that_is_down_are_given_to_nobody_else() -> None:
    """Neither to a dial nor to another cluster: it can be started again whatever was dialled meanwhile."""
    async with cluster(3, cache=False) as three:
        away = three.followers[0]
        await three.kill(away)
        for address in three.addresses[away]:
            host, port = address.rsplit(":", 1)
            with socket.socket() as dial, pytest.raises(OSError, match="in use"):
                dial.bind((host, int(port)))
        async with cluster(2, cache=False) as two:
            assert not {*sum(three.addresses.values(), ())} & {*sum(two.addresses.values(), ())}
        await three.start(away)
        await three.wait_until(three.settled)
        await check_equal(three)


async def test_a_busy_loop_does_not_slow_the_wires() -> None:
    """The relay is a process: as a thread beside the nodes it let a write a second through here."""
    async with cluster(3, cache=False) as three:
        await three.client.execute(CREATE)

        async def write() -> None:
            for number in range(200):
                await three.client.execute(INSERT, [number, "goes on"])

        writing = asyncio.create_task(write())
        while not writing.done():
            until = time.perf_counter() + 0.0003
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)
        await writing
