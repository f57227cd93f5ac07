"""`python -m tests.sim.foundings --seconds N --seed S`: how groups come to be, and nothing else, one schedule per seed.

The moments in which a volume may be lost are few, and a whole schedule after each would be a waste of them. The last
line is always `schedules: N violations: M`.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from random import Random

from .forming import Ground, found
from .world import Violation, World

LOSSES = (0.0, 0.02, 0.2, 0.5)


@dataclass(frozen=True, slots=True)
class Founding:
    """`departed`: how often a node left its set. `anew`: how often all was emptied by hand."""

    seed: int
    violation: str = ""
    departed: int = 0
    anew: int = 0


def run_founding(seed: int, *, leaves: bool | None = None) -> Founding:
    """The schedule of a seed.

    Args:
        leaves: whether sets that cannot form are left; None: the seed tells.
    """
    random = Random(seed)
    count, loss = random.choice((1, 2, 3, 3, 3, 4, 5)), random.choice(LOSSES)
    chosen, ordered = random.random() < 0.8, random.random() < 0.7
    ground = Ground(World(random, False), count, loss, leaves=chosen if leaves is None else leaves, ordered=ordered)
    violation = ""
    try:
        found(ground)
    except Violation as broken:
        violation = str(broken)
    except Exception as error:
        violation = f"{type(error).__name__}: {error}"
    return Founding(seed, violation, ground.departed, ground.anew)


def main() -> int:
    parser = argparse.ArgumentParser(prog="foundings")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schedules", type=int, default=0, help="this many instead of a time")
    parser.add_argument("--brief", action="store_true", help="say no more than what was broken")
    options = parser.parse_args()
    end, made = time.monotonic() + options.seconds, []
    while len(made) < options.schedules if options.schedules else time.monotonic() < end:
        made.append(run_founding(options.seed + len(made)))
        if made[-1].violation:
            print(f"seed {made[-1].seed}: {made[-1].violation}")
            break
    if not options.brief:
        departed, anew = sum(one.departed > 0 for one in made), sum(one.anew > 0 for one in made)
        print(f"{departed} in which a set was left, {anew} in which all was emptied by hand")
    broken = sum(one.violation != "" for one in made)
    print(f"schedules: {len(made)} violations: {broken}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
