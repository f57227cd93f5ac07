"""A slice of the simulator for every run of the suite; `python -m tests.sim.run` goes on for as long as one likes."""

from __future__ import annotations

import pytest

from tests.sim.schedule import Script, run_schedule, script_of
from tests.sim.shrink import shrink

SLICES = 8
SCHEDULES_PER_SLICE = 60


@pytest.mark.parametrize("number", range(SLICES))
def test_no_property_breaks_in_a_slice_of_schedules(number: int) -> None:
    """Elections, replication, reads, changes of members, transfers, images and repairs, all of it in trouble."""
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


def test_a_schedule_that_breaks_shrinks_to_the_strikes_that_matter() -> None:
    """Two strikes of many, and no noise that is not needed; the order of time stays."""
    script = next(made for made in map(script_of, range(1, 1000)) if len(made.strikes) > 30 and made.profile.loss)
    first, second = script.strikes[7], script.strikes[25]

    def breaks(candidate: Script) -> bool:
        return first in candidate.strikes and second in candidate.strikes

    small = shrink(script, breaks)
    assert small.strikes == (first, second)
    assert small.seed == script.seed and small.profile.loss == 0


def test_the_slices_meet_every_kind_of_peer() -> None:
    """A leader sees peers in each role, running or not, linked or not, near or far: else the slices prove little."""
    met: set[tuple[str, str]] = set()
    for seed in range(2_000_000, 2_000_250):
        met |= set(run_schedule(seed).pairs)
    roles = {
        "follower", "pre-candidate", "candidate", "leader", "damaged", "down", "stopped", "stalled",
        "unconfirmed", "installing", "learning learner", "outgoing follower", "departed learner",
    }  # fmt: skip
    assert roles <= {what for what, _ in met}
    states = {
        "unlinked", "probe sent", "in flight", "window full", "fetching", "level", "image asked for",
        "image on its way", "image to be resumed", "catching up", "to be handed over to", "told to campaign",
    }  # fmt: skip
    assert states <= {seen for _, seen in met}
