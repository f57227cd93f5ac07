"""Damage at every byte of a log of several segments, their headers too: flipped, cut off, torn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiqlite.engine.model import Identity
from hiqlite.logstore.segments import SegmentFolder
from hiqlite.logstore.starting import settle
from tests.logstore.log_checks import check_plan, said_by, state_of
from tests.logstore.log_twin import HEADER_BYTES, History, SegmentTwin, new_segment, plan_of

NEWEST = 3
SIZE_BYTES = 5632  # of each segment: little is left behind the last batch
UNUSED_STEP = 64
EVERY = pytest.param(1, marks=pytest.mark.long, id="every byte")
USED = pytest.param(UNUSED_STEP, id="every byte that is used")


def busy_log(folder: Path, last: str = "mark") -> tuple[list[SegmentTwin], History]:
    """A short life over three segments: votes, entries of three terms, a truncation in the middle of a batch; at the
    end a mark, a batch without one, or a segment that was made and not used yet."""
    history = History()
    first, second, third = (new_segment(n, first_io=io, size_bytes=SIZE_BYTES) for n, io in ((1, 1), (2, 4), (3, 8)))
    first.batch(1, 0, history.hard_state(1, Identity(7, 5)), 1)
    first.batch(2, 1, history.append(1, 3)[2], 3)
    first.mark()
    first.batch(3, 2, history.append(1, 1)[2], 1)
    first.finish()
    content = history.append(2, 4)[2] + history.truncate(5) + history.append(3, 2)[2]
    second.batch(6, 3, content, 7)
    second.batch(7, 6, history.hard_state(3, None), 1)
    second.finish()
    if last != "nothing":
        third.batch(8, 7, history.append(3, 2)[2], 2)
        third.batch(9, 8, history.append(3, 1)[2], 1)
    if last == "mark":
        third.mark()
    segments = [first, second, third]
    for segment in segments:
        segment.write(folder)
    return segments, history


def places(segment: SegmentTwin, step: int) -> Iterator[int]:
    """Each byte of the header and of the batches, and each `step`th one of the others."""
    for at in range(SIZE_BYTES):
        if at < HEADER_BYTES or 4096 <= at < len(segment.body) or at % step == 0:
            yield at


@pytest.mark.parametrize("step", [USED, EVERY])
@pytest.mark.parametrize(("number", "last"), [(1, "mark"), (2, "nothing"), (3, "mark"), (3, "batch")])
def test_a_flipped_bit_anywhere_never_makes_a_wrong_entry(tmp_path: Path, number: int, last: str, step: int) -> None:
    """Each byte in turn: a state that was, with all that is still said to be synced, or it says what it lost."""
    segments, history = busy_log(tmp_path, last)
    victim = segments[number - 1]
    path = victim.write(tmp_path)
    clean, chance = victim.content(), random.Random(number)
    for at in places(victim, step):
        damaged = bytearray(clean)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        plan = plan_of(tmp_path, newest_named=NEWEST)
        check_plan(tmp_path, plan, history, said_by(segments, (number, at, at + 1)))
        assert bool(plan.recovered.corrupt) or at >= HEADER_BYTES, "without its header nothing of it can be told"


@pytest.mark.parametrize("step", [USED, EVERY])
@pytest.mark.parametrize(("number", "last"), [(1, "mark"), (2, "nothing"), (3, "mark")])
def test_a_segment_cut_off_at_any_byte_is_never_silent(tmp_path: Path, number: int, last: str, step: int) -> None:
    """Each size in turn, with the metadata naming the newest: that one is lost, however little is missing of it."""
    segments, history = busy_log(tmp_path, last)
    victim = segments[number - 1]
    path = victim.write(tmp_path)
    clean = victim.content()
    for size in places(victim, step):
        path.write_bytes(clean[:size])
        plan = plan_of(tmp_path, newest_named=NEWEST)
        check_plan(tmp_path, plan, history, said_by(segments, (number, size, SIZE_BYTES)))
        assert not plan.recovered.whole or number != NEWEST


@pytest.mark.parametrize("filler", ["zeros", "noise"])
def test_a_log_torn_at_any_byte_is_a_prefix_with_all_that_was_synced(tmp_path: Path, filler: str) -> None:
    """What was being written when the power went is replaced from some byte on; nothing before it suffers."""
    segments, history = busy_log(tmp_path)
    newest = segments[-1]
    path = newest.write(tmp_path)
    clean, chance = newest.content(), random.Random(2)
    for at in [*places(newest, UNUSED_STEP), len(newest.body)]:
        rest = bytes(len(clean) - at) if filler == "zeros" else chance.randbytes(len(clean) - at)
        path.write_bytes(clean[:at] + rest)
        plan = plan_of(tmp_path, newest_named=NEWEST)
        left = [one for one in newest.batches if one.end <= at]
        torn_only = plan.recovered.whole and not plan.recovered.faulty
        assert torn_only == (at >= HEADER_BYTES), "a torn tail is no corruption; a header was there before it was used"
        check_plan(tmp_path, plan, history, max([newest.header.first_io - 1, *(one.synced for one in left)]))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_log_cut_off_anywhere_goes_on_whole(tmp_path: Path, number: int) -> None:
    """Once the loss is accepted, what is left is a log like any other: the same entries, and no damage any more."""
    for size in range(0, SIZE_BYTES, 509):
        segments, _ = busy_log(tmp_path)
        path = segments[number - 1].write(tmp_path)
        path.write_bytes(path.read_bytes()[:size])
        plan = plan_of(tmp_path, newest_named=NEWEST)
        settle(SegmentFolder(tmp_path), plan)
        again = plan_of(tmp_path, newest_named=max(plan.kept, default=0))
        assert again.recovered.whole and again.recovered.faulty == plan.recovered.faulty
        assert state_of(again).terms == state_of(plan).terms
        for left in tmp_path.iterdir():
            left.unlink()
