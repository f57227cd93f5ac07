"""Two groups on one set of nodes: each with its own leader and log, and one membership for both."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import hiqlite
from hiqlite._accel.batch import Op
from hiqlite._accel.records import EntryKind, RecordKind, encode_record
from hiqlite.engine.model import Change, ChangeKind, Identity, Membership
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.node import Node
from hiqlite.runtime.mirror_record import Mirrored
from hiqlite.testing import Cluster, cluster
from hiqlite.transport.loopback import loopback_cluster
from tests.cluster.agreement import eventually

SETTINGS = {"wal_size": "256 KiB", "logs_until_snapshot": 100}


def node(three: Cluster, number: int) -> Node:
    return three._running[number]


def leader_of(three: Cluster, group: int) -> Node:
    return next(one for one in three._running.values() if one.groups[group].group.leads)


def members_of(one: Node, group: int) -> Membership:
    return one.groups[group].group.engine.membership


def members_of_started(one: Node) -> tuple[Identity, ...]:
    """Who votes in the cache group as this node knows it; nobody while it is not in it."""
    return members_of(one, CACHE).voters if one.groups[CACHE].group.started else ()


def roles_of(membership: Membership) -> tuple[set[int], set[int]]:
    """Ids of voters and learners; a joint configuration is none of what tests wait for."""
    if membership.joint:
        return set(), set()
    return {one.id for one in membership.voters}, {one.id for one in membership.learners}


async def settled(three: Cluster, voters: set[int], learners: set[int]) -> None:
    """All nodes that run know these members, in both groups."""

    async def known() -> bool:
        groups = [one.groups[group].group for one in three._running.values() for group in (DB, CACHE)]
        found = [roles_of(group.engine.membership) for group in groups if group.started]
        if len(found) < len(groups):
            return False
        return all(roles == (voters, learners) for roles in found)

    await eventually(known)


async def change(three: Cluster, kind: ChangeKind, *numbers: int) -> None:
    members = tuple(node(three, number).groups[DB].group.identity for number in numbers)
    await leader_of(three, DB).change_members(Change(kind, members), 20.0)


async def cache_entries(three: Cluster, count: int) -> None:
    """Entries in the cache group's log that change nothing: lists older than any that counts."""
    group = leader_of(three, CACHE).groups[CACHE].group
    record = Mirrored(0, (1, 2, 3), ()).record()
    for _ in range(count):
        op = Op(group._loop, lambda answer, index, detail: index, None, group.clock.monotonic_ns() + int(20e9))
        group.write(record, op)
        await op


async def test_each_group_has_its_leader_and_says_so() -> None:
    """Metrics of both; the identities differ from group to group; writes are the database's business alone."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        for one in three.nodes.values():
            metrics = await one.metrics()
            assert metrics.cache.members == metrics.db.members == (1, 2, 3)
            assert metrics.cache.leader_id in (1, 2, 3)
        one = node(three, 1)
        assert one.groups[DB].group.identity.incarnation != one.groups[CACHE].group.identity.incarnation


async def test_a_change_of_members_acts_on_both_groups() -> None:
    """The call returns when both have it; a later one takes its place, and nodes that come back know it."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        one = next(number for number in three.followers if not node(three, number).groups[CACHE].group.leads)
        others = {1, 2, 3} - {one}
        await change(three, ChangeKind.DEMOTE, one)
        assert roles_of(members_of(leader_of(three, CACHE), CACHE)) == (others, {one})
        await settled(three, others, {one})
        await change(three, ChangeKind.PROMOTE, one)
        await settled(three, {1, 2, 3}, set())
        await change(three, ChangeKind.REMOVE, one)
        assert roles_of(members_of(leader_of(three, CACHE), CACHE)) == (others, set())
        await three.stop(one)
        for number in sorted(others):
            await three.stop(number)
            await three.start(number)
            await three.wait_until(three.settled)
        for number in others:
            assert roles_of(members_of(node(three, number), CACHE)) == (others, set())


