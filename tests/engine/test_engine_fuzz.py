"""Random schedules over whole groups: members change, leaders hand over, logs are purged, disks and links fail."""

from __future__ import annotations

import pytest

from tests.engine.fuzz_group import run_schedule

SCHEDULES = 1200
SLICES = 6


@pytest.mark.parametrize("slice_number", range(SLICES))
def test_every_schedule_is_safe_and_ends_in_agreement(slice_number: int) -> None:
    """Election safety, log matching, leader completeness and intersecting quorums after every step; in the end peace.

    A failure names its seed: `run_schedule(seed)` repeats it exactly. That the schedules reach what they are for is
    asserted as well: a fuzz in which no voter is ever promoted proves nothing.
    """
    counted: dict[str, int] = {}
    size = SCHEDULES // SLICES
    for seed in range(slice_number * size, (slice_number + 1) * size):
        try:
            group = run_schedule(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        for name, number in group.counted.items():
            counted[name] = counted.get(name, 0) + number
    expected = {
        "ADD_LEARNER", "PROMOTE", "DEMOTE", "REMOVE", "REPLACE", "SET_VOTERS", "transfers", "purges", "installs",
        "damages", "lost disks",
    }  # fmt: skip
    assert expected <= {name for name, number in counted.items() if number}, counted
