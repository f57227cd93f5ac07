"""Crash sweep on three real processes: under load on all of them one is killed at a change of its disk, and again.

Both groups have their logs on disks. The victim, the leader or a follower, dies before its k-th write, sync, change of
a name or of a size, in the ways of `sweep.py`: the process only, in the middle of a write, or with its power, when what
was not synced is dropped, torn or kept in any order; in some ways the start after that is cut short as well. Either the
others go on meanwhile; or one of them is stopped, so that each write needs the victim's disk, and the other one is
killed behind it: then the victim, back with what its disk kept, and who was stopped have to know all. In the end all
three hold the same, what was acknowledged is there, once, both groups are in order, and where the logs are long enough
no database was rebuilt. Chance tells whom, how, and k; processes make the moments.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from harness import CREATE, DEADLINE_S, HERE, Member, Members, acknowledged, begin_load, build_library, noted
from sweep_server import LOSS, SECOND

TASKS = 8  # of the load on each node
SOME = 100  # writes
POINTS_OF_A_CLUSTER = 10
STEPS_OF_A_START = 60
KINDS = {"write": 1, "sync": 2, "name": 4, "size": 8, "change": 15}  # killpoint.c
# k is drawn from 1 to so many: some seconds of a load.
K_MAX = {"write": 800, "sync": 250, "name": 8, "size": 6, "change": 1000}
WAYS = ("kill", "half", "drop", "torn", "any", "again", "again_any", "then_drop", "then_any")
# Short logs are purged and recycled all the time, and who was away needs an image; with long ones it must not.
LOGS: dict[str, dict[str, Any]] = {
    "short logs": {"wal_size": "64 KiB", "logs_until_snapshot": 50}, "long logs": {"wal_size": "1 MiB"},
}  # fmt: skip
KINDS_OF = {"short logs": tuple(KINDS), "long logs": ("write", "sync", "change")}


@dataclass(frozen=True)
class Point:
    """Who dies where, and how."""

    leads: bool
    needed: bool  # for every write
    kind: str
    k: int
    how: str
    seed: int


def points(seed: int, logs: str) -> Iterator[Point]:
    """Without end: each way in its turn, and each kind of change in its own."""
    chance = random.Random(seed)
    first, kinds = chance.randrange(len(WAYS)), KINDS_OF[logs]
    for number in count(first):
        how = WAYS[number % len(WAYS)]
        kind = "write" if how == "half" else kinds[number % len(kinds)]
        k, leads = chance.randint(1, K_MAX[kind]), chance.random() < 0.5
        yield Point(leads, number % 2 == 0, kind, k, how, chance.getrandbits(32))


class Sweep:
    """Three members on disks that can be cut off at a step."""

    def __init__(self, folder: Path, logs: str) -> None:
        killpoint, self._power = (build_library(HERE / name, folder) for name in ("killpoint.c", "powerloss.c"))
        self.members = Members(folder, **LOGS[logs])
        for member in self.members.all.values():
            member.environment = {"LD_PRELOAD": str(killpoint)}
        self._rebuilds = logs == "short logs"
        self._files: list[Path] = []

    async def begin(self) -> None:
        await self.members.start(preload=self._power)
        await (await self.members.leader()).do(do="execute", sql=CREATE)

    async def visit(self, point: Point) -> None:
        """One death, or two, and what has to hold after it. Raises AssertionError."""
        members = self.members
        leader = await members.leader()
        followers = [member for member in members.up if member is not leader]
        random.Random(point.seed).shuffle(followers)
        victim, other = (leader, followers[0]) if point.leads else (followers[0], leader)
        generations = members.generations
        files = await begin_load(members, TASKS)
        self._files += files
        await acknowledged(files, SOME)
        if point.needed:
            followers[1].signal(signal.SIGSTOP)
        await self._cut_short(victim, point)
        if point.needed:
            await other.kill()
            followers[1].signal(signal.SIGCONT)
        else:
            await acknowledged(files, noted(files) + SOME)
        await victim.start(self._power, keep_durable=True)
        await victim.answer()
        await acknowledged(files, noted(files) + SOME)
        if point.needed:
            await other.start(self._power, keep_durable=True)
            await other.answer()
        await members.check_after_load(*self._files)
        assert self._rebuilds or members.generations == generations, "a database was rebuilt"

    async def _cut_short(self, victim: Member, point: Point) -> None:
        first, second = SECOND.get(point.how, (point.how, None))
        order = self._order(point.k, first, point.seed, KINDS[point.kind])
        victim.tell(do="arm", folder=str(victim.folder), **order)
        await self._dies(victim, first)
        if second is not None:
            order = self._order(1 + point.seed % STEPS_OF_A_START, second, point.seed + 1, KINDS["change"])
            words = " ".join(str(order[name]) for name in ("k", "half", "loss", "seed", "kinds"))
            armed = {"HQ_KILL_ROOT": str(victim.folder), "HQ_KILL_ORDER": words}
            await victim.start(self._power, keep_durable=True, environment=armed)
            await self._dies(victim, second)

    @staticmethod
    def _order(k: int, how: str, seed: int, kinds: int) -> dict[str, int]:
        return {"k": k, "half": int(how == "half"), "loss": LOSS[how], "seed": seed, "kinds": kinds}

    async def _dies(self, victim: Member, how: str) -> None:
        assert victim.process is not None
        await asyncio.wait_for(victim.process.wait(), DEADLINE_S)
        assert victim.process.returncode == -signal.SIGKILL
        await victim.kill()
        if LOSS[how] >= 0:
            victim.lose_power()


async def sweep_three(folder: Path, logs: str, how_many: int, seed: int) -> None:
    """So many points, one behind the other on the same three folders. Raises AssertionError with the point."""
    sweep = Sweep(folder, logs)
    async with sweep.members:
        await sweep.begin()
        for point in islice(points(seed, logs), how_many):
            try:
                await sweep.visit(point)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{logs}, {point}: {error or type(error).__name__}") from error


async def sample(folder: Path, how_many: int, seed: int, say: Callable[[str], None]) -> int:
    """So many points, each few of them on a cluster of their own. Returns how many of the clusters broke a promise."""
    violations = 0
    for number, first in enumerate(range(0, how_many, POINTS_OF_A_CLUSTER)):
        place, logs = folder / f"three-{number}", list(LOGS)[number % len(LOGS)]
        place.mkdir()
        try:
            await sweep_three(place, logs, min(POINTS_OF_A_CLUSTER, how_many - first), seed + number)
        except AssertionError as error:
            violations += 1
            say(f"seed={seed + number}: {error}")
        shutil.rmtree(place)
        say(f"{min(first + POINTS_OF_A_CLUSTER, how_many)} of {how_many} points, violations: {violations}")
    return violations
