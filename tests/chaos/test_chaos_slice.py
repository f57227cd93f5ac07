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
    ("mix", "seed"), [("everything", 17), ("pauses and partitions", 3), ("power and partitions", 23)]
)
async def test_histories_under_faults_have_an_order(tmp_path: Path, mix: str, seed: int) -> None:
    """Kills, pauses, partitions, sick disks, clocks and loss of power: every answer is explained, nothing is lost."""
    outcome = await play(tmp_path, seed, 4.0, mix, 3)
    assert outcome.violations == [], outcome.report()
    assert outcome.faults and sum(one.known for one in outcome.operations) > 200, str(outcome)


async def test_a_node_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    """Also when a fault would have killed it a moment later."""
    async with Cluster(tmp_path, 3, random.Random(1), power=False, epoch=0) as cluster:
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
