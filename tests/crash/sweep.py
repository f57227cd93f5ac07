"""Crash sweep: a node is killed at every single change of its disk, comes back, and has kept every promise.

    python tests/crash/sweep.py [--every N] [--first K] [--jobs J] [--seed S] [--how kill,half,...]
    python tests/crash/sweep.py --nodes 3 [--points N] [--seed S]       a sample on a cluster, see sweep_three.py

The workload (sweep_lives.py) forms a single node, writes, stops, purges, recycles segments. Its log, LMDB and SQLite
make some hundreds of changes: writes, syncs, renames, removals, changes of size. For each k a fresh node dies before
its k-th:

    kill       the process only            half       in the middle of that write
    drop       and the power: what was not synced is gone
    torn       each file keeps its unsynced writes up to some moment, the last one torn
    any        unsynced sectors and names are kept in any order
    again      the start after it is killed too     again_any  and the power goes both times
    then_drop, then_any    killed, and in the start after it the power goes: of both lives' unsynced writes
    look       the log alone is opened after the kill, then the power goes: what it showed has to stay

Then it is started again: no acknowledged write is lost, nothing was applied twice, nothing is there that was never
asked for, the database is in order and was not rebuilt, the log is whole, and the node writes, purges and restarts.
Threads make the order of steps vary a little between runs; a violation says its k, way and seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness import HERE, build_library
from sweep_three import sample

WAYS = ("kill", "half", "drop", "torn", "any", "again", "again_any", "then_drop", "then_any", "look")
BEYOND = 10_000_000


@dataclass
class Outcome:
    """What a sweep found."""

    steps: int = 0
    points: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


class Server:
    """One process of sweep_server.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, libraries: list[Path]) -> Server:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        environment["LD_PRELOAD"] = " ".join(str(library) for library in libraries)
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "sweep_server.py"), env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24,
        )  # fmt: skip
        return cls(process)

    async def do(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, "the sweep's server ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def sweep(
    folder: Path, *, every: int = 1, first: int = 1, jobs: int = 2, seed: int = 1, ways: tuple[str, ...] = WAYS,
    rotate: bool = False, report: float = 0,
) -> Outcome:  # fmt: skip
    """Every k from `first` in steps of `every`, in each way, or with `rotate` in one way after the other.

    Args:
        report: seconds between lines about the progress; 0: none.
    """
    libraries = [build_library(HERE / name, folder) for name in ("killpoint.c", "powerloss.c")]
    servers = [await Server.start(libraries) for _ in range(jobs)]
    outcome = Outcome()
    try:
        whole = await servers[0].do(folder=str(folder / "whole"), k=BEYOND, how="kill", seed=seed)
        assert not whole["wrong"] and not whole["killed"], whole
        outcome.steps = whole["steps"]
        waiting = points(outcome.steps, every, first, seed, ways, rotate)
        said = time.monotonic()

        async def work(number: int, server: Server) -> None:
            nonlocal said
            while waiting:
                k, how, chance = waiting.pop()
                answer = await server.do(folder=str(folder / f"{how}-{k}"), k=k, how=how, seed=chance)
                outcome.points[how if answer["killed"] else "lived"] += 1
                outcome.violations += [f"k={k} how={how} seed={chance}: {one}" for one in answer["wrong"]]
                if report and time.monotonic() - said > report:
                    said = time.monotonic()
                    print(f"{len(waiting)} points to go, violations: {len(outcome.violations)}", flush=True)

        await asyncio.gather(*(work(number, server) for number, server in enumerate(servers)))
    finally:
        for server in servers:
            await server.close()
    return outcome


def points(
    steps: int, every: int, first: int, seed: int, ways: tuple[str, ...], rotate: bool
) -> list[tuple[int, str, int]]:
    """(k, way, seed), in reverse: the last is taken first. A few beyond the end, for threads make the number vary."""
    chance = random.Random(seed)
    ks = range(first, steps + 1, every)
    chosen = [(k, how) for n, k in enumerate(ks) for how in ([ways[n % len(ways)]] if rotate else ways)]
    return [(k, how, chance.getrandbits(32)) for k, how in chosen][::-1]


def sample_three(points: int, seed: int) -> int:
    with tempfile.TemporaryDirectory(prefix="hiqlite-sweep-") as name:
        violations = asyncio.run(sample(Path(name), points, seed, partial(print, flush=True)))
    print(f"crash points of three nodes: {points} violations: {violations}")
    return 1 if violations else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--how", default=",".join(WAYS))
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    parser.add_argument("--points", type=int, default=40, help="of three nodes")
    chosen = parser.parse_args()
    if chosen.nodes == 3:
        return sample_three(chosen.points, chosen.seed)
    ways = tuple(chosen.how.split(","))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hiqlite-sweep-") as name:
        outcome = asyncio.run(
            sweep(
                Path(name), every=chosen.every, first=chosen.first, jobs=chosen.jobs, seed=chosen.seed, ways=ways,
                report=20,
            )
        )  # fmt: skip
    for violation in outcome.violations:
        print(violation)
    seconds = time.monotonic() - started
    print(f"steps of the workload: {outcome.steps}, {dict(outcome.points)}, {seconds:.0f} s")
    print(f"crash points: {sum(outcome.points.values())} violations: {len(outcome.violations)}")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
