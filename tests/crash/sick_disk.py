"""A disk that fails or fills up when it is told to, under one of three real processes."""

from __future__ import annotations

import asyncio
import itertools
import mmap
from pathlib import Path

from harness import CREATE, Member, Members, eventually


class SickDisk:
    """Orders to the disk of one member, see `tests/logstore/faulty_disk.c`; 0 takes an order back."""

    FDATASYNC, FALLOCATE, DATABASE, DATABASE_SYNC = 0, 2, 8, 9

    def __init__(self, library: Path, folder: Path) -> None:
        path = folder / "orders"
        path.write_bytes(bytes(64))
        self.environment = {"LD_PRELOAD": str(library), "FAULTY_DISK": str(path)}
        with path.open("r+b") as file:
            self._orders = mmap.mmap(file.fileno(), 64)

    def __setitem__(self, which: int, error: int) -> None:
        self._orders[which] = error

    def close(self) -> None:
        self._orders.close()


class Inserts:
    """Rows through one member, one after the other from `first` on.

    Attributes:
        refused: those that a full disk refused, not applied.
        outcomes: of all that a full disk is said of.
    """

    def __init__(self, member: Member, first: int) -> None:
        self.refused: list[int] = []
        self.outcomes: set[object] = set()
        self._member = member
        self._numbers = itertools.count(first)

    async def next(self) -> dict[str, object]:
        """The answer to the next one, an error included."""
        number = next(self._numbers)
        answer = await try_insert(self._member, number)
        if says(answer, "DiskFull"):
            self.outcomes.add(answer["outcome"])
            if answer["outcome"] == "not_applied":
                self.refused.append(number)
        return answer

    async def until_refused(self) -> None:
        async def full() -> bool:
            await self.next()
            return bool(self.refused)

        await eventually(full)

    async def until_taken(self) -> None:
        async def taken() -> bool:
            return "index" in await self.next()

        await eventually(taken)


async def try_insert(member: Member, number: int) -> dict[str, object]:
    """The answer to an INSERT, an error included."""
    member.tell(do="execute", sql="INSERT INTO load VALUES (?, 1, ?)", params=[number, "x" * 2000], timeout=5)
    return await member.answer()


def says(answer: dict[str, object], error: str) -> bool:
    return error in str(answer.get("error"))


async def lead(members: Members, wanted: Member) -> None:
    """Make `wanted` the leader, by killing whoever leads instead."""

    async def leads() -> bool:
        leader = await members.leader()
        if leader is wanted:
            return True
        await leader.kill()
        await members.leader()
        await members.start(leader.config["node_id"])
        return False

    await eventually(leads)


async def start_with_sick(members: Members, disk: SickDisk) -> Member:
    """All three, node 1 on the sick disk and leading."""
    sick = members.all[1]
    sick.environment = disk.environment
    await sick.start()
    for number in (2, 3):
        await members.all[number].start()
    await asyncio.gather(*(member.answer() for member in members.up))
    await lead(members, sick)
    await sick.do(do="execute", sql=CREATE)
    return sick


async def leads_one_of(members: Members, wanted: set[int]) -> bool:
    return (await members.all[2].do(do="status"))["leader"] in wanted
