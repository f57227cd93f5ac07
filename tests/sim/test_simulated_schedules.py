"""A slice of the simulator for every run of the suite; `python -m tests.sim.run` goes on for as long as one likes."""

from __future__ import annotations

import pytest

from tests.sim.schedule import run_schedule

SLICES = 8
SCHEDULES_PER_SLICE = 60


@pytest.mark.parametrize("number", range(SLICES))
def test_no_property_breaks_in_a_slice_of_schedules(number: int) -> None:
    """Elections, replication, reads and starts under loss, crashes, partitions, pauses and stalls."""
    first = 1_000_000 + number * SCHEDULES_PER_SLICE
    broken = {}
    for seed in range(first, first + SCHEDULES_PER_SLICE):
        outcome = run_schedule(seed)
        if outcome.violation:
            broken[seed] = outcome.violation
    assert not broken, f"run again with: python -m tests.sim.run --schedules 1 --seed {min(broken)}\n{broken}"


def test_a_seed_repeats_itself() -> None:
    """One seed is one schedule, event for event."""
    assert run_schedule(77) == run_schedule(77)
