"""A few rounds of torture.py with fixed seeds; `python tests/crash/torture.py --minutes M --seed S` does more."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture import play

pytestmark = pytest.mark.timeout(240)


async def test_kills_and_pauses_under_load_break_no_promise(tmp_path: Path) -> None:
    """kill -9 and SIGSTOP of leader, followers, two, all: acknowledged once everywhere, no stale read, nobody hangs."""
    assert await play(tmp_path, seed=17, rounds=2, seconds=5.0, name="kills", power=False) == []


async def test_loss_of_power_under_load_breaks_no_promise(tmp_path: Path) -> None:
    """The same with loss of power of one or all nodes, what a killed life had not synced being lost as well."""
    assert await play(tmp_path, seed=23, rounds=1, seconds=6.0, name="power", power=True) == []
