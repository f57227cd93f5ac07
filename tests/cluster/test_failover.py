"""Leaders that go, nodes that come back: what callers are told, what is kept, and what is left behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, eventually, everywhere, same_index
from tests.cluster.traces import Traces

NODES = (1, 2, 3)
CREATE = "CREATE TABLE load (id INTEGER PRIMARY KEY, node INTEGER)"
INSERT = "INSERT INTO load VALUES (?, ?)"
SETTINGS = {"cache": False, "wal_size": "8 MiB"}


@pytest.fixture
async def three() -> AsyncIterator[Cluster]:
    async with cluster(3, **SETTINGS) as running:
        await running.client.execute(CREATE)
        yield running


@dataclass
class Load:
    """Closed-loop tasks that write unique ids through one node, and what each was told."""

    db: LocalClient
    node: int
    timeout: float = 10.0
    acknowledged: dict[int, int] = field(default_factory=dict)  # id -> log index
    not_applied: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    errors: list[hiqlite.HiqliteError] = field(default_factory=list)
    stopping: bool = False

    def start(self, numbers: itertools.count[int], tasks: int = 8) -> None:
        self.tasks = [asyncio.create_task(self._work(numbers)) for _ in range(tasks)]

    async def _work(self, numbers: itertools.count[int]) -> None:
        while not self.stopping:
            number = next(numbers)
            try:
                result = await self.db.execute(INSERT, [number, self.node], timeout=self.timeout)
            except hiqlite.HiqliteError as error:
                assert error.outcome in ("not_applied", "unknown", "applied"), error
                self.errors.append(error)
                {"not_applied": self.not_applied, "unknown": self.unknown, "applied": set()}[error.outcome].add(number)
                if isinstance(error, hiqlite.ShuttingDown):
                    return
                await asyncio.sleep(0)
            else:
                assert (result.rows_affected, result.last_insert_rowid) == (1, number)
                self.acknowledged[number] = result.log_index

    async def end(self) -> None:
        self.stopping = True
        await asyncio.gather(*self.tasks)


async def check(three: Cluster, loads: list[Load]) -> None:
    """What was acknowledged is there, what was not applied is not, everywhere the same."""
    await check_equal(three)
    for rows in await everywhere(three, "SELECT id FROM load"):
        there = {row[0] for row in rows}
        assert len(there) == len(rows)
        known = set()
        for load in loads:
            assert load.acknowledged.keys() <= there
            assert not load.not_applied & there
            known |= load.acknowledged.keys() | load.unknown
            indexes = list(load.acknowledged.values())
            assert len(set(indexes)) == len(indexes)
        assert there <= known


async def written(loads: list[Load], more: int) -> None:
    """Each load has `more` acknowledged writes more than now."""
    wanted = [len(load.acknowledged) + more for load in loads]

    async def enough() -> bool:
        return all(len(load.acknowledged) >= count for load, count in zip(loads, wanted, strict=True))

    await eventually(enough)


def begin(three: Cluster, numbers: itertools.count[int], *nodes: int, timeout: float = 10.0) -> list[Load]:
    loads = [Load(three.nodes[number], number, timeout) for number in nodes or NODES]
    for load in loads:
        load.start(numbers)
    return loads


# --------------------------------------------------------------------------- the leader goes


async def test_a_killed_leader_costs_no_acknowledged_write(three: Cluster):
    """Load through all nodes, twice over: whoever writes through a survivor is told nothing but success."""
    numbers, loads = itertools.count(1), []
    for _ in range(2):
        leader, followers = three.leader, three.followers
        loads += (round_loads := begin(three, numbers))
        await written(round_loads, 50)
        await three.kill(leader)
        await three.wait_for_leader()
        survivors = [load for load in round_loads if load.node in followers]
        await written(survivors, 50)
        for load in round_loads:
            await load.end()
        assert [error for load in survivors for error in load.errors] == [], "a session sends it to the next leader"
        (own,) = (load for load in round_loads if load.node == leader)
        assert {type(error) for error in own.errors} == {hiqlite.ShuttingDown}
        await three.start(leader)
        await check(three, loads)


async def test_a_leader_that_stops_cleanly_costs_its_followers_nothing(three: Cluster):
    """Its own callers are told that it shuts down; writes through the others all succeed."""
    numbers = itertools.count(1)
    leader, followers = three.leader, three.followers
    loads = begin(three, numbers)
    await written(loads, 50)
    await three.stop(leader)
    survivors = [load for load in loads if load.node in followers]
    await written(survivors, 50)
    for load in loads:
        await load.end()
    own = next(load for load in loads if load.node == leader)
    assert {(type(error), error.outcome) for error in own.errors} == {(hiqlite.ShuttingDown, "not_applied")}
    assert [error for load in survivors for error in load.errors] == []
    await three.start(leader)
    await check(three, loads)


async def test_each_node_may_be_restarted_under_load(three: Cluster):
    """One after the other: every write through a node that stays is answered, nothing is lost or doubled."""
    numbers, loads = itertools.count(1), []
    for victim in NODES:
        others = [number for number in NODES if number != victim]
        loads += (round_loads := begin(three, numbers, *others))
        await written(round_loads, 20)
        await three.stop(victim)
        await written(round_loads, 20)
        await three.start(victim)
        await written(round_loads, 20)
        for load in round_loads:
            await load.end()
            assert load.errors == []
    await check(three, loads)


async def test_writes_of_one_client_keep_their_order_over_a_change_of_leader(three: Cluster):
    """Issued without awaiting through a follower while the leader is killed: all succeed, and stand in that order."""
    leader, follower = three.leader, three.followers[0]
    db = three.nodes[follower]
    writes = []
    for number in range(1, 1201):
        writes.append(asyncio.ensure_future(db.execute(INSERT, [number, follower])))
        if number == 400:
            await writes[0]
            await three.kill(leader)
        if number % 10 == 0:
            await asyncio.sleep(0)
    indexes = [end.log_index for end in await asyncio.gather(*writes)]
    assert indexes == sorted(set(indexes)) and len(indexes) == 1200
    await three.start(leader)
    await check_equal(three)


async def test_writes_issued_without_a_leader_wait_for_the_next_one(three: Cluster):
    """Two of three are down: the write waits; when one is back, it succeeds."""
    leader = three.leader
    follower, other = three.followers
    db = three.nodes[follower]
    await three.kill(leader)
    await three.kill(other)
    await eventually(lambda: no_leader(db))
    write = asyncio.ensure_future(db.execute(INSERT, [1, follower], timeout=30))
    batch = asyncio.ensure_future(db.batch("INSERT INTO load VALUES (2, 0)", timeout=30))
    await three.start(other)
    assert (await write).last_insert_rowid == 1
    assert (await batch).ok
    await three.start(leader)
    await check_equal(three)


async def no_leader(db: LocalClient) -> bool:
    return (await db.metrics()).db.leader_id == 0


async def unhealthy(db: LocalClient) -> bool:
    return not await db.is_healthy()


# --------------------------------------------------------------------------- without a quorum


@pytest.mark.parametrize("survivor", ["leader", "follower"])
async def test_without_a_quorum_local_reads_work_and_the_rest_ends_in_time(three: Cluster, survivor: str):
    """Local reads go on; writes and linearizable reads end at their deadline, typed, with the right outcome."""
    await three.client.execute(INSERT, [1, 1])
    await same_index(list(three.nodes.values()))
    left = three.leader if survivor == "leader" else three.followers[0]
    db = three.nodes[left]
    for number in NODES:
        if number != left:
            await three.kill(number)
    with pytest.raises(hiqlite.ClusterError) as caught:
        await db.execute(INSERT, [2, left], timeout=0.4)
    assert caught.value.outcome in ("not_applied", "unknown")
    for read in (db.query, db.query_value):
        with pytest.raises(hiqlite.RequestTimeout) as late:
            await read("SELECT id FROM load", consistency="linearizable", timeout=0.4)
        assert late.value.outcome is None
    await eventually(lambda: no_leader(db))
    with pytest.raises(hiqlite.NoLeader) as refused:
        await db.execute(INSERT, [3, left], timeout=0.4)
    assert refused.value.outcome == "not_applied"
    assert await db.query("SELECT id FROM load") == [(1,)]
    assert [row async for row in db.query_iter("SELECT id FROM load", consistency="session")] == [(1,)]
    assert not await db.is_leader()
    await eventually(lambda: unhealthy(db))
    for number in NODES:
        if number != left:
            await three.start(number)
    await check_equal(three)
    for rows in await everywhere(three, "SELECT id FROM load ORDER BY id"):
        assert (3,) not in rows


async def test_a_linearizable_read_outlives_a_change_of_leader(three: Cluster):
    """Asked while there is none, it is answered by the next leader's quorum."""
    await three.client.execute(INSERT, [1, 1])
    leader, follower = three.leader, three.followers[0]
    db = three.nodes[follower]
    await three.kill(leader)
    reads = [db.query_value("SELECT count(*) FROM load", consistency="linearizable") for _ in range(10)]
    assert await asyncio.gather(*reads) == [1] * 10
    await three.start(leader)


