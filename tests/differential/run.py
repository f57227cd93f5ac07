"""Programs of SQL on a cluster and on plain SQLite, for as long as asked: `make fuzz-sql MINUTES=10 SEED=1`.

The last line says how many were begun, how many of them were given up before their end without a difference, and how
many differed; a difference is told with its program up to its step, and the command that runs it again. A program is
the same whatever ran before it: it drops what it made.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from .comparing import LOG_SYNCS, Result, compare

AT_ONCE = 100  # programs in one cluster


async def run(minutes: float, seed: int, programs: int) -> tuple[Result, int]:
    """(sums of all, differences)"""
    end_s = time.monotonic() + 60 * minutes
    sums, differences = Result(), 0
    while time.monotonic() < end_s and sums.begun < programs:
        first = seed + sums.begun
        result = await _cluster(first, seed + programs, end_s)
        for field in fields(Result)[1:]:
            setattr(sums, field.name, getattr(sums, field.name) + getattr(result, field.name))
        if result.difference is not None:
            differences += 1
            alone = result.ended < result.begun
            again = f"PROGRAMS=1 SEED={seed + sums.begun - 1}" if alone else f"PROGRAMS={result.begun} SEED={first}"
            print(f"{result.difference}\n  again: make fuzz-sql {again}", flush=True)
    return sums, differences


async def _cluster(first: int, end: int, end_s: float) -> Result:
    """The programs from `first` on that run in one cluster; its number, and so how it writes its log, is theirs."""
    number = first // AT_ONCE
    seeds = range(first, min(end, (number + 1) * AT_ONCE))
    with TemporaryDirectory(prefix="hiqlite-programs-") as folder:
        return await compare(Path(folder), seeds, end_s, LOG_SYNCS[number % len(LOG_SYNCS)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--programs", type=int, default=1_000_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    sums, differences = asyncio.run(run(options.minutes, options.seed, options.programs))
    print(f"steps: {sums.steps} failed on both: {sums.failed_steps} refused rowids: {sums.refused}")
    print(f"restarts: {sums.restarts}")
    print(f"programs: {sums.begun} given up: {sums.begun - sums.ended - differences} differences: {differences}")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
