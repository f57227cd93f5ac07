"""Short histories of real clusters with fixed seeds; `make chaos` makes more of them, and longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.history import play

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("mix", "seed"), [("everything", 17), ("pauses and partitions", 3), ("power and partitions", 23)]
)
async def test_histories_under_faults_have_an_order(tmp_path: Path, mix: str, seed: int) -> None:
    """Kills, pauses, partitions, sick disks, clocks and loss of power: every answer is explained, nothing is lost."""
    outcome = await play(tmp_path, seed, 4.0, mix, 3)
    assert outcome.violations == [], outcome.report()
    assert outcome.faults and sum(one.known for one in outcome.operations) > 200, str(outcome)
