"""kill -9 of a process in the middle of its write: another process sends it again, and it happens once."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from harness import CREATE, Member, Members, eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

INSERT = "INSERT INTO load (node, text) VALUES (?, ?)"
WRITE = {"sql": INSERT, "params": [0, "once"], "request_id": "by hand"}
COUNT = "SELECT count(*) FROM load WHERE text = 'once'"


async def count_on(member: Member, consistency: str) -> int:
    rows = (await member.do(do="query", sql=COUNT, consistency=consistency))["rows"]
    return int(rows[0][0])


async def answers(*members: Member) -> list[dict[str, Any]]:
    """What each is told of the same write, one after the other."""
    return [await member.do(do="execute", **WRITE) for member in members]


async def begun(members: Members, leads: bool) -> tuple[Member, list[Member]]:
    """(who is to be killed, the others); all are there, the clients of each have written before."""
    await members.start()
    leader = await members.leader()
    await leader.do(do="execute", sql=CREATE)
    for member in members.up:
        await member.do(do="execute", sql=INSERT, params=[member.config["node_id"], "before"])
    sender = leader if leads else next(member for member in members.up if member is not leader)
    return sender, [member for member in members.up if member is not sender]


async def check(members: Members, sender: Member, others: list[Member]) -> None:
    """The others are given one answer, and so is the sender's next life; there is one row, everywhere."""
    first, *more = await answers(*others, *others)
    assert (first["rows"], more) == (1, [first] * 3)
    await sender.start()
    await sender.answer()
    assert await answers(sender) == [first]
    await members.check_equal()
    await members.in_order()
    assert await count_on(sender, "local") == 1


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
async def test_a_write_that_had_left_its_killed_sender(tmp_path: Path, leads: bool) -> None:
    """What it has said is on its way to the others, or in their logs; nobody has confirmed anything."""
    async with Members(tmp_path) as members:
        sender, others = await begun(members, leads)
        for other in others:
            other.signal(signal.SIGSTOP)
        assert not (await sender.do(do="begin", **WRITE))["done"]
        await sender.kill()
        for other in others:
            other.signal(signal.SIGCONT)
        await check(members, sender, others)


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
async def test_a_write_that_was_applied_when_its_sender_was_killed(tmp_path: Path, leads: bool) -> None:
    """Whether it was told so itself or not."""
    async with Members(tmp_path) as members:
        sender, others = await begun(members, leads)
        await sender.do(do="begin", **WRITE)

        async def applied() -> bool:
            return await count_on(others[0], "local") == 1

        await eventually(applied)
        await sender.kill()
        await check(members, sender, others)


async def test_a_write_that_its_killed_sender_said_to_nobody(tmp_path: Path) -> None:
    """In the log of a leader that was alone: it is cut off there, and the others' retry is the only one."""
    async with Members(tmp_path) as members:
        sender, others = await begun(members, leads=True)
        for other in others:
            await other.kill()
        await sender.do(do="begin", **WRITE)
        await sender.kill()
        await members.start(*(other.config["node_id"] for other in others))
        assert await count_on(others[0], "linearizable") == 0
        await check(members, sender, others)
