"""A slice of the simulator for every run of the suite; `python -m tests.sim.run` goes on for as long as one likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hiqlite.engine.raft
from tests.sim.run import plain_modules
from tests.sim.schedule import Outcome, Script, run_schedule, script_of
from tests.sim.shrink import shrink

ROOT = Path(__file__).resolve().parents[2]
SLICES = 8
SCHEDULES_PER_SLICE = 60
PAIRS_MIN = 70  # of what a peer is and how its leader sees it; more than a hundred are possible, most of them rare
MET = {
    "follower": {
        "unlinked", "probe sent", "behind", "in flight", "window full", "fetching", "level", "image asked for",
        "image on its way", "image to be resumed", "to be handed over to", "told to campaign",
    },
    "learning learner": {
        "unlinked", "probe sent", "catching up", "in flight", "window full", "fetching", "level", "image on its way",
    },
    "outgoing follower": {"probe sent", "in flight", "level"},
    "departed learner": {"probe sent", "in flight", "level"},
    "stalled": {"probe sent", "in flight", "window full", "level"},
    "stopped": {"probe sent", "window full", "level"},
    "installing": {"image on its way", "image to be resumed"},
    "unconfirmed": {"unlinked", "probe sent"},
    "pre-candidate": {"unlinked", "probe sent", "level"},
    "candidate": {"probe sent"},
    "leader": {"probe sent", "level"},
    "failed": {"probe sent", "in flight"},
    "down": {"unlinked"},
}  # fmt: skip
CAME_TO_PASS = {
    "reads": {
        "leader serves at once", "follower serves at once", "follower serves when it was applied",
        "learner serves at once", "learner serves when it was applied", "asked again",
    },
    "disks": {
        "stands still, leader", "full, leader", "full, follower", "has room again, leader", "has room again, follower",
        "what was to be written fails, leader", "what was to be written fails, follower",
        "what was to be synced fails, leader", "what was to be synced fails, follower",
    },
}  # fmt: skip


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


def test_the_compiled_engine_is_what_runs() -> None:
    """All of it, as in an installation; and whoever runs the simulator reads so."""
    assert str(hiqlite.engine.raft.__file__).endswith(".so") and plain_modules() == []
    command = [sys.executable, "-m", "tests.sim.run", "--schedules", "1"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True).stdout
    assert "engine: compiled\n" in said and said.endswith("schedules: 1 violations: 0\n")


def test_a_schedule_that_breaks_shrinks_to_the_strikes_that_matter() -> None:
    """Two strikes of many, and no noise that is not needed; the order of time stays."""
    script = next(made for made in map(script_of, range(1, 1000)) if len(made.strikes) > 30 and made.profile.loss)
    first, second = script.strikes[7], script.strikes[25]

    def breaks(candidate: Script) -> bool:
        return first in candidate.strikes and second in candidate.strikes

    small = shrink(script, breaks)
    assert small.strikes == (first, second)
    assert small.seed == script.seed and small.profile.loss == 0


@pytest.fixture(scope="module")
def many() -> list[Outcome]:
    """What came of many schedules."""
    return [run_schedule(seed) for seed in range(2_000_500, 2_000_750)]


def test_reads_disks_and_members_go_through_all_that_they_may(many: list[Outcome]) -> None:
    """Reads of followers and learners, disks that fill up and fail, and up to seven voters, in one step too."""
    met = {pair for outcome in many for pair in outcome.met}
    assert {(about, what) for about, those in CAME_TO_PASS.items() for what in those} - met == set()
    sizes = {what for about, what in met if about == "voters"}
    joint = {what for what in sizes if "become" in what}
    assert any(what.startswith("7") for what in sizes - joint) and any("7" in what for what in joint), sizes
    assert any(what.startswith(("5", "6", "7")) and what.endswith("learn") for what in joint), joint


def test_the_slices_meet_every_kind_of_peer(many: list[Outcome]) -> None:
    """A leader sees peers in each role, running or not, linked or not, near or far: else the slices prove little.

    What counts is the two together: a log that is sent anew to who just lost it is another matter than either.
    """
    met = {pair for outcome in many for pair in outcome.pairs}
    roles = {"damaged", *MET}
    assert roles <= {what for what, _ in met}
    assert {(what, seen) for what, states in MET.items() for seen in states} - met == set()
    assert len(met) >= PAIRS_MIN, sorted(met)
