"""`python -m tests.sim.run --seconds N --seed S`: as many schedules as fit, each from one seed.

A schedule that breaks a property is made small and told with its event log. A line says whether the compiled engine
ran; the last line is always `schedules: N violations: M`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from queue import Empty
from typing import Any

import hiqlite.engine

from .coverage import Pairs, table
from .schedule import run_schedule, run_script, script_of
from .shrink import breaks_like, shrink


@dataclass
class Sum:
    """What a series of schedules came to."""

    schedules: int = 0
    events: int = 0
    committed: int = 0
    cpu_s: float = 0.0
    broken: dict[int, str] = field(default_factory=dict)
    pairs: Pairs = field(default_factory=Counter)
    met: Pairs = field(default_factory=Counter)

    def add(self, other: Sum) -> None:
        self.schedules += other.schedules
        self.events += other.events
        self.committed += other.committed
        self.cpu_s += other.cpu_s
        self.broken |= other.broken
        self.pairs += other.pairs
        self.met += other.met


def main() -> int:
    parser = argparse.ArgumentParser(prog="sim")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schedules", type=int, default=0, help="this many instead of a time")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--brief", action="store_true", help="say which seed broke a property, and end")
    parser.add_argument("--log", type=int, default=150, help="events printed of a failing schedule")
    options = parser.parse_args()
    began = time.monotonic()
    total = in_processes(options) if options.jobs > 1 else series(options, options.seed, 1)
    spent = time.monotonic() - began
    for seed, violation in sorted(total.broken.items()):
        print(f"seed {seed}: {violation}")
    if total.broken and not options.brief and not options.keep_going:
        tell(min(total.broken), options.log)
    if not options.brief:
        print("what a peer is, and how its leader sees it:")
        print(table(total.pairs))
        print("what else came to pass:")
        print(table(total.met))
    rate, rate_core = total.schedules / spent, total.schedules / max(total.cpu_s, 0.001)
    plain = plain_modules()
    print(f"engine: {'plain Python: ' + ', '.join(plain) if plain else 'compiled'}")
    told = f"{rate:.0f} schedules/s ({rate_core:.0f} per second of a core)"
    print(f"{total.events} events, {total.committed} committed entries, {told}")
    print(f"schedules: {total.schedules} violations: {len(total.broken)}")
    return 1 if total.broken else 0


def plain_modules() -> list[str]:
    """Of the engine's modules that are compiled in an installation, those that run as plain Python here."""
    typed = {path.stem for folder in hiqlite.engine.__path__ for path in Path(folder).glob("*.pxd")}
    modules = [importlib.import_module(f"hiqlite.engine.{name}") for name in sorted({"raft"} | typed)]
    compiled = tuple(EXTENSION_SUFFIXES)
    return [module.__name__ for module in modules if not str(module.__file__).endswith(compiled)]


def series(options: argparse.Namespace, seed: int, step: int) -> Sum:
    """Schedules of every `step`th seed from `seed` on, until the time is over or a property breaks."""
    total, cpu_began = Sum(), time.process_time()
    end = time.monotonic() + options.seconds
    gc.disable()  # a schedule leaves cycles, but no more than the collection between two schedules takes
    gc.collect()
    gc.freeze()  # what is imported stays: a collection need not look through it again and again
    while total.schedules * step < options.schedules if options.schedules else time.monotonic() < end:
        outcome = run_schedule(seed)
        total.add(Sum(1, outcome.events, outcome.committed, pairs=outcome.pairs, met=outcome.met))
        if outcome.violation:
            total.broken[seed] = outcome.violation
            if not options.keep_going:
                break
        seed += step
        if total.schedules % 16 == 0:
            gc.collect()
    total.cpu_s = time.process_time() - cpu_began
    return total


def in_processes(options: argparse.Namespace) -> Sum:
    """The same in several processes, each with seeds of its own; the first that fails ends all."""
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()

    def work(job: int) -> None:
        queue.put(series(options, options.seed + job, options.jobs))

    workers = [context.Process(target=work, args=(job,)) for job in range(options.jobs)]
    for worker in workers:
        worker.start()
    total, heard = Sum(), 0
    while heard < len(workers):
        try:
            total.add(queue.get(timeout=1.0))
            heard += 1
        except Empty:
            if any(worker.exitcode for worker in workers):
                raise SystemExit("a process of the simulator broke") from None
        if total.broken and not options.keep_going:
            break
    for worker in workers:
        if total.broken and not options.keep_going:
            worker.terminate()
        worker.join()
    return total


def tell(seed: int, events: int) -> None:
    """The smallest schedule like that of the seed, and what happened in it."""
    script = script_of(seed)
    small = shrink(script, breaks_like(script))
    again = run_script(small, keep_log=True)
    print("\n".join(again.log[-events:]))
    world = replace(small.profile, settings=script.profile.settings, weights={})
    print(f"the smallest schedule found, {len(small.strikes)} of {len(script.strikes)} strikes, in {world}")
    for number, strike in enumerate(small.strikes):
        print(f"  strike {number} at {strike.after_ns / 1e6:.0f} ms: {strike.name}")
    print(f"it ends with: {again.violation}")


if __name__ == "__main__":
    sys.exit(main())
