"""Restarts of a cluster of three processes: which there are, and one of them, done and checked.

A case names nodes by their role when it begins, since numbers mean nothing. Each case is the cluster of the last one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.chaos.two_groups import View
from tests.crash.harness import Member, Members, eventually

ROLES = ("leader", "one", "other")  # of the database's group
WAYS = ("gracefully", "killed")
PROGRAM = Path(__file__).parent / "retrying.py"
CREATE = "CREATE TABLE load (id INTEGER PRIMARY KEY, node INTEGER NOT NULL, text TEXT NOT NULL)"
TASKS = 2
WRITES = 10  # of each node that runs, before the next step


@dataclass(frozen=True, slots=True)
class Case:
    """One restart.

    Args:
        ends: (role, way) in the order in which they end.
        at_once: all end at the same time, else each after the one before it is gone.
        starts: roles in the order in which they start, each when the one before it listens.
    """

    ends: tuple[tuple[str, str], ...]
    at_once: bool
    starts: tuple[str, ...]

    def __str__(self) -> str:
        ends = (" and " if self.at_once else ", then ").join(" ".join(end) for end in self.ends)
        return f"{ends}; back: {', '.join(self.starts)}"

    def traits(self) -> tuple[str, ...]:
        """What is combined in pairs with what."""
        ways = dict(self.ends)
        fates = [f"{role} {ways.get(role, 'stays')}" for role in ROLES]
        first = "all end at once" if self.at_once else f"{self.ends[0][0]} ends first"
        return (*fates, first, f"{self.starts[0]} starts first", f"{self.starts[-1]} starts last")


def all_cases() -> list[Case]:
    """Every subset, way, order of the ends, order of the starts."""
    found = []
    for size in range(1, len(ROLES) + 1):
        for chosen in itertools.combinations(ROLES, size):
            for ways in itertools.product(WAYS, repeat=size):
                ends = tuple(zip(chosen, ways, strict=True))
                orders = [(order, False) for order in itertools.permutations(ends)]
                if size > 1:
                    orders.append((ends, True))
                found += [Case(order, at_once, starts) for order, at_once in orders
                          for starts in itertools.permutations(chosen)]  # fmt: skip
    return found


def pairs(case: Case) -> set[tuple[str, str]]:
    return set(itertools.combinations(case.traits(), 2))


def pairwise(cases: Iterable[Case]) -> Iterator[Case]:
    """Few cases in which every two traits meet that meet in any."""
    left = list(cases)
    missing = set().union(*map(pairs, left))
    while missing:
        best = max(left, key=lambda case: len(pairs(case) & missing))
        missing -= pairs(best)
        yield best


class Restarting:
    """Three processes with both groups, and clients on each that write all the time.

    Args:
        cache_on_disk: else a node's part of the cache group ends with its process, and begins anew as somebody else.
    """

    def __init__(self, folder: Path, *, cache_on_disk: bool = True) -> None:
        self.members = Members(folder, cache=True, wal_size="256 KiB", cache_storage_disk=cache_on_disk)
        self._kept = {"db", "cache"} if cache_on_disk else {"db"}
        for number, member in self.members.all.items():
            self.members.all[number] = Member(member.config, program=PROGRAM, keep_errors=True)
        self._acks: dict[int, Path] = {}  # of the node's clients that write now
        self._all_acks: list[Path] = []
        self._lives = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.members.__aexit__(*exc)

    async def form(self, *blocks: tuple[int, ...]) -> None:
        """Start empty nodes, block after block, each when the one before it listens."""
        for block in blocks:
            await self.members.start(*block)
        await self.members.in_order()

    async def begin(self) -> None:
        """A table, and clients on each node."""
        await self.members.all[1].do(do="execute", sql=CREATE)
        for number in self.members.all:
            await self._write(number)

    async def run(self, case: Case) -> None:
        """Ends and starts as the case says, then checks everything."""
        before = await self.members.in_order()
        files = self._files()
        leader = next(view.node for view in before if view.role == "leader" and view.group == "db")
        followers = [number for number in self.members.all if number != leader]
        numbers = dict(zip(ROLES, (leader, *followers), strict=True))
        await self._written()
        if case.at_once:
            await asyncio.gather(*(self._end(numbers[role], way) for role, way in case.ends))
        else:
            for role, way in case.ends:
                await self._end(numbers[role], way)
        for role in case.starts:
            await self.members.start(numbers[role])
            await self._write(numbers[role])
        await self._written()
        await self._stop_writing()
        after = await self.members.in_order()
        assert lives(before, self._kept) == lives(after, self._kept), "a node lost its promises"
        assert files == self._files(), "a node was rebuilt"
        await self.members.check_equal()
        await self.members.check_acknowledged(*self._all_acks)
        for number in self.members.all:
            await self._write(number)

    async def _end(self, number: int, way: str) -> None:
        member, self._acks = self.members.all[number], {one: at for one, at in self._acks.items() if one != number}
        if way == "gracefully":
            assert member.process is not None and member.process.stdin is not None
            member.process.stdin.close()
            assert (await member.answer())["unhealed"] == []
            assert await member.process.wait() == 0
        await member.kill()

    async def _write(self, number: int) -> None:
        life = next(self._lives)
        file = self.members.folder / f"acks-{life}"
        await self.members.all[number].do(do="write", acks=str(file), tasks=TASKS, start=life << 32, node=number)
        self._acks[number] = file
        self._all_acks.append(file)

    async def _stop_writing(self) -> None:
        for number in list(self._acks):
            assert (await self.members.all[number].do(do="stop_writing"))["unhealed"] == []
        self._acks = {}

    async def _written(self) -> None:
        """Clients of each node have written more, whoever was away."""
        wanted = {file: file.stat().st_size + 8 * WRITES for file in self._acks.values()}

        async def enough() -> bool:
            await asyncio.sleep(0.005)
            return all(file.stat().st_size >= size for file, size in wanted.items())

        await eventually(enough)

    def _files(self) -> dict[int, tuple[object, ...]]:
        """What would change if a node's database or its logs were made anew."""
        found: dict[int, tuple[object, ...]] = {}
        for number, member in self.members.all.items():
            databases = sorted((str(path), path.stat().st_ino) for path in (member.folder / "db").glob("*/hiqlite.db"))
            assert databases
            found[number] = (databases, (member.folder / "aside").exists())
        return found


def lives(views: Iterable[View], groups: set[str]) -> set[tuple[int, str, int]]:
    return {(view.node, view.group, view.life) for view in views if view.group in groups}