# --------------------------------------------------------------------------- coming back


@pytest.mark.parametrize("order", list(itertools.permutations(NODES)))
async def test_all_nodes_may_stop_and_start_in_any_order(three: Cluster, order: tuple[int, ...]):
    """Stopped in one order, killed or not, started in another: all data is there, and nothing runs twice."""
    results = await asyncio.gather(*(three.nodes[1].execute(INSERT, [n, 1]) for n in range(100)))
    for number in order:
        await (three.stop(number) if number != 2 else three.kill(number))
    for number in reversed(order):
        await three.start(number)
    await three.wait_for_leader()
    for rows in await everywhere(three, "SELECT count(*), sum(id) FROM load"):
        assert rows == [(100, 4950)]
    later = await three.client.execute(INSERT, [1000, 1])
    assert later.log_index > max(result.log_index for result in results)
    await check_equal(three)


async def test_a_node_that_was_away_catches_up_from_the_log(three: Cluster):
    """Many writes and a change of schema later; more than memory holds of them, too."""
    victim = three.followers[0]
    await three.kill(victim)
    for step in range(20):
        await three.client.execute_many(INSERT, [[step * 500 + n, 0] for n in range(500)])
    await three.client.execute("CREATE INDEX load_node ON load (node)")
    await three.start(victim)
    await check_equal(three)
    assert await three.nodes[victim].query_value("SELECT count(*) FROM load") == 10_000


