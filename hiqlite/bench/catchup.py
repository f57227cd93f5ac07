"""`hiqlite bench catchup`: a follower that was away for many writes comes back while the others go on writing.

Three processes. Measured are the time from the start of its process until it has what the leader had committed when it
asked, the longest time between two writes on the leader meanwhile, and what logs and databases take on the disks. Knows
nodes as processes; must not know how one catches up.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiqlite.transport.loopback import loopback_cluster

from .nodes import Processes, equal_nodes, find_leader
from .report import heading, machine, versions

LOADING_TASKS = 64  # that write while it is away
TASKS = 4  # that write while it comes back


async def one_run(cluster: Processes, rows: int, number: int) -> dict[str, Any]:
    place = await find_leader(cluster.nodes)
    leader, away = cluster.nodes[place], (place + 1) % len(cluster.nodes)
    await leader.do({"do": "prepare"})
    await cluster.nodes[away].kill()
    loaded = await leader.do({"do": "phase", "phase": "insert", "c": LOADING_TASKS, "rows": rows})
    await leader.do({"do": "write", "c": TASKS, "start": number << 32})
    begun_ns = time.monotonic_ns()
    await cluster.start_again(away)
    taken_s = (time.monotonic_ns() - begun_ns) / 1e9
    found = await leader.do({"do": "end_writing"})
    applied = (await leader.do({"do": "status"}))["applied_index"]
    await equal_nodes(cluster.nodes, applied)
    usage = [await node.do({"do": "usage"}) for node in cluster.nodes]
    return {
        "n": loaded["n"], "taken_s": round(taken_s, 3), "entries_per_s": round(loaded["n"] / taken_s),
        "stall_ms": round(found["gaps"][0][0] / 1e6, 1), "writes_meanwhile": found["n"],
        "log_mb": [megabytes(folder, "log") for folder in cluster.folders],
        "db_mb": [megabytes(folder, "db") for folder in cluster.folders],
        "rss_mb": [round(one["rss_mb"]) for one in usage],
    }  # fmt: skip


def megabytes(folder: Path, kind: str) -> float:
    """Of all files below a folder of a node's data."""
    sizes = [path.stat().st_size for path in (folder / kind).rglob("*") if path.is_file()]
    return round(sum(sizes) / 1e6, 1)


async def run(options: argparse.Namespace, progress: Callable[[str], None]) -> dict[str, Any]:
    settings = {"log_sync": options.log_sync, "apply_thread": options.apply_thread}
    rows = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=options.data_dir, prefix="hiqlite-bench-")))
        cluster = Processes(list(loopback_cluster(folder, 3, {"cache": False, **settings}).values()))
        stack.push_async_callback(cluster.close)
        await cluster.start()
        for number in range(options.rounds):
            progress(f"{number + 1}/{options.rounds}  catchup")
            rows.append({"bench": "catchup", **await one_run(cluster, options.rows, 1 + number)})
    return {
        "machine": machine(), "versions": versions(), "load": round(os.getloadavg()[0], 2),
        "settings": {**settings, "nodes": 3, "tasks": TASKS}, "rows": rows,
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """One line for each round."""
    lines = [
        *heading(report),
        "",
        f"{'missed writes':>13} {'level after s':>13} {'entries/s':>10} {'longest stall ms':>17} {'writes':>8}"
        "  log MB            db MB             rss MB",
    ]
    for row in report["rows"]:
        logs, databases, memory = ("/".join(map(str, row[name])) for name in ("log_mb", "db_mb", "rss_mb"))
        lines.append(
            f"{row['n']:>13,} {row['taken_s']:>13.2f} {row['entries_per_s']:>10,} {row['stall_ms']:>17.1f} "
            f"{row['writes_meanwhile']:>8,}  {logs:17} {databases:17} {memory}"
        )
    return "\n".join(lines)
