"""Writes that are sent again by the client itself: each happens once, whatever happens to leaders (semantics.md 6)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, everywhere
from tests.waiting import moment

COUNT = "UPDATE counter SET n = n + 1 WHERE id = 1 RETURNING n"
SETTINGS = {"cache": False, "wal_size": "1 MiB"}
LOAD_S = float(os.environ.get("LOAD_SECONDS", "20"))  # of the long test

NOTE = "INSERT INTO noted VALUES (?)"
NOTED = """
CREATE TABLE noted (id INTEGER PRIMARY KEY);
CREATE TRIGGER counted AFTER INSERT ON noted BEGIN UPDATE counter SET n = n + 1 WHERE id = 1; END;
"""
Write = Callable[[LocalClient, Sequence[int]], Awaitable[Any]]
WRITES: list[Write] = [  # of some ids at once
    lambda db, ids: db.execute(f"INSERT INTO noted VALUES {','.join('(?)' for _ in ids)}", ids, timeout=30),
    lambda db, ids: db.execute_many(NOTE, [(one,) for one in ids], timeout=30),
    lambda db, ids: db.execute_returning(f"INSERT INTO noted VALUES {','.join('(?)' for _ in ids)} RETURNING id", ids),
    lambda db, ids: db.txn([(NOTE, (one,)) for one in ids], timeout=30),
    lambda db, ids: batched(db, "; ".join(f"INSERT INTO noted VALUES ({one})" for one in ids)),
    lambda db, ids: db.execute(NOTE, ids[:1], request_id=str(ids[0]), timeout=30),
]


@pytest.fixture
async def three() -> AsyncIterator[Cluster]:
    async with cluster(3, **SETTINGS) as running:
        await running.client.execute("CREATE TABLE counter (id INTEGER PRIMARY KEY, n)")
        await running.client.execute("INSERT INTO counter VALUES (1, 0)")
        yield running


@dataclass
class Counters:
    """Tasks that add one, again and again, and what they were told."""

    acknowledged: list[int] = field(default_factory=list)  # the number that each one made
    unknown: int = 0
    stopping: bool = False

    def start(self, db: LocalClient, tasks: int = 4) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._count(db)) for _ in range(tasks)]

    async def _count(self, db: LocalClient) -> None:
        while not self.stopping:
            try:
                (row,) = await db.execute_returning(COUNT, timeout=30)
            except hiqlite.ShuttingDown as error:
                self.unknown += error.outcome == "unknown"
                return  # its node goes
            except hiqlite.HiqliteError as error:
                self.unknown += error.outcome == "unknown"
            else:
                self.acknowledged.append(row[0])


async def check(three: Cluster, counters: Counters) -> None:
    await check_equal(three)
    ((n,),) = (await everywhere(three, "SELECT n FROM counter"))[0]
    acknowledged = counters.acknowledged
    assert len(set(acknowledged)) == len(acknowledged), "two writes made the same number"
    assert len(acknowledged) <= n <= len(acknowledged) + counters.unknown


async def progress(counters: Counters, more: int = 50) -> None:
    wanted = len(counters.acknowledged) + more
    while len(counters.acknowledged) < wanted:
        await moment()


async def test_counters_are_exact_while_leadership_moves(three: Cluster) -> None:
    """Handed over, cut off, and given back: no caller of a living node is told anything but the number that he made."""
    chance = Random(7)
    counters = Counters()
    tasks = [task for db in three.nodes.values() for task in counters.start(db)]
    for turn in range(6):
        await progress(counters)
        leader = three.leader
        if turn % 2:
            await three.partition([leader], three.followers)
            await three.wait_until(lambda leader=leader: any(
                three.nodes[one]._group.leader_id not in (0, leader) for one in three.nodes if one != leader
            ))  # fmt: skip
            await progress(counters)
            await three.heal()
        else:
            await three.client.transfer_leadership(chance.choice(three.followers))
        await three.wait_for_leader()
    await progress(counters)
    counters.stopping = True
    await asyncio.gather(*tasks)
    assert counters.unknown == 0
    await check(three, counters)
    assert len(counters.acknowledged) == max(counters.acknowledged)


async def test_counters_are_exact_while_leaders_are_killed(three: Cluster) -> None:
    """Clients of the others go on by themselves; what a killed node's own clients asked may have happened once."""
    counters = Counters()
    tasks = [task for db in three.nodes.values() for task in counters.start(db)]
    for _ in range(4):
        await progress(counters)
        leader = three.leader
        await three.kill(leader)
        await progress(counters)
        tasks += counters.start(await three.start(leader))
    await progress(counters)
    counters.stopping = True
    await asyncio.gather(*tasks)
    await check(three, counters)


