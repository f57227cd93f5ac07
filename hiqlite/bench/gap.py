"""`hiqlite bench gap`: the longest time between two acknowledged writes while the leader is restarted, killed, stopped.

Three processes. The clients are on a node that stays, so their writes are forwarded to the leader, and go to the next
one when it is gone. Each run is one leader's end and return; "nothing" is the same without it, and says what this
machine does to a write by itself. Knows nodes as processes; must not know how they elect.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiqlite.config import RaftSettings
from hiqlite.transport.loopback import loopback_cluster

from .nodes import Processes, equal_nodes, find_leader, settings_of
from .report import heading, machine, versions

TASKS = 4
WRITES = 50  # before the leader's end, and after its return
DEADLINE_S = 60.0
LOOK_S = 0.01
NOTHING_S = 1.0
# Before each end: links have settled, and the moment is a random one between two heartbeats.
CALM_S = (0.3, 0.5)
BUCKETS_MS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 5000)
WIDTH = 50


Way = Callable[[Processes, int, Callable[[], Awaitable[None]]], Awaitable[None]]


async def restart(cluster: Processes, leader: int, written: Callable[[], Awaitable[None]]) -> None:
    await cluster.nodes[leader].stop()
    await cluster.start_again(leader)


async def kill(cluster: Processes, leader: int, written: Callable[[], Awaitable[None]]) -> None:
    await cluster.nodes[leader].kill()
    await cluster.start_again(leader)


async def stop(cluster: Processes, leader: int, written: Callable[[], Awaitable[None]]) -> None:
    """SIGSTOP, until somebody else has taken writes."""
    cluster.nodes[leader].pause()
    try:
        await written()
    finally:
        cluster.nodes[leader].resume()


async def nothing(cluster: Processes, leader: int, written: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(NOTHING_S)


WAYS: dict[str, Way] = {"nothing": nothing, "restart": restart, "kill": kill, "stop": stop}
# Milliseconds at p95 that an idle machine is held to.
TARGETS_MS = {"restart": 100, "kill": 400, "stop": 2 * RaftSettings().election_timeout_max_ms}


async def one_run(cluster: Processes, way: Way, number: int) -> dict[str, Any]:
    """The longest gap that ended after the leader was told, and the errors that retries healed."""
    leader = await find_leader(cluster.nodes)
    client = (leader + 1 + number % 2) % len(cluster.nodes)  # who is elected next, or who is not
    await asyncio.sleep(random.uniform(*CALM_S))
    node = cluster.nodes[client]
    await node.do({"do": "write", "c": TASKS, "start": number << 32})

    async def written() -> None:
        """Some more writes are acknowledged."""
        wanted = int((await node.do({"do": "written"}))["n"]) + WRITES
        end = time.monotonic() + DEADLINE_S
        while int((await node.do({"do": "written"}))["n"]) < wanted:
            if time.monotonic() > end:
                raise SystemExit(f"no write came through for {DEADLINE_S:.0f} s")
            await asyncio.sleep(LOOK_S)

    await written()
    begun_ns = time.monotonic_ns()
    await way(cluster, leader, written)
    await written()
    found = await node.do({"do": "end_writing"})
    longest = max(length for length, end in found["gaps"] if end > begun_ns)
    return {"gap_ms": round(longest / 1e6, 2), "errors": found["errors"], "writes": found["n"]}


async def run(options: argparse.Namespace, progress: Callable[[str], None]) -> dict[str, Any]:
    """All ways in turn, so that what else the machine does meets each of them."""
    chosen = options.ways.split(",")
    if unknown := [name for name in chosen if name not in WAYS]:
        raise SystemExit(f"unknown ways {unknown}; there are {list(WAYS)}")
    settings = settings_of(options)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    load = [os.getloadavg()[0]]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=options.data_dir, prefix="hiqlite-bench-")))
        configs = loopback_cluster(folder, 3, settings)  # holds the ports of a node that is down
        cluster = Processes(list(configs.values()))
        stack.push_async_callback(cluster.close)
        await cluster.start()
        await cluster.nodes[await find_leader(cluster.nodes)].do({"do": "prepare"})
        for number in range(options.restarts):
            for place, name in enumerate(chosen):
                progress(f"{number + 1}/{options.restarts}  {name}")
                runs[name].append(await one_run(cluster, WAYS[name], number * len(chosen) + place + 1))
            load.append(os.getloadavg()[0])
        leader = cluster.nodes[await find_leader(cluster.nodes)]
        await equal_nodes(cluster.nodes, (await leader.do({"do": "status"}))["applied_index"])
    return {
        "machine": machine(), "versions": versions(), "settings": {**settings, "nodes": 3, "tasks": TASKS},
        "load": {"mean": round(statistics.mean(load), 2), "max": round(max(load), 2)},
        "rows": [summary(name, rounds) for name, rounds in runs.items()],
    }  # fmt: skip


def summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    gaps = sorted(one["gap_ms"] for one in runs)
    errors: dict[str, int] = {}
    for one in runs:
        for text, count in one["errors"].items():
            errors[text] = errors.get(text, 0) + count
    return {
        "bench": f"gap {name}", "n": len(gaps), "target_p95_ms": TARGETS_MS.get(name), "p50_ms": at(gaps, 0.5),
        "p95_ms": at(gaps, 0.95), "max_ms": gaps[-1], "gaps_ms": [one["gap_ms"] for one in runs],
        "errors": errors, "writes": sum(one["writes"] for one in runs),
    }  # fmt: skip


def at(ordered: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]


def table(report: dict[str, Any]) -> str:
    """One line and one histogram for each way."""
    load = report["load"]
    lines = [
        *heading(report),
        f"load of the machine: mean {load['mean']}, max {load['max']} (two of it and more belong to the bench)",
        "",
        f"{'longest time between two acknowledged writes':46} {'n':>4} {'p50 ms':>8} {'p95 ms':>8} {'max ms':>8} "
        f"{'target p95':>10}",
    ]
    for row in report["rows"]:
        target = "" if row["target_p95_ms"] is None else f"< {row['target_p95_ms']}"
        lines.append(
            f"{row['bench']:46} {row['n']:>4} {row['p50_ms']:>8.1f} {row['p95_ms']:>8.1f} {row['max_ms']:>8.1f} "
            f"{target:>10}"
        )
    for row in report["rows"]:
        told = ", ".join(f"{count} x {text}" for text, count in sorted(row["errors"].items())) or "none"
        lines += ["", f"{row['bench']}; errors that a retry healed, of {row['writes']:,} writes: {told}"]
        lines += histogram(row["gaps_ms"])
    return "\n".join(lines)


def histogram(gaps_ms: list[float]) -> list[str]:
    """Bars, from the first bucket that has anything to the last one."""
    bounds = (0.0, *BUCKETS_MS, math.inf)
    counts = [sum(low <= gap < high for gap in gaps_ms) for low, high in itertools.pairwise(bounds)]
    used = [place for place, count in enumerate(counts) if count]
    lines = []
    for place in range(used[0], used[-1] + 1):
        high = bounds[place + 1]
        name = f"{bounds[place]:g} ms and more" if high == math.inf else f"{bounds[place]:g} to {high} ms"
        lines.append(f"  {name:>17} {counts[place]:>3} {'#' * round(counts[place] * WIDTH / max(counts))}")
    return lines
