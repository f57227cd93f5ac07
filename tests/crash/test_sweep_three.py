"""A sample of the crash sweep on three nodes; `make sweep` takes more."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from sweep_three import KINDS, LOGS, WAYS, points, sweep_three

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("logs", "count", "seed"),
    [("short logs", 1, 1), *(pytest.param(logs, 10, 2, marks=pytest.mark.long) for logs in LOGS)],
)
async def test_a_member_killed_at_a_change_of_its_disk_costs_nothing(
    tmp_path: Path, logs: str, count: int, seed: int
) -> None:
    """kill -9 and loss of power under load on all three: what was acknowledged is there, once, on all of them, in one
    order, in both groups."""
    await sweep_three(tmp_path, logs, count, seed)


def test_a_sample_has_every_way_and_every_kind_of_change() -> None:
    """The long ones do; and the leader is hit as well as a follower."""
    drawn = list(islice(points(2, "short logs"), 10))
    assert {point.how for point in drawn} == set(WAYS) and len({(point.leads, point.needed) for point in drawn}) == 4
    assert {point.kind for point in drawn} == set(KINDS)
