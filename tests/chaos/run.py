"""`python -m tests.chaos.run --minutes N --seed S`: as many histories as fit, each from one seed.

The seed tells the mix of faults, the number of nodes, and where the log of the cache group is. A history with
violations leaves a report with the seed and the fewest operations that contradict each other, and what its clients and
nodes wrote, in the folder `--keep`. The last line is always `histories: N violations: M`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .history import Outcome, play
from .nemeses import MIXES
from .subjects import CACHES


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--histories", type=int, default=0, help="this many instead of a time")
    parser.add_argument("--seconds", type=float, default=15.0, help="of faults in a history")
    parser.add_argument("--mix", choices=list(MIXES), help="instead of what the seed tells")
    parser.add_argument("--nodes", type=int, choices=(3, 5), help="instead of what the seed tells")
    parser.add_argument("--cache", choices=CACHES, help="log of the cache group, instead of what the seed tells")
    parser.add_argument("--until-violation", action="store_true", help="end with the first one")
    parser.add_argument("--keep", type=Path, default=Path("build/chaos"), help="folder of reports")
    options = parser.parse_args()
    end = time.monotonic() + options.minutes * 60
    histories = violations = 0
    while histories < options.histories if options.histories else time.monotonic() < end:
        seed = options.seed + histories
        histories += 1
        with tempfile.TemporaryDirectory(prefix="hiqlite-chaos-") as name:
            folder = Path(name)
            outcome = asyncio.run(play(folder, seed, options.seconds, options.mix, options.nodes, options.cache))
            print(f"history {histories}: {outcome}", flush=True)
            violations += len(outcome.violations)
            if outcome.violations:
                _keep(outcome, folder, options.keep)
                if options.until_violation:
                    break
    print(f"histories: {histories} violations: {violations}")
    return 1 if violations else 0


def _keep(outcome: Outcome, folder: Path, keep: Path) -> None:
    """The report, the records and what the nodes printed."""
    place = keep / f"seed-{outcome.seed}-{time.time_ns()}"
    place.mkdir(parents=True)
    (place / "report.txt").write_text(outcome.report())
    for file in [*folder.glob("record-*"), *folder.glob("*-errors")]:
        shutil.copy(file, place)
    for violation in outcome.violations:
        print(f"VIOLATION: {violation}", flush=True)
    print(f"kept in {place}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
