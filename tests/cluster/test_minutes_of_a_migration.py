"""A migration whose one statement takes more than a minute on each of three nodes: slow, and no trouble to anybody."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import apsw
import pytest

from hiqlite.client.local import LocalClient
from hiqlite.errors import RequestTimeout
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal

STATEMENT_S_MIN = 60.0
PATIENT_S = 1500.0
COUNTS = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {rows}) SELECT count(*) FROM c"


def slow_statement() -> str:
    """By the processor's time, which others on this machine do not shorten; it leaves one row."""
    rows = 1_000_000
    connection = apsw.Connection(":memory:")
    began_s = time.thread_time()
    connection.execute(COUNTS.format(rows=rows)).fetchall()
    spent_s = time.thread_time() - began_s
    connection.close()
    return f"INSERT INTO slow {COUNTS.format(rows=int(rows * 1.2 * STATEMENT_S_MIN / spent_s))}"


def terms(three: Cluster) -> list[tuple[int, int]]:
    """What each node knows: the term, and who leads in it."""
    engines = [node.group.engine for node in three._running.values()]
    return [(engine.term, engine.leader_id) for engine in engines]


class Visitors:
    """Users of all nodes while one of them migrates. Numbers of writes, by what their callers were told."""

    def __init__(self, nodes: list[LocalClient]) -> None:
        self.told: dict[str | None, set[int]] = defaultdict(set)
        self.reads = 0
        self._nodes = nodes
        self._number = 0

    async def come(self) -> None:
        """Each reads, which works at once, and writes and looks for what is certain, for which he waits a moment."""
        for db in self._nodes:
            assert await db.query_value("SELECT count(*) FROM t WHERE x = -1") == 1
            self.reads += 1
        ends: list[Any] = [self._write(db) for db in self._nodes]
        await asyncio.gather(*ends, *(self._look(db) for db in self._nodes))

    async def _write(self, db: LocalClient) -> None:
        self._number = number = self._number + 1
        try:
            await db.execute("INSERT INTO t VALUES (?)", [number], timeout=0.5)
        except RequestTimeout as late:
            self.told[late.outcome].add(number)
        else:
            self.told["applied"].add(number)

    async def _look(self, db: LocalClient) -> None:
        try:
            await db.query("SELECT count(*) FROM t", consistency="linearizable", timeout=0.5)
        except RequestTimeout as late:
            assert late.outcome is None


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_migration_that_takes_minutes_is_no_reason_for_an_election(tmp_path: Path) -> None:
    """Reads go on, writes wait or are told that their time was over and what became of them; then all is as it was
    told, once, and the same everywhere."""
    statement = slow_statement()
    async with cluster(3, base_dir=tmp_path, cache=False, migration_timeout=PATIENT_S) as three:
        await three.client.batch("CREATE TABLE t (x); INSERT INTO t VALUES (-1)")
        await three.wait_until(lambda: len(set(terms(three))) == 1)
        before, nodes = terms(three), list(three.nodes.values())
        visitors, began_s = Visitors(nodes), time.monotonic()
        source = {"1_slow.sql": f"CREATE TABLE slow (n); {statement};"}
        migrating = asyncio.create_task(three.nodes[three.followers[0]].migrate(source))
        await three.wait_until(lambda: len(three._running[three.leader].group.proposals.gate) > 0)
        patient = [asyncio.create_task(db.execute("INSERT INTO t VALUES (0)", timeout=PATIENT_S)) for db in nodes]
        while not all(one.done() for one in (migrating, *patient)):
            await visitors.come()
            assert terms(three) == before
        assert (await migrating).applied == [1] and time.monotonic() - began_s > STATEMENT_S_MIN
        assert [(await one).rows_affected for one in patient] == [1] * 3
        await check_equal(three)
        assert terms(three) == before
        found = [x for (x,) in await three.client.query("SELECT x FROM t WHERE x > 0", consistency="linearizable")]
        assert len(found) == len(set(found)) and visitors.told["applied"] <= set(found)
        assert visitors.told["not_applied"] and not visitors.told["not_applied"] & set(found)
        assert set(found) <= visitors.told["applied"] | visitors.told["unknown"] and None not in visitors.told
