"""A slice of how groups come to be, for every run of the suite; `python -m tests.sim.foundings` goes on for longer."""

from __future__ import annotations

import pytest

from tests.sim.foundings import run_founding

FOUNDINGS = 800


@pytest.mark.parametrize("leaves", [True, False])
def test_a_group_comes_to_be_whatever_volume_is_lost_meanwhile(leaves: bool) -> None:
    """One group, one leader of a term, and an end: where a set that cannot form is left, and where it is kept."""
    made = [run_founding(seed, leaves=leaves) for seed in range(1, FOUNDINGS + 1)]
    broken = {one.seed: one.violation for one in made if one.violation}
    assert not broken, broken
    assert sum(one.departed > 0 for one in made) > FOUNDINGS // 10 if leaves else all(not one.departed for one in made)


def test_a_founding_repeats_itself() -> None:
    """One seed is one schedule."""
    assert run_founding(7) == run_founding(7)