async def test_the_leader_of_the_cache_group_can_be_removed() -> None:
    """It carries the change out to its end, and somebody else leads."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        one = leader_of(three, CACHE).config.node_id
        others = {1, 2, 3} - {one}
        await change(three, ChangeKind.REMOVE, one)

        async def moved() -> bool:
            return any(node(three, number).groups[CACHE].group.leads for number in others)

        await eventually(moved)
        assert roles_of(members_of(leader_of(three, CACHE), CACHE)) == (others, set())


async def test_an_older_list_of_members_changes_nothing() -> None:
    """Whoever sends it: the list that counts is the newest, on every node and after a restart."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        one = three.followers[0]
        await change(three, ChangeKind.DEMOTE, one)
        group = leader_of(three, CACHE).groups[CACHE].group
        state = leader_of(three, CACHE).storage.cache.cache.state
        for index in (state.mirrored_index, state.mirrored_index - 1, 0):
            op = Op(group._loop, lambda answer, index, detail: index, None, group.clock.monotonic_ns() + int(20e9))
            group.write(Mirrored(index, (1, 2, 3), ()).record(), op)
            await op
        found = leader_of(three, CACHE).storage.cache.cache.state
        assert (found.mirrored_index, found.mirrored) == (state.mirrored_index, state.mirrored)
        await settled(three, {1, 2, 3} - {one}, {one})


async def test_a_peer_cannot_have_a_list_written_that_nobody_can_read() -> None:
    """Once in the log it would count as the newest for ever, and no change of members would be mirrored again."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        leader = leader_of(three, CACHE)
        before = leader.storage.cache.cache.state
        group = next(one for one in three._running.values() if one is not leader).groups[CACHE].group
        for payload in (b"", b"\xff" * 7, b"\xff" * 9, (1 << 62).to_bytes(8, "little") + b"\x92\x90\x90",
                        (1 << 63).to_bytes(8, "little") + b"\x92\x91\x01\x90"):  # fmt: skip
            op = Op(group._loop, lambda answer, index, detail: index, None, group.clock.monotonic_ns() + int(20e9))
            group.write(encode_record(RecordKind.ENTRY, EntryKind.MIRROR, payload), op)
            with pytest.raises(hiqlite.HiqliteError):
                await op
        assert leader.storage.cache.cache.state.mirrored_index == before.mirrored_index


async def test_the_cache_groups_log_is_purged_and_a_node_that_was_away_gets_an_image() -> None:
    """Behind a durable state; the image goes over the same bulk link as a database would."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        away = next(number for number in three.nodes if number != leader_of(three, CACHE).config.node_id)
        await three.kill(away)
        await three.wait_until(three.settled)
        await cache_entries(three, 450)

        async def purged() -> bool:
            return all([(await one.metrics()).cache.first_index > 200 for one in three.nodes.values()])

        await eventually(purged)
        last = leader_of(three, CACHE).groups[CACHE].group.engine.commit_index
        await three.start(away)
        await three.wait_until(lambda: node(three, away).groups[CACHE].group.applier.applied_index >= last)
        assert node(three, away).groups[CACHE].group.engine.base_index > 200
        state = node(three, away).storage.cache.cache.state
        assert state.applied_index >= last
        await three.kill(away)
        await three.start(away)  # from what it keeps itself
        await three.wait_until(lambda: node(three, away).groups[CACHE].group.applier.applied_index >= last)


