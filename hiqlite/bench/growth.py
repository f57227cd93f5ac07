"""`hiqlite bench growth`: single INSERTs into a table of few rows, and into the same one once it has very many.

Three processes. Both sizes are measured in the same run, in rounds of new keys behind a first one that does not count,
once all nodes have in their files what came before: so the ratio says what a row costs more. The databases are compared
each time. Knows nodes as processes; must not know how one writes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiqlite.transport.loopback import loopback_cluster

from .nodes import BenchNode, Processes, equal_nodes, find_leader, settings_of
from .report import combine, heading, machine, versions

FEW = 10_000  # rows that the table has first
TIMES_MORE = 100  # how often `--rows` it has in the end
APPENDED = 20_000  # single INSERTs of one round, at most


class Table:
    """The bench's table, and how many rows were put into it."""

    def __init__(self, leader: BenchNode) -> None:
        self._leader = leader
        self.rows = 0

    async def fill(self, rows: int) -> None:
        """Until it has this many."""
        await self._leader.do({"do": "fill", "start": self.rows, "end": rows})
        self.rows = max(rows, self.rows)

    async def append(self, c: int, rounds: int, count: int) -> dict[str, Any]:
        """The median of some rounds of single INSERTs, behind one more."""
        found = []
        for _ in range(1 + rounds):
            found.append(await self._leader.do({"do": "append", "c": c, "rows": count, "start": self.rows}))
            self.rows += count
        return {**combine(found[1:]), "applied_index": found[-1]["applied_index"]}


async def run(options: argparse.Namespace, progress: Callable[[str], None]) -> dict[str, Any]:
    settings = settings_of(options)
    rows = []
    for c in (int(level) for level in options.c.split(",")):
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(dir=options.data_dir, prefix="hiqlite-bench-")))
            cluster = Processes(list(loopback_cluster(folder, 3, {"cache": False, **settings}).values()))
            stack.push_async_callback(cluster.close)
            await cluster.start()
            leader = cluster.nodes[await find_leader(cluster.nodes)]
            await leader.do({"do": "prepare"})
            grown = Table(leader)
            for size in (FEW, TIMES_MORE * options.rows):
                progress(f"c={c}: {size:,} rows")
                await grown.fill(size)
                await equal_nodes(cluster.nodes, (await leader.do({"do": "status"}))["applied_index"])
                await asyncio.gather(*(node.do({"do": "snapshot"}) for node in cluster.nodes))
                held = grown.rows
                found = await grown.append(c, options.rounds, min(APPENDED, options.rows))
                await equal_nodes(cluster.nodes, found.pop("applied_index"))
                rows.append({"bench": "growth", "c": c, "held": held, **found})
    return {
        "machine": machine(), "versions": versions(), "load": round(os.getloadavg()[0], 2),
        "settings": {**settings, "nodes": 3}, "rows": rows,
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """One line for each size, with how many times slower than the smallest it is."""
    lines = [
        *heading(report),
        "",
        f"{'rows held':>13} {'C':>4} {'n':>8} {'ops/s':>10} {'p50 us':>9} {'p99 us':>9} {'times slower':>13}",
    ]
    first: dict[int, float] = {}
    for row in report["rows"]:
        slower = first.setdefault(row["c"], row["ops_per_s"]) / row["ops_per_s"]
        lines.append(
            f"{row['held']:>13,} {row['c']:>4} {row['n']:>8,} {row['ops_per_s']:>10,.0f} {row['p50_us']:>9,.1f} "
            f"{row['p99_us']:>9,.1f} {slower:>13.2f}"
        )
    return "\n".join(lines)
