"""Members that come, learn, vote and go, on real processes under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from harness import CREATE, Member, Members, acknowledged, begin_load, noted

from tests.waiting import moment

# As after a leader that is silent: twice the upper election timeout. A removal hands over, which takes milliseconds.
GAP_LIMIT_S = 2.0

pytestmark = pytest.mark.timeout(180)


def addresses(member: Member) -> list[str]:
    return str(member.config["nodes"][-1]).split()[1:]


async def longest_gap_s(files: list[Path], work: Coroutine[Any, Any, Any]) -> float:
    """The longest time in which no write of a load was acknowledged, while `work` is done."""
    task = asyncio.ensure_future(work)
    count, last_s, longest_s = noted(files), time.monotonic(), 0.0
    while not task.done():
        await moment()
        if noted(files) > count:
            longest_s = max(longest_s, time.monotonic() - last_s)
            count, last_s = noted(files), time.monotonic()
    await task
    return max(longest_s, time.monotonic() - last_s)


async def test_members_learn_vote_and_go_while_writes_go_on(tmp_path: Path) -> None:
    """A node that only reads, another that comes to vote, and the leader that is removed: no write is lost, and there
    are some all the time."""
    async with Members(tmp_path, more=2) as members:
        members.all[4].config["learner_only"] = True
        await members.start(1, 2, 3)
        await (await members.leader()).do(do="execute", sql=CREATE)
        files = await begin_load(members, 4)
        second = members.all[2]
        for number in (4, 5):
            await acknowledged(files, 100 * number)
            new = members.all[number]
            adding = second.do(do="manage", call="add_learner", ids=[number], addresses=addresses(new))
            await asyncio.gather(adding, members.start(number))
        await second.do(do="manage", call="promote", ids=[5])
        assert (await second.do(do="members"))["roles"] == {
            "1": "voter", "2": "voter", "3": "voter", "4": "learner", "5": "voter"
        }  # fmt: skip
        first = members.all[1]
        await members.lead(first)
        assert await members.end_load(1) == {1: {}}
        removing = second.do(do="manage", call="remove_member", ids=[1])
        assert await longest_gap_s(files, removing) < GAP_LIMIT_S
        await acknowledged(files, noted(files) + 300)
        await first.kill()
        assert await members.end_load() == {2: {}, 3: {}}
        left = {"2": "voter", "3": "voter", "4": "learner", "5": "voter"}
        for member in members.up:
            assert (await member.do(do="members"))["roles"] == left
        assert (await members.leader()).config["node_id"] in (2, 3, 5)
        await members.check_acknowledged(*files)
        await members.check_equal()
        await members.in_order((2, 3, 5), (4,))
