"""Short histories of real clusters with fixed seeds; `make chaos` makes more of them, and longer ones."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.chaos.history import play
from tests.chaos.subjects import Cluster

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("mix", "seed", "cache"),
    [("everything", 17, "memory"), ("pauses and partitions", 3, "disk"), ("power and partitions", 23, "disk"),
     ("members", 7, "memory"), pytest.param("disks", 5, "disk", marks=pytest.mark.long),
     pytest.param("long pause", 1, "disk", marks=pytest.mark.long)],
)  # fmt: skip
async def test_histories_under_faults_have_an_order(tmp_path: Path, mix: str, seed: int, cache: str) -> None:
    """Kills, pauses, partitions, sick disks, clocks, loss of power, changes of members: every answer is explained,
    nothing is lost, both groups end with the same members."""
    outcome = await play(tmp_path, seed, 3.0, mix, 3, cache)
    assert outcome.violations == [], outcome.report()
    assert outcome.faults and sum(one.known for one in outcome.operations) > 200, str(outcome)
    assert any(one.known and one.family == "token" for one in outcome.operations), str(outcome)


async def test_a_node_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    """Also when a fault would have killed it a moment later."""
    async with Cluster(tmp_path, 3, random.Random(1), power=False, epoch=0, cache="disk") as cluster:
        one, two, _ = cluster.subjects
        await cluster.ready(clients=False)
        process = one.member.process
        assert process is not None
        process.send_signal(signal.SIGSEGV)
        await process.wait()
        await one.kill()
        await two.kill()
        assert one.deaths == [f"node 1 ended by itself: {-signal.SIGSEGV}"]
        assert two.deaths == []