async def test_a_disk_that_waited_before_the_loop_was_stuck_unseats_nobody():
    """A write was under way when user code took the loop: a leader judges its disk by what is true after that."""
    async with cluster(3, cache=False) as three:
        group = three._running[three.leader].group
        while group.log_store.busy:
            await asyncio.sleep(0)
        term = group.engine.term
        group.engine.disk_waits(group.clock.monotonic_ns() - 2_000_000_000)
        group._deadline()
        assert (group.leads, group.engine.term) == (True, term)


# --------------------------------------------------------------------------- leaving nothing


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_cluster_leaves_nothing_behind(way: str):
    """No task, no thread of Python or C, no file, no socket; whether nodes were stopped or killed under load."""
    async with cluster(3, **SETTINGS):
        pass
    before = Traces()
    async with cluster(3, **SETTINGS) as three:
        await three.client.execute(CREATE)
        numbers = itertools.count(1)
        loads = begin(three, numbers, timeout=2)
        await written(loads, 20)
        for number in (three.followers[0], three.leader):
            await (three.stop(number) if way == "stop" else three.kill(number))
        for load in loads:
            await load.end()
        del loads, load
    del three
    await before.gone()


async def test_stopping_is_idempotent_and_may_come_from_everywhere(three: Cluster):
    """Several shutdowns of one node at once, and again later; the others go on."""
    victim = three.nodes[three.followers[0]]
    await asyncio.gather(*(victim.shutdown() for _ in range(5)))
    await victim.shutdown()
    with pytest.raises(hiqlite.ShuttingDown):
        await victim.execute(INSERT, [1, 1])
    await three.wait_for_leader()
    await three.client.execute(INSERT, [2, 1])
