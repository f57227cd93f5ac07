"""`hiqlite bench`: runs the phases in interleaved rounds, checks that all nodes are equal, prints one table; `gap` is
about leaders that go, `catchup` about followers that come back, `growth` about a table that grows; each in its file."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiqlite.transport.loopback import loopback_cluster

from . import catchup, gap, growth, phases
from .calibration import calibrate
from .nodes import BenchNode, equal_nodes, find_leader, settings_of, start_in_process, start_processes
from .report import combine, machine, table, versions

KINDS = {
    "cluster": "three nodes", "single": "one", "gap": "a leader's end", "catchup": "a follower that was away",
    "growth": "a table of ever more rows",
}  # fmt: skip
OWN_REPORTS = {"gap": gap, "catchup": catchup, "growth": growth}
DEFAULT_PHASES = {
    "cluster": (
        "insert,insert_returning,update,insert_follower,select_during_insert,insert_beside_analysis,txn,select_cold,"
        "select,scan,long_select,long_rows,select_beside_analysis,select_linearizable,select_linearizable_follower"
    ),
    "single": (
        "insert,insert_returning,update,select_during_insert,insert_beside_analysis,txn,select_cold,select,scan,"
        "long_select,long_rows,select_beside_analysis"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=list(KINDS), help=", ".join(f"{name}: {what}" for name, what in KINDS.items()))
    parser.add_argument("-c", default="4,16,64", help="concurrency levels (default 4,16,64)")
    parser.add_argument("-r", "--rows", type=int, default=100_000, help="rows per phase (default 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds, the median counts (default 3)")
    parser.add_argument("--log-sync", default="immediate", help="immediate, immediate_async or interval_<ms>")
    parser.add_argument("--apply-thread", default="auto", choices=["auto", "always", "inline"])
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all nodes; may be given again"
    )
    parser.add_argument("--phases", help="comma separated; default: all that fit")
    parser.add_argument("--in-process", action="store_true", help="all nodes in this process")
    parser.add_argument("--data-dir", type=Path, help="where the nodes' folders are made (default: temporary)")
    parser.add_argument("--restarts", type=int, default=50, help="gap: runs of each way (default 50)")
    ways = ",".join(gap.WAYS)
    parser.add_argument("--ways", default=ways, help="gap: what is done to the leader (default %(default)s)")
    parser.add_argument("--check", action="store_true", help="catchup: exit code 1 if a limit is not kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")


async def one_round(
    nodes: list[BenchNode], processes: list[BenchNode], phase: str, c: int, rows: int
) -> dict[str, Any]:
    """One run of one phase, with CPU and memory of each process: `processes` are nodes of different ones."""
    leader = await find_leader(nodes)
    at = (leader + 1) % len(nodes) if phase.endswith(phases.ON_FOLLOWER) else leader
    if phase in phases.WRITES:
        await nodes[leader].do({"do": "prepare"})
    before = await asyncio.gather(*(node.do({"do": "usage"}) for node in processes))
    result = await nodes[at].do({"do": "phase", "phase": phase, "c": c, "rows": rows})
    after = await asyncio.gather(*(node.do({"do": "usage"}) for node in processes))
    result["on"] = "leader" if at == leader else "follower"
    result["cpu_s"] = [round(b["cpu_s"] - a["cpu_s"], 2) for a, b in zip(before, after, strict=True)]
    result["rss_mb"] = [round(one["rss_mb"]) for one in after]
    if phase in phases.WRITES:
        await equal_nodes(nodes, result["applied_index"])
    return result


def progress(text: str) -> None:
    """One line that is written over; nothing when nobody looks."""
    if sys.stderr.isatty():
        print(f"{text:60}", end="\r", file=sys.stderr, flush=True)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    levels = [int(level) for level in options.c.split(",")]
    chosen = (options.phases or DEFAULT_PHASES[options.what]).split(",")
    unknown = [phase for phase in chosen if phase not in phases.PHASES]
    if unknown:
        raise SystemExit(f"unknown phases {unknown}; there are {sorted(phases.PHASES)}")
    if options.what == "single" and any(phase.endswith(phases.ON_FOLLOWER) for phase in chosen):
        raise SystemExit("a single node has no follower")
    settings = settings_of(options)
    size = 3 if options.what == "cluster" else 1
    report: dict[str, Any] = {
        "machine": machine(), "versions": versions(),
        "settings": {**settings, "nodes": size, "in_process": options.in_process, "rows": options.rows},
        "calibration": calibrate(options.data_dir), "rows": [],
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=options.data_dir, prefix="hiqlite-bench-")))
        start = start_in_process if options.in_process else start_processes
        if size == 1:
            configs: list[dict[str, Any]] = [{"data_dir": str(folder / "single"), **settings}]
        else:
            configs = list(loopback_cluster(folder, size, {"cache": False, **settings}).values())
        nodes = await start(stack, configs)
        processes = nodes[:1] if options.in_process else nodes
        await find_leader(nodes)
        collected: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for number in range(options.rounds):
            for c in levels:
                for phase in chosen:
                    progress(f"round {number + 1}/{options.rounds}  c={c} {phase}")
                    result = await one_round(nodes, processes, phase, c, options.rows)
                    collected.setdefault((phase, c), []).append(result)
    for (phase, c), rounds in sorted(collected.items(), key=lambda item: (chosen.index(item[0][0]), item[0][1])):
        row = combine(rounds)
        row.pop("applied_index", None)
        report["rows"].append(
            {"bench": phase, "target": "hiqlite", "nodes": size, "c": c, "durability": options.log_sync, **row}
        )
    return report


def main(options: argparse.Namespace) -> int:
    import uvloop

    if options.check and options.what != "catchup":
        raise SystemExit("only catchup has limits to check")
    if options.what in OWN_REPORTS:
        kind = OWN_REPORTS[options.what]
        report = uvloop.run(kind.run(options, progress))
        text = kind.table(report)
    else:
        report = uvloop.run(run(options))
        text = table(report)
    progress("")
    print(text)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    wrong = catchup.missed(report["rows"]) if options.check else []
    for text in wrong:
        print(f"limit not kept: {text}")
    return 1 if wrong else 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hiqlite bench", description=__doc__)
    add_arguments(parser)
    return parser.parse_args(arguments)


