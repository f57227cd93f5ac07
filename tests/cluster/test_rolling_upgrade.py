"""Nodes of several protocol versions in one cluster, as they meet while one release takes the place of another.

The next release is a node that is told to speak other versions; it is real in everything else.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

import hiqlite
from hiqlite.transport.versions import SPOKEN, Versions
from tests.cluster.growing import Growing, growing

NODES = (1, 2, 3)
NEXT = Versions(SPOKEN.low, SPOKEN.high + 1)  # it still speaks with this one
LATER = Versions(SPOKEN.high + 1, SPOKEN.high + 1)  # this one is forgotten
STRANGE = Versions(SPOKEN.high + 5, SPOKEN.high + 9)


class Upgrading:
    """Three nodes with a client on each that writes all the time, while it runs."""

    def __init__(self, nodes: Growing) -> None:
        self.nodes = nodes
        self.acknowledged: dict[int, set[int]] = {number: set() for number in NODES}  # by the node that was asked
        self._cut: set[int] = set()  # their node went before it had answered
        self._numbers = itertools.count()
        self._ended = False
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        await self.nodes.form(*NODES)
        await self.nodes.client(1).execute("CREATE TABLE t (x INTEGER PRIMARY KEY, node INTEGER)")
        for number in NODES:
            self._write(number)

    def _write(self, number: int) -> None:
        db = self.nodes.client(number)

        async def write() -> None:
            row = 0
            try:
                while not self._ended:
                    row = next(self._numbers)
                    await db.execute("INSERT INTO t VALUES (?, ?)", [row, number])
                    self.acknowledged[number].add(row)
            except hiqlite.ShuttingDown:  # its own node goes: an application would go with it
                self._cut.add(row)

        self._tasks.append(asyncio.create_task(write()))

    async def upgrade(self, number: int, to: Versions) -> None:
        if number in self.nodes.running:
            await self.nodes.stop(number)
        await self.nodes.start(number, NODES, wait=True, versions=to)
        self._write(number)

    async def more(self, *numbers: int) -> None:
        """Each of these nodes' clients has written more."""
        wanted = {number: len(self.acknowledged[number]) + 10 for number in numbers}
        await self.nodes.wait_until(
            lambda: all(len(self.acknowledged[number]) >= rows for number, rows in wanted.items())
        )

    async def end(self) -> None:
        """No write has failed, but of clients whose node went; all that were acknowledged are there."""
        self._ended = True
        await asyncio.gather(*self._tasks)
        sql = "SELECT x FROM t WHERE node = ?"
        for number, acknowledged in self.acknowledged.items():
            rows = await self.nodes.client(1).query(sql, [number], consistency="linearizable")
            assert acknowledged <= {row.x for row in rows} <= acknowledged | self._cut
        await self.nodes.members(set(NODES), set())
        await self.nodes.check_equal()


def spoken(nodes: Growing, number: int) -> dict[int, set[int]]:
    """The protocol versions of the links that a node has to each other one."""
    network = nodes.running[number].network
    assert network is not None
    peers = network.metrics()["peers"].items()
    return {peer: {link["version"] for link in told["links"].values()} for peer, told in peers}


def agreed(speaks: dict[int, Versions], number: int) -> dict[int, set[int]]:
    """What they have to be."""
    return {other: {min(speaks[number].high, speaks[other].high)} for other in NODES if other != number}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
async def test_a_cluster_is_upgraded_node_by_node_under_load(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Every link speaks the newest version of both its ends; no write fails; it can be taken back before it is over."""
    async with growing(tmp_path) as nodes:
        cluster = Upgrading(nodes)
        await cluster.begin()
        speaks = dict.fromkeys(NODES, SPOKEN)
        for to in (NEXT, SPOKEN, NEXT, LATER):  # upgraded, taken back, upgraded again, and the release after it
            for number in order:
                await cluster.upgrade(number, to)
                speaks[number] = to
                await cluster.more(*NODES)
                await nodes.wait_until(lambda: all(spoken(nodes, one) == agreed(speaks, one) for one in NODES))
        await cluster.end()


async def test_a_node_that_shares_no_version_takes_no_part_and_does_no_harm(tmp_path: Path) -> None:
    """Both sides count why; the others go on without it; with a version in common it is one of them again."""
    async with growing(tmp_path) as nodes:
        cluster = Upgrading(nodes)
        await cluster.begin()
        await nodes.stop(2)
        await nodes.start(2, NODES, versions=STRANGE)
        networks = [node.network for node in nodes.running.values() if node.network is not None]
        await nodes.wait_until(lambda: all(one.refusals.counts["version"] > 2 for one in networks))
        assert spoken(nodes, 2) == {1: set(), 3: set()}
        with pytest.raises(hiqlite.NoLeader):
            await nodes.client(2).execute("SELECT 1", timeout=0.2)
        await nodes.wait_until(lambda: nodes.running[1].group.leader_id != 0)
        term = nodes.running[1].group.engine.term
        await cluster.more(1, 3)
        await nodes.wait_until(lambda: all(one.refusals.counts["version"] > 10 for one in networks))
        await cluster.more(1, 3)
        assert nodes.running[1].group.engine.term == term
        await cluster.upgrade(2, NEXT)
        await cluster.more(*NODES)
        await cluster.end()