async def test_a_request_id_is_known_on_every_node_and_after_a_restart(three: Cluster) -> None:
    """Sent by hand through each node, before and after all of them were killed: one write, one answer."""
    insert = "INSERT INTO counter (n) VALUES (7) RETURNING id"
    rows = [await db.execute_returning(insert, request_id="once") for db in three.nodes.values()]
    for number in list(three.nodes):
        await three.kill(number)
    for number in (1, 2, 3):
        await three.start(number)
    rows += [await db.execute_returning(insert, request_id="once", timeout=30) for db in three.nodes.values()]
    assert [[tuple(row) for row in each] for each in rows] == [[(2,)]] * 6
    with pytest.raises(hiqlite.UsageError, match="request id 'once'"):
        await three.nodes[1].execute_returning("INSERT INTO counter (n) VALUES (8) RETURNING id", request_id="once")
    assert await everywhere(three, "SELECT count(*) FROM counter") == [[(2,)]] * 3
    await check_equal(three)


async def test_a_change_of_the_schema_is_given_its_first_answer_too(three: Cluster) -> None:
    """By every node: what it would be by the schema of now is not asked."""
    for _ in range(2):
        for db in three.nodes.values():
            assert (await db.execute("CREATE TABLE made (x)", request_id="made")).rows_affected == 0
    assert await three.client.batch("DROP TABLE made")
    for db in three.nodes.values():
        assert (await db.execute("CREATE TABLE made (x)", request_id="made")).rows_affected == 0
    assert await everywhere(three, "SELECT name FROM sqlite_schema WHERE name = 'made'") == [[]] * 3


async def test_a_migration_by_request_id_is_made_once_whoever_is_asked(three: Cluster) -> None:
    """Through each node, all at once and one after the other: each is told what the first one is."""
    files = {"1_made.sql": "CREATE TABLE made (x)", "2_filled.sql": "INSERT INTO made VALUES (1)"}
    first = await three.nodes[three.followers[0]].migrate({"1_made.sql": files["1_made.sql"]})
    assert first.applied == [1]
    reports = await asyncio.gather(*(db.migrate(files, request_id="made") for db in three.nodes.values()))
    reports += [await db.migrate(files, request_id="made") for db in three.nodes.values()]
    assert reports == [hiqlite.MigrationReport([2], [1])] * 6
    for db in three.nodes.values():
        with pytest.raises(hiqlite.UsageError, match="request id 'made' was given to another write"):
            await db.migrate({**files, "3_more.sql": "INSERT INTO made VALUES (2)"}, request_id="made")
    assert await everywhere(three, "SELECT x FROM made") == [[(1,)]] * 3
    await check_equal(three)


async def test_a_node_that_came_by_an_image_knows_what_was_answered() -> None:
    """It holds the sessions: whoever sends again through that node, once it leads, writes nothing a second time."""
    insert = "INSERT INTO counter (n) VALUES (7)"
    async with cluster(3, **{**SETTINGS, "wal_size": "256 KiB"}, logs_until_snapshot=200) as three:
        await three.client.execute("CREATE TABLE counter (id INTEGER PRIMARY KEY, n)")
        away = three.followers[0]
        await three.kill(away)
        first = await three.client.execute(insert, request_id="before the image")
        while (await three.client.metrics()).db.first_index <= first.log_index:
            await asyncio.gather(*(three.client.execute(insert) for _ in range(500)))
        db = await three.start(away)
        await db.transfer_leadership(away)
        assert await db.execute(insert, request_id="before the image") == first
        await check_equal(three)


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_who_stood_still_for_longer_than_a_session_lives_is_told(which: str) -> None:
    """As a process that was stopped: it goes on in a session that the group has forgotten. Nothing of that write
    happened, and the next one goes into a session of its own."""
    async with cluster(3, **SETTINGS, session_ttl=1.5) as three:
        await three.client.execute("CREATE TABLE counter (id INTEGER PRIMARY KEY, n)")
        number = three.leader if which == "leader" else three.followers[0]
        node, db, other = three._running[number], three.nodes[number], three.nodes[three.followers[1]]
        session = node.group.proposals.session
        session._terms = replace(session._terms, idle_ns=1 << 62)  # its own clock did not go on
        await db.execute("INSERT INTO counter VALUES (1, 0)")
        await three.wait_until(lambda: session.window.id > 0)
        await db.execute("INSERT INTO counter VALUES (2, 0)")
        used_ns = node.storage.db.writer.applied_group_time_ns
        while node.storage.db.writer.applied_group_time_ns < used_ns + 2_500_000_000:
            with contextlib.suppress(hiqlite.SessionExpired):  # on a machine that stood still itself
                await other.execute("INSERT OR REPLACE INTO counter VALUES (3, 0)")
        with pytest.raises(hiqlite.SessionExpired) as caught:
            await db.execute("INSERT INTO counter VALUES (4, 0)")
        assert caught.value.outcome == "not_applied" and caught.value.retryable
        assert (await db.execute("INSERT INTO counter VALUES (5, 0)")).rows_affected == 1
        assert [row[0] for row in await db.query("SELECT id FROM counter ORDER BY id")] == [1, 2, 3, 5]
        await check_equal(three)


