"""What the schedules whose logs are bytes do to them: else it would prove little that recovery bears it."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

from hiqlite.engine.model import Membership
from tests.sim.byte_disk import SEGMENT_BYTES, ByteDisk
from tests.sim.database import Database
from tests.sim.platter import SECTOR_BYTES, Platter
from tests.sim.profile import Strike
from tests.sim.schedule import Outcome, run_script, script_of
from tests.sim.world import World

MS = 1_000_000
FOUND = re.compile(r"recovery of node \d+ finds (-?\d+) of (\d+) writes that were not flushed, (\S.*), (.*)$")


def byte_schedules(first: int, count: int, weak: bool) -> list[Outcome]:
    """Outcomes of the first schedules from a seed on whose logs are bytes."""
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        script = script_of(first)
        first += 1
        if script.profile.platter and script.profile.weak_sync is weak:
            outcomes.append(run_script(script, keep_log=True))
    return outcomes


def found_in(outcomes: list[Outcome]) -> list[tuple[int, int, str, str]]:
    """(writes kept, writes not flushed, faulty ranges, what is wrong) of every recovery."""
    lines = [FOUND.search(line) for outcome in outcomes for line in outcome.log]
    return [(int(line[1]), int(line[2]), line[3], line[4]) for line in lines if line is not None]


def test_logs_of_bytes_are_torn_damaged_and_lost() -> None:
    """Of what was not flushed all, a part or nothing is found; entries are faulty, whole logs beyond telling."""
    outcomes = byte_schedules(3_000_000, 160, weak=False)
    assert not [outcome.violation for outcome in outcomes if outcome.violation]
    found = found_in(outcomes)
    assert any(kept == 0 < writes for kept, writes, _, _ in found)
    assert any(0 < kept < writes for kept, writes, _, _ in found)
    assert any(0 < kept == writes for kept, writes, _, _ in found)
    assert any(faulty != "()" for _, _, faulty, _ in found)
    assert any(wrong != "whole" for _, _, _, wrong in found)
    assert not any("has forgotten" in line for outcome in outcomes for line in outcome.log)


def test_weak_modes_forget_and_rarely_pay_for_it() -> None:
    """A loss of power takes what was promised on its word; seldom does a committed entry hang by that."""
    outcomes = byte_schedules(3_000_000, 160, weak=True)
    assert not [outcome.violation for outcome in outcomes if outcome.violation]
    assert any("has forgotten" in line for outcome in outcomes for line in outcome.log)
    assert 0 < sum(outcome.paid != "" for outcome in outcomes) < 20


def test_a_loss_of_power_keeps_any_of_the_sectors_not_flushed_and_all_that_were() -> None:
    """What was flushed stands; every choice of new and old sectors comes up, one of them torn inside."""
    kept: set[tuple[bool, ...]] = set()
    torn = 0
    for seed in range(400):
        platter = Platter(World(Random(seed), keep_log=False))
        platter.make(1, b"\1" * SECTOR_BYTES, SEGMENT_BYTES[0])
        platter.put(1, SECTOR_BYTES, b"\2" * (3 * SECTOR_BYTES))
        platter.flush(1)
        platter.put(1, 2 * SECTOR_BYTES, b"\3" * (3 * SECTOR_BYTES))
        platter.lose_power()
        content = bytes(platter.read(1))
        assert content[: 2 * SECTOR_BYTES] == b"\1" * SECTOR_BYTES + b"\2" * SECTOR_BYTES
        assert not any(content[5 * SECTOR_BYTES :])
        sectors = [content[at * SECTOR_BYTES :][:SECTOR_BYTES] for at in (2, 3, 4)]
        torn += any(0 < sector.count(3) < SECTOR_BYTES for sector in sectors)
        kept.add(tuple(sector.count(3) == SECTOR_BYTES for sector in sectors))
    assert len(kept) == 8 and torn > 0


def test_no_log_begins_behind_what_its_database_may_still_lose() -> None:
    """The power goes in the midst of a start: what the kernel had is lost to the log and the database alike."""
    profile = next(
        script.profile for script in map(script_of, range(3_000_000, 3_001_000))
        if script.profile.platter and script.profile.weak_sync
    )  # fmt: skip
    # All is written when the process ends, and mostly not flushed.
    profile = replace(profile, disk_ns=MS // 5, disk_stall=0.0, sync_every_ns=250 * MS)
    anew = 0
    for seed in range(600):
        world = World(Random(seed), keep_log=False)
        disk, database = ByteDisk(world, profile, 1, lambda found: None), Database(Membership(0, ()))
        disk.push((1, "state", 1, None, None))
        for index in range(1, 7):
            disk.push((1 + index, "append", index, [1], [index]))
        world.run_until(world.now_ns + 10 * profile.disk_ns)
        database.apply([1] * 6, [1, 2, 3, 4, 5, 6])
        disk.crash(power_loss=False)
        disk.restore(database, {})
        assert disk.base <= database.durable, seed
        anew += disk.base > 0
    assert anew, "no start found its log behind the database"


def test_a_log_that_a_strike_ruins_is_not_started_on() -> None:
    """Whatever a hand-over to a damaged node leaves of its log: beyond telling, the node comes back as another one."""
    scripts = (script_of(seed) for seed in range(3_000_000, 3_001_000))
    byte_scripts = [script for script in scripts if script.profile.platter and not script.profile.forming][:120]
    lost = 0
    for script in byte_scripts:
        strikes = tuple(Strike(100 * MS, "transfer_rotten", script.seed + at) for at in range(6))
        outcome = run_script(replace(script, strikes=strikes), keep_log=True)
        assert not outcome.violation, (script.seed, outcome.violation)
        lost += any("loses its disk" in line for line in outcome.log)
    assert lost, "no log was beyond telling"
