"""Members that change while writes go on, on real nodes: nobody loses a write, and a restart knows who is in."""

from __future__ import annotations

import asyncio

import pytest

from hiqlite.engine.model import Change, ChangeKind, Identity, Membership
from hiqlite.errors import NotLeader, UsageError
from hiqlite.runtime.group import Group
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, eventually

SETTINGS = {"cache": False, "wal_size": "256 KiB", "logs_until_snapshot": 200}


def group(three: Cluster, number: int) -> Group:
    return three._running[number].group


def identity(three: Cluster, number: int) -> Identity:
    return group(three, number).identity


async def change(three: Cluster, kind: ChangeKind, *numbers: int) -> Membership:
    members = tuple(identity(three, number) for number in numbers)
    return await group(three, three.leader).change_members(Change(kind, members), 10.0)


async def members(three: Cluster, voters: set[int], learners: set[int], nodes: tuple[int, ...] = (1, 2, 3)) -> None:
    """All of `nodes` know these members."""

    async def known() -> bool:
        found = [(await three.nodes[number].metrics()).db for number in nodes]
        return all((set(one.members), set(one.learners)) == (voters, learners) for one in found)

    await eventually(known)


async def load(three: Cluster, stop: asyncio.Event) -> int:
    """Writes one by one until it is told to stop; how many were acknowledged."""
    count = 0
    while not stop.is_set():
        await three.nodes[1].execute("INSERT INTO t VALUES (?)", [count])
        count += 1
    return count


async def test_a_voter_becomes_a_learner_and_a_voter_again_under_load() -> None:
    """No write fails, all nodes know the members, also after each was restarted and its log purged."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        stop = asyncio.Event()
        writing = asyncio.create_task(load(three, stop))
        one = three.followers[0]
        others = {1, 2, 3} - {one}
        found = await change(three, ChangeKind.DEMOTE, one)
        assert not found.joint and {member.id for member in found.voters} == others
        await members(three, others, {one})
        await change(three, ChangeKind.PROMOTE, one)
        await members(three, {1, 2, 3}, set())
        await change(three, ChangeKind.DEMOTE, one)
        before = group(three, three.leader).engine.last_index

        async def purged() -> bool:
            return all([(await node.metrics()).db.first_index > before for node in three.nodes.values()])

        await eventually(purged)
        stop.set()
        count = await writing
        for number in (1, 2, 3):
            await three.stop(number)
            await three.start(number)
            await three.wait_until(three.settled)
        await members(three, others, {one})
        assert await three.client.query_value("SELECT count(*) FROM t") == count
        await check_equal(three)


async def test_a_leader_that_leaves_hands_over_and_rests() -> None:
    """The others go on without it; it keeps what it has and disturbs nobody."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        leader = three.leader
        others = {1, 2, 3} - {leader}
        await change(three, ChangeKind.REMOVE, leader)
        await three.wait_until(lambda: three.leader in others)
        await members(three, others, set(), tuple(others))
        term = group(three, three.leader).engine.term
        await three.client.execute("INSERT INTO t VALUES (1)")
        await three.stop(leader)
        await three.start(leader)
        await three.client.execute("INSERT INTO t VALUES (2)")
        assert group(three, three.leader).engine.term == term


async def test_changes_that_make_no_sense_are_refused() -> None:
    """A typed error each, and nothing changes."""
    async with cluster(3, **SETTINGS) as three:
        leader = three.leader
        follower = three.followers[0]
        with pytest.raises(NotLeader):
            await group(three, follower).change_members(Change(ChangeKind.DEMOTE, (identity(three, leader),)), 1.0)
        for kind in (ChangeKind.PROMOTE, ChangeKind.ADD_LEARNER):
            with pytest.raises(UsageError):
                await change(three, kind, follower)
        with pytest.raises(UsageError):
            await group(three, leader).change_members(Change(ChangeKind.REMOVE, (Identity(7, 7),)), 1.0)
        await members(three, {1, 2, 3}, set())


async def test_a_shutdown_hands_leadership_over() -> None:
    """The next leader is there at once: no election timeout passes, and it leads in the very next term."""
    async with cluster(3, **SETTINGS, election_timeout_ms="20000-30000", raft_stall_ms=60000) as three:
        for _ in range(3):
            leader = three.leader
            term = group(three, leader).engine.term
            await three.stop(leader)
            await three.wait_until(lambda old=leader: three.leader not in (0, old), 10)  # the other one hears of it
            assert group(three, three.leader).engine.term == term + 1
            await three.client.execute("CREATE TABLE IF NOT EXISTS t (x)")
            await three.start(leader)
            await three.wait_until(three.settled)


async def test_changes_that_are_asked_for_together_come_one_after_the_other() -> None:
    """Each returns its own end, though the first is hardly applied when the second is possible."""
    async with cluster(5, cache=False) as five:
        leader = group(five, five.leader)
        changes = [Change(ChangeKind.DEMOTE, (identity(five, number),)) for number in five.followers[:2]]
        found = await asyncio.gather(*(leader.change_members(change, 10.0) for change in changes))
        assert [len(one.voters) for one in found] == [4, 3]
        assert leader.engine.membership == found[1]