# --------------------------------------------------------------------------- a row for each increment


async def batched(db: LocalClient, text: str) -> None:
    (await db.batch(text, timeout=30)).raise_for_error()


class Notes:
    """Tasks that write unique ids in every kind of write, each counted by a trigger; and what they were told."""

    def __init__(self) -> None:
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.unknown: list[tuple[int, ...]] = []  # the ids of each write
        self.stopping = False
        self._numbers = itertools.count(1)
        self._kinds = itertools.cycle(WRITES)

    def start(self, db: LocalClient, tasks: int = 3) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._note(db)) for _ in range(tasks)] + [asyncio.create_task(self._look(db))]

    async def _note(self, db: LocalClient) -> None:
        while not self.stopping:
            write, count = next(self._kinds), 1 + next(self._numbers) % 3
            ids = tuple(next(self._numbers) for _ in range(1 if write is WRITES[-1] else count))
            try:
                await write(db, ids)
            except hiqlite.HiqliteError as error:
                match error.outcome:
                    case "applied":
                        self.acknowledged.update(ids)
                    case "not_applied":
                        self.refused.update(ids)
                    case _:
                        self.unknown.append(ids)
                if isinstance(error, hiqlite.ShuttingDown):
                    return  # its node goes
            else:
                self.acknowledged.update(ids)

    async def _look(self, db: LocalClient) -> None:
        """Linearizable reads see all that was acknowledged before."""
        while not self.stopping:
            known = len(self.acknowledged)
            try:
                assert await db.query_value("SELECT n FROM counter", consistency="linearizable", timeout=30) >= known
            except hiqlite.ShuttingDown:
                return

    async def check(self, three: Cluster) -> None:
        """What was acknowledged is there, and of what is unknown each write whole or not at all; nothing else is."""
        await check_equal(three)
        there = {row[0] async for row in three.client.query_iter("SELECT id FROM noted")}
        happened = {one for ids in self.unknown if ids[0] in there for one in ids}
        assert there == self.acknowledged | happened
        assert not there & self.refused
        assert await everywhere(three, "SELECT n FROM counter") == [[(len(there),)]] * 3


@pytest.mark.long
@pytest.mark.timeout(LOAD_S + 120)
async def test_each_increment_has_its_row_while_leaders_are_killed(three: Cluster) -> None:
    """For LOAD_SECONDS: the counter is the number of rows, and these are what was acknowledged, and what happened of
    that which was reported unknown."""
    await batched(three.client, NOTED)
    notes = Notes()
    tasks = [task for db in three.nodes.values() for task in notes.start(db)]
    end, kills = time.monotonic() + LOAD_S, 0
    while time.monotonic() < end:
        await more(notes)
        leader = three.leader
        await three.kill(leader)
        kills += 1
        await three.wait_for_leader()
        await more(notes)
        tasks = [task for task in tasks if not task.done() or task.exception() is not None]
        tasks += notes.start(await three.start(leader))
        await three.wait_until(three.settled)
    await more(notes)
    notes.stopping = True
    await asyncio.gather(*tasks)
    await notes.check(three)
    assert kills > 2 and notes.unknown, "no kill has met a write"


async def more(notes: Notes, count: int = 300) -> None:
    """So many ids more are acknowledged than now."""
    wanted = len(notes.acknowledged) + count
    while len(notes.acknowledged) < wanted:
        await moment()
