"""`python -m tests.sim.run --seconds N --seed S`: as many schedules as fit, each from one seed.

A seed that breaks a property is run again with its event log printed. The last line is always
`schedules: N violations: M`.
"""

from __future__ import annotations

import argparse
import sys
import time

from .schedule import run_schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="sim")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schedules", type=int, default=0, help="this many instead of a time")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--brief", action="store_true", help="say which seed broke a property, and end")
    parser.add_argument("--log", type=int, default=120, help="events printed of a failing schedule")
    options = parser.parse_args()
    began = time.monotonic()
    schedules = violations = events = committed = 0
    seed = options.seed
    while schedules < options.schedules if options.schedules else time.monotonic() - began < options.seconds:
        outcome = run_schedule(seed)
        schedules += 1
        events += outcome.events
        committed += outcome.committed
        if outcome.violation:
            violations += 1
            print(f"seed {seed}: {outcome.violation}")
            if options.brief:
                break
            if not options.keep_going:
                again = run_schedule(seed, keep_log=True)
                print("\n".join(again.log[-options.log :]))
                break
        seed += 1
    spent = time.monotonic() - began
    print(f"{events} events, {committed} committed entries, {schedules / spent:.0f} schedules/s")
    print(f"schedules: {schedules} violations: {violations}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