async def test_a_node_that_lost_its_disk_is_let_in_before_the_cache_group_follows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That group can replace it only once it is in it: its answer waits for nothing that waits for the answer."""
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        await settled(three, {1, 2, 3}, set())
        lost = next(number for number in three.nodes if number != leader_of(three, DB).config.node_id)
        folder = node(three, lost).config.data_path
        await three.kill(lost)
        shutil.rmtree(folder)
        with caplog.at_level(logging.DEBUG, "hiqlite"):
            await three.start(lost)
            await settled(three, {1, 2, 3}, set())
        assert f"node {lost}: not done in time" not in caplog.text


@pytest.mark.parametrize("killed", ["follower", "leader"])
async def test_in_memory_only_a_node_that_comes_back_is_another_one_and_becomes_a_voter_again(killed: str) -> None:
    """It forgot what it promised: the old incarnation never votes again, the new one learns, then takes the place."""
    async with cluster(3, cache_storage_disk=False, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        await cache_entries(three, 30)
        leader = leader_of(three, CACHE).config.node_id
        one = leader if killed == "leader" else next(number for number in three.nodes if number != leader)
        before: Identity = node(three, one).groups[CACHE].group.identity
        await three.kill(one)
        await three.start(one)
        after: Identity = node(three, one).groups[CACHE].group.identity
        assert after.incarnation != before.incarnation

        async def replaced() -> bool:
            found = [members_of(other, CACHE) for other in three._running.values() if other.groups[CACHE].group.started]
            return len(found) == 3 and all(after in found.voters and not found.joint for found in found)

        await eventually(replaced)
        await settled(three, {1, 2, 3}, set())
        last = leader_of(three, CACHE).groups[CACHE].group.engine.commit_index
        await three.wait_until(lambda: node(three, one).groups[CACHE].group.applier.applied_index >= last)


async def test_a_group_that_is_switched_on_later_forms_then(tmp_path: Path) -> None:
    """A single node, and its data of before; switched off again it is not there."""
    async with hiqlite.open(tmp_path / "data", cache=False, wal_size="1 MiB") as db:
        await db.execute("CREATE TABLE t (x)")
        assert list((await db.metrics()).groups) == ["db"]
    async with hiqlite.open(tmp_path / "data", wal_size="1 MiB") as db:
        await db.execute("INSERT INTO t VALUES (1)")

        async def leads() -> bool:
            return (await db.metrics()).cache.role == "leader"

        await eventually(leads)
        metrics = await db.metrics()
        assert (metrics.cache.role, metrics.db.role, metrics.cache.members) == ("leader", "leader", (1,))
    async with hiqlite.open(tmp_path / "data", cache=False, wal_size="1 MiB") as db:
        assert list((await db.metrics()).groups) == ["db"]
        assert await db.query_value("SELECT count(*) FROM t") == 1


async def test_switching_between_disk_and_memory_begins_a_new_incarnation(tmp_path: Path) -> None:
    """What the other kind of log had promised cannot be looked up any more."""
    lives = []
    for on_disk in (True, True, False, False, True):
        async with hiqlite.open(tmp_path / "data", cache_storage_disk=on_disk, wal_size="1 MiB") as db:
            lives.append(db._services.node.groups[CACHE].group.identity.incarnation)
            assert (tmp_path / "data" / "log" / "cache").exists() is on_disk
    assert lives[0] == lives[1] and len(set(lives)) == 4


@pytest.mark.parametrize("survivors", [1, 0])
async def test_a_group_in_memory_that_lost_its_majority_begins_anew_behind_all_it_had(survivors: int) -> None:
    """Who survived gives up what it had, all form again, and no index comes a second time."""
    async with cluster(3, cache_storage_disk=False, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (x)")
        await cache_entries(three, 30)
        last = leader_of(three, CACHE).groups[CACHE].group.engine.last_index
        before = {number: node(three, number).groups[CACHE].group.identity for number in three.nodes}
        gone = sorted(three.nodes)[survivors:]
        for number in gone:
            await three.kill(number)
        for number in gone:
            await three.start(number)
        await three.wait_until(three.settled)
        await three.wait_until(lambda: all(
            one.groups[CACHE].group.started and one.groups[CACHE].group.identity != before[number]
            and one.groups[CACHE].group.applier.applied_index > last
            for number, one in three._running.items()
        ))  # fmt: skip
        await settled(three, {1, 2, 3}, set())
        assert leader_of(three, CACHE).groups[CACHE].group.engine.base_index > last
        await cache_entries(three, 5)
        one = three.followers[0]  # the members of the database are those of the group that began anew
        await change(three, ChangeKind.DEMOTE, one)
        await settled(three, {1, 2, 3} - {one}, {one})


async def test_a_cache_group_that_cannot_form_keeps_nobody_from_the_database(tmp_path: Path) -> None:
    """One node has it switched off: the others wait for it there, and write and read all the same."""
    configs = loopback_cluster(tmp_path, 3, {"wal_size": "256 KiB"})
    configs[3]["cache"] = False
    async with AsyncExitStack() as stack:
        opened = [stack.enter_async_context(hiqlite.open(configs[number])) for number in (1, 2, 3)]
        one, two, three = await asyncio.wait_for(asyncio.gather(*opened), 60)
        await two.execute("CREATE TABLE t (x)")
        assert await three.query("SELECT count(*) FROM t", consistency="linearizable") == [(0,)]
        assert (await one.metrics()).cache.role == "forming"


@pytest.mark.parametrize("size", [3, 5])
async def test_nodes_restarted_one_after_the_other_keep_a_group_in_memory(size: int) -> None:
    """Each has become a voter again before the next one goes: they end with the group that they began with."""
    async with cluster(size, cache_storage_disk=False, **SETTINGS) as nodes:
        await nodes.client.execute("CREATE TABLE t (x)")
        await cache_entries(nodes, 10)
        begun = leader_of(nodes, CACHE).groups[CACHE].group.engine.last_index
        everybody = set(nodes.nodes)
        for number in sorted(everybody):
            before = node(nodes, number).groups[CACHE].group.identity
            await nodes.stop(number)
            await nodes.start(number)

            async def replaced(number: int = number, before: Identity = before) -> bool:
                voters = {one for each in nodes._running.values() for one in members_of_started(each)}
                return before not in voters and node(nodes, number).groups[CACHE].group.identity in voters

            await eventually(replaced)
            await settled(nodes, everybody, set())
            await nodes.wait_until(nodes.settled)
        await cache_entries(nodes, 5)
        last = leader_of(nodes, CACHE).groups[CACHE].group.engine.last_index
        assert begun < last < begun + 1000  # a group that begins anew is millions of indexes further


async def test_a_minority_that_forgets_at_once_costs_nothing() -> None:
    """Two of five come back as others while the leader stays: both are replaced, the group goes on."""
    async with cluster(5, cache_storage_disk=False, **SETTINGS) as five:
        await five.client.execute("CREATE TABLE t (x)")
        await cache_entries(five, 10)
        leader = leader_of(five, CACHE)
        begun = leader.groups[CACHE].group.engine.last_index
        two = [number for number in five.nodes if number != leader.config.node_id][:2]
        before = {node(five, number).groups[CACHE].group.identity for number in two}
        await asyncio.gather(*(five.kill(number) for number in two))
        await asyncio.gather(*(five.start(number) for number in two))

        async def replaced() -> bool:
            return all(not before & set(members_of_started(one)) for one in five._running.values())

        await eventually(replaced)
        await settled(five, {1, 2, 3, 4, 5}, set())
        assert begun < leader_of(five, CACHE).groups[CACHE].group.engine.last_index < begun + 1000


async def test_a_node_that_ends_while_its_cache_group_begins_anew_leaves_nothing() -> None:
    """At any moment of it: threads, tasks and files are gone, and the node starts again."""
    for turns in (0, 1, 3, 10, 30, 100):
        threads = set(threading.enumerate())
        async with cluster(3, cache_storage_disk=False, **SETTINGS) as three:
            await three.client.execute("CREATE TABLE t (x)")
            for number in (2, 3):
                await three.kill(number)
            for number in (2, 3):
                await three.start(number)
            one = node(three, 1)
            first = one.groups[CACHE]
            await three.wait_until(lambda one=one, first=first: first.is_over or one.groups[CACHE] is not first)
            for _ in range(turns):
                await asyncio.sleep(0)
            await three.stop(1)
            await three.start(1)
            await three.wait_until(three.settled)
        assert set(threading.enumerate()) <= threads
