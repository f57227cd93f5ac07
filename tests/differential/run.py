"""Programs of SQL on a cluster and on plain SQLite, for as long as asked: `make fuzz-sql MINUTES=10 SEED=1`.

The last line says how many ran, and how many differed; a difference is told with its program and its step.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from .comparing import compare
from .programs import Program

AT_ONCE = 200  # programs in one cluster: their tables stay


async def run(minutes: float, seed: int) -> tuple[int, int, int]:
    """(programs, differences, restarts)"""
    end_s = time.monotonic() + 60 * minutes
    programs = differences = restarts = 0
    while time.monotonic() < end_s:
        chosen = [Program(seed + programs + number) for number in range(AT_ONCE)]
        with TemporaryDirectory(prefix="hiqlite-programs-") as folder:
            result = await compare(Path(folder), chosen, seed + programs)
        programs += result.programs
        restarts += result.restarts
        if result.difference is not None:
            differences += 1
            print(result.difference, flush=True)
    return programs, differences, restarts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    programs, differences, restarts = asyncio.run(run(options.minutes, options.seed))
    print(f"restarts: {restarts}")
    print(f"programs: {programs} differences: {differences}")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
