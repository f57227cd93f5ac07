"""Programs of SQL on a cluster and on plain SQLite, for as long as asked: `make fuzz-sql MINUTES=10 SEED=1`.

The last line says how many were begun, how many of them were given up before their end without a difference, and how
many differed; a difference is told with its program and its step. A program is the same whatever ran before it: its
number as SEED makes it the first.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from .comparing import Result, compare

AT_ONCE = 200  # programs in one cluster: their tables stay


async def run(minutes: float, seed: int) -> tuple[Result, int]:
    """(sums of all, differences)"""
    end_s = time.monotonic() + 60 * minutes
    sums, differences = Result(), 0
    while time.monotonic() < end_s:
        first = seed + sums.begun
        with TemporaryDirectory(prefix="hiqlite-programs-") as folder:
            result = await compare(Path(folder), range(first, first + AT_ONCE), end_s)
        for field in fields(Result)[1:]:
            setattr(sums, field.name, getattr(sums, field.name) + getattr(result, field.name))
        if result.difference is not None:
            differences += 1
            print(result.difference, flush=True)
    return sums, differences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    sums, differences = asyncio.run(run(options.minutes, options.seed))
    print(f"steps: {sums.steps} failed on both: {sums.failed_steps} refused rowids: {sums.refused}")
    print(f"restarts: {sums.restarts}")
    print(f"programs: {sums.begun} given up: {sums.begun - sums.ended - differences} differences: {differences}")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
