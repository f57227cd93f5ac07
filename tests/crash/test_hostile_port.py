"""The raft ports of real processes under attack, under load: who has no secret gets in nowhere and disturbs nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import Members, acknowledged, begin_load, eventually, noted
from hostility import Attacker, Wiretap, steps

from hiqlite.transport.handshake import CHALLENGE, REFUSAL, WELCOME

PLACES = 20  # connections to one port at once while each is heard out: far fewer than it keeps
GROWTH_MB = 48.0  # of each process's peak, its own writes included
REASONS = ("garbage", "oversized", "truncated", "malformed", "wrong_secret", "timeout", "crowded")

pytestmark = pytest.mark.timeout(300)


async def states(members: Members) -> dict[int, dict[str, Any]]:
    """Of each: who leads in which term, its network, its peak of memory."""
    whats = ("status", "network", "rss")
    return {
        number: {key: value for what in whats for key, value in (await member.do(do=what)).items()}
        for number, member in members.all.items()
    }


async def attack(attacker: Attacker, crowd: int) -> int:
    """Visits that are heard out, then a crowd; how many connections that were."""
    places = asyncio.Semaphore(PLACES)
    visits = attacker.visits

    async def is_let_in(number: int) -> bool:
        async with places:
            return WELCOME in steps(await visits[number]())

    assert not any(await asyncio.gather(*(is_let_in(number) for number in range(len(visits)))))
    assert steps(await attacker.crowd(crowd)) == [CHALLENGE, REFUSAL]  # the crowd keeps nobody out
    return len(visits) + crowd + 1


@pytest.mark.parametrize("crowd", [1000, pytest.param(20_000, marks=pytest.mark.long)])
async def test_attacks_on_the_raft_ports_change_nothing(tmp_path: Path, crowd: int) -> None:
    """Noise, slow and silent connections, wrong secrets, and what node 1 said to node 2 in their handshakes, recorded
    on its way: each connection is refused and counted, no session of two nodes ends, callers meet no error, and no
    process grows."""
    members = Members(tmp_path)
    nodes = members.all[1].config["nodes"]
    raft = {number: int(line.split()[1].rpartition(":")[2]) for number, line in enumerate(nodes, 1)}
    async with Wiretap(raft[2]) as wiretap, members:
        members.all[1].config["nodes"] = [nodes[0], nodes[1].replace(f":{raft[2]} ", f":{wiretap.port} "), nodes[2]]
        await members.start_with_table()
        files = await begin_load(members, 4)
        await acknowledged(files, 1000)

        async def all_linked() -> bool:
            sessions = [epoch for one in (await states(members)).values() for epoch in one["epochs"].values()]
            return all(sessions) and len(wiretap.recorded) >= 3  # of a log, a control and a beat link

        await eventually(all_linked)
        before, written = await states(members), noted(files)
        attackers = [Attacker(number, port, wiretap.recorded) for number, port in raft.items()]
        came = await asyncio.gather(*(attack(one, crowd) for one in attackers))

        async def nobody_waits() -> bool:
            return not any(one["unproven"] for one in (await states(members)).values())

        await eventually(nobody_waits)
        assert noted(files) > written + 500
        assert await members.end_load() == {1: {}, 2: {}, 3: {}}
        for number, after in (await states(members)).items():
            for what in ("term", "leader", "epochs"):
                assert after[what] == before[number][what]
            refused = Counter(after["refusals"]) - Counter(before[number]["refusals"])
            assert sum(refused.values()) == came[number - 1]
            assert min(refused[reason] for reason in REASONS) > 0
            assert after["mb"] < before[number]["mb"] + GROWTH_MB
        await members.check_after_load(*files)
