"""`hiqlite bench catchup`: a follower that was away for many writes comes back while the others go on writing.

Three processes. Measured are the time from the start of its process until it has what the leader had committed when it
asked, the longest time between two writes on the leader meanwhile, and what logs and databases take on the disks. With
`--check` all this is held to limits; those of time are for `--rows 500000` on an idle machine, and rounds of so many
show that nothing grows with what was ever written. Knows nodes as processes; must not know how one catches up.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiqlite.config import NodeConfig
from hiqlite.logstore.space import APPLYING_BYTES
from hiqlite.transport.loopback import loopback_cluster

from .nodes import BenchNode, Processes, equal_nodes, find_leader, settings_of
from .report import heading, machine, versions

LOADING_TASKS = 64  # that write while it is away
TASKS = 4  # that write while it comes back

# What a follower that missed 500 000 writes may cost its leader's clients, and has to reach, its start included.
STALL_MS_MAX = 250.0
ENTRIES_PER_S_MIN = 200_000
# A log: the tail that is kept and as much until a purge is worth while, in entries; and in files the one that is
# written, the one before it, the next one, and two that wait for being used again.
TAILS_MAX = 3
SEGMENTS_MAX = 5
# SQLite's own log: from `APPLYING_BYTES` on writes wait for its checkpoint. One run may be under way.
SQLITE_LOG_MB_MAX = 1.25 * APPLYING_BYTES / 1e6
# A database: each round has as many rows as the first one, and what it has deleted is used again.
DATABASE_GROWTH_MAX = 1.5
PURGED_S = 10.0  # until a log without writes is purged


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
    held = [await held_entries(node) for node in cluster.nodes]
    usage = [await node.do({"do": "usage"}) for node in cluster.nodes]
    return {
        "n": loaded["n"], "taken_s": round(taken_s, 3), "entries_per_s": round(loaded["n"] / taken_s),
        "stall_ms": round(found["gaps"][0][0] / 1e6, 1), "writes_meanwhile": found["n"],
        "log_mb": [megabytes(folder, "log") for folder in cluster.folders],
        "log_entries": held, "sqlite_log_mb": [megabytes(folder, "db", "*-wal") for folder in cluster.folders],
        "db_mb": [megabytes(folder, "db") for folder in cluster.folders],
        "rss_mb": [round(one["rss_mb"]) for one in usage],
    }  # fmt: skip


def megabytes(folder: Path, kind: str, names: str = "*") -> float:
    """Of all files below a folder of a node's data that have such names."""
    total = 0
    for path in (folder / kind).rglob(names):
        with suppress(FileNotFoundError):  # a log's files come and go
            total += path.stat().st_size if path.is_file() else 0
    return round(total / 1e6, 1)


async def held_entries(node: BenchNode) -> int:
    """Of its log, once it is purged, or after a while."""
    end = time.monotonic() + PURGED_S
    while True:
        group = (await node.do({"do": "metrics"}))["groups"]["db"]
        held = int(group["last_log_index"] - group["first_index"] + 1)
        if held <= tail_max() or time.monotonic() > end:
            return held
        await asyncio.sleep(0.05)


def tail_max() -> int:
    return TAILS_MAX * NodeConfig().logs_until_snapshot


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """Which limits were not kept in which round, in words."""
    segments_mb = SEGMENTS_MAX * NodeConfig().wal_size / 1e6
    database_mb = DATABASE_GROWTH_MAX * max(rows[0]["db_mb"]) + SQLITE_LOG_MB_MAX
    found = []
    for number, row in enumerate(rows, 1):
        rate, entries = row["entries_per_s"], max(row["log_entries"])
        log_mb, sqlite_mb, db_mb = (max(row[name]) for name in ("log_mb", "sqlite_log_mb", "db_mb"))
        limits = [
            (row["stall_ms"] <= STALL_MS_MAX, f"writes stood still for {row['stall_ms']} ms, not {STALL_MS_MAX:.0f}"),
            (rate >= ENTRIES_PER_S_MIN, f"{rate:,} entries/s are less than {ENTRIES_PER_S_MIN:,}"),
            (entries <= tail_max(), f"a log holds {entries:,} entries, not {tail_max():,}"),
            (log_mb <= segments_mb, f"a log takes {log_mb} MB, not {segments_mb:.0f}"),
            (sqlite_mb <= SQLITE_LOG_MB_MAX, f"SQLite's own log takes {sqlite_mb} MB, not {SQLITE_LOG_MB_MAX:.0f}"),
            (db_mb <= database_mb, f"a database takes {db_mb} MB, not {database_mb:.0f}"),
        ]
        found += [f"round {number}: {text}" for is_kept, text in limits if not is_kept]
    return found


async def run(options: argparse.Namespace, progress: Callable[[str], None]) -> dict[str, Any]:
    settings = settings_of(options)
    rows = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=options.data_dir, prefix="hiqlite-bench-")))
        configs = loopback_cluster(folder, 3, {"cache": False, **settings})  # holds the ports of a node that is down
        cluster = Processes(list(configs.values()))
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
