"""A slice of the crash sweep: every seventh step, the ways in turn. All of it is `make sweep`."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep import WAYS, sweep

pytestmark = pytest.mark.timeout(240)


async def test_a_node_killed_at_any_change_of_its_disk_keeps_its_promises(tmp_path: Path) -> None:
    """kill -9 and loss of power in each way: acknowledged writes are there, once, and the log is whole."""
    outcome = await sweep(tmp_path, every=7, first=1, ways=WAYS, rotate=True)
    assert outcome.violations == []
    assert outcome.steps > 150
    assert all(outcome.points[way] > 2 for way in WAYS)
