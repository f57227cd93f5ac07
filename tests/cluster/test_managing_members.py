"""Members that users change, from any node: each call happens, in both groups, or says why not."""

from __future__ import annotations

import asyncio

import pytest

import hiqlite
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, eventually

SETTINGS = {"wal_size": "256 KiB", "logs_until_snapshot": 200}


async def members(nodes: Cluster, voters: set[int], learners: set[int], among: set[int] | None = None) -> None:
    """All running nodes know these members, in both groups."""

    async def known() -> bool:
        for number in among or set(nodes.nodes):
            found = await nodes.nodes[number].metrics()
            for group in found.groups.values():
                if (set(group.members), set(group.learners)) != (voters, learners):
                    return False
        return True

    await eventually(known)


async def test_every_call_acts_from_every_node_and_twice_the_same_wish_is_no_harm() -> None:
    """Both groups follow before it returns; the second call changes nothing."""
    async with cluster(4, **SETTINGS) as four:
        await four.client.execute("CREATE TABLE t (x)")
        for number in four.nodes:
            one = next(other for other in four.followers if other != number)
            everybody = {1, 2, 3, 4}
            caller = four.nodes[number]
            for _ in range(2):
                await caller.demote(one)
                await members(four, everybody - {one}, {one})
            for _ in range(2):
                await caller.promote(one)
                await members(four, everybody, set())
            roles = {member.id: member.role for member in await caller.members()}
            assert roles == dict.fromkeys(everybody, "voter")
        await check_equal(four)


@pytest.mark.parametrize("caller", ["the leader", "another one"])
async def test_the_leader_can_be_removed_and_demoted(caller: str) -> None:
    """It hands over; the call returns, whoever made it; the one that was removed stops and says why."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        leader = three.leader
        asked = three.nodes[leader if caller == "the leader" else three.followers[0]]
        await asked.demote(leader)
        await members(three, {1, 2, 3} - {leader}, {leader})
        await three.wait_for_leader()
        leader = three.leader
        others = {1, 2, 3} - {leader}
        gone = three.nodes[leader]
        asked = gone if caller == "the leader" else three.nodes[min(others)]
        await asked.promote(min(others))
        await asked.promote(max(others))
        await asked.remove_member(leader)
        await asyncio.wait_for(gone.closed(), 20)
        with pytest.raises(hiqlite.ShuttingDown, match=f"node {leader} was removed"):
            await gone.execute("INSERT INTO t VALUES (1)")
        await three.stop(leader)
        await three.wait_for_leader()
        await members(three, others, set())
        await three.nodes[min(others)].remove_member(leader)  # it is gone: nothing more to do
        await check_equal(three)


async def test_wishes_that_make_no_sense_are_refused_at_once() -> None:
    """Whoever is asked; nothing changes."""
    async with cluster(3, **SETTINGS) as three:
        for one in three.nodes.values():
            for call in (
                one.promote(7), one.demote(7), one.remove_member(7), one.set_voters([1, 7]), one.set_voters([]),
                one.add_learner(4, "nowhere", "127.0.0.1:1"), one.add_learner(0, "127.0.0.1:1", "127.0.0.1:2"),
                one.replace_member(7, 8, "127.0.0.1:1", "127.0.0.1:2"),
                one.replace_member(1, 1, "127.0.0.1:1", "127.0.0.1:2"), one.transfer_leadership(7),
                one.transfer_leadership(group="third"), one.transfer_leadership(0), one.is_leader("third"),
                one.promote(1, timeout=-1),
            ):  # fmt: skip
                with pytest.raises(hiqlite.UsageError):
                    await asyncio.wait_for(call, 10)
        await members(three, {1, 2, 3}, set())


async def test_the_last_voter_stays() -> None:
    """Removed or demoted, a cluster would be nobody's."""
    async with cluster(2, **SETTINGS) as two:
        one = two.followers[0]
        await two.client.demote(one)
        last = two.leader
        for call in (two.nodes[one].remove_member(last), two.nodes[one].demote(last)):
            with pytest.raises(hiqlite.UsageError, match="last voter"):
                await asyncio.wait_for(call, 10)
        await members(two, {last}, {one})


async def test_leadership_goes_where_it_is_sent() -> None:
    """From any node, of one group or both; sent to who leads already it stays."""
    async with cluster(3, **SETTINGS) as three:
        for caller in (1, 2, 3):
            for to in (1, 2, 3):
                await three.nodes[caller].transfer_leadership(to)
                assert await three.nodes[to].is_leader() and await three.nodes[to].is_leader("cache")
                await three.wait_until(three.settled)
        before = three.leader
        await three.nodes[1].transfer_leadership(group="db")
        await three.wait_for_leader()
        assert three.leader != before
        await check_equal(three)


async def test_voters_are_set_in_one_step() -> None:
    """Learners come in, voters that are not named leave for good."""
    async with cluster(4, **SETTINGS) as four:
        await four.client.transfer_leadership(1)
        await four.nodes[2].demote(4)
        await four.nodes[3].set_voters([4, 1, 2])
        await four.stop(3)
        await members(four, {1, 2, 4}, set())
        await check_equal(four)


async def test_a_call_without_a_majority_ends_with_its_deadline() -> None:
    """It says what it waits for, and that it may happen yet."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.transfer_leadership(1)
        await three.kill(2)
        await three.kill(3)
        with pytest.raises(hiqlite.RequestTimeout) as late:
            await three.nodes[1].demote(2, timeout=0.5)
        assert late.value.outcome == "unknown"
        await three.start(2)
        await three.start(3)
        await three.wait_for_leader()
        await three.nodes[1].demote(2)
        await members(three, {1, 3}, {2})


async def test_wishes_of_many_nodes_at_once_are_all_fulfilled() -> None:
    """One after the other, in any order; none fails because another one came first."""
    async with cluster(5, **SETTINGS) as five:
        a, b = five.followers[:2]
        calls = [one.demote(number) for one in five.nodes.values() for number in (a, b)]
        await asyncio.wait_for(asyncio.gather(*calls), 60)
        await members(five, {1, 2, 3, 4, 5} - {a, b}, {a, b})
        await check_equal(five)


async def test_of_contrary_wishes_none_undoes_another_over_and_over() -> None:
    """Each is fulfilled at some moment, and the members change about as often as somebody wished."""
    async with cluster(3, cache=False, **SETTINGS) as three:
        one, number = three.followers
        leader, follower = three.client, three.nodes[one]
        before = (await leader.metrics()).db.last_log_index
        for _ in range(3):
            await asyncio.gather(
                leader.demote(number), follower.promote(number), leader.promote(number), follower.demote(number)
            )
        entries = (await leader.metrics()).db.last_log_index - before
        assert entries <= 2 * (3 * 4 * 2), entries  # two for a change; and some may be asked for again
        await leader.promote(number)
        await check_equal(three)
