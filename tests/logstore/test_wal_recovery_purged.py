"""Recovery of purged logs, byte by byte: marks, repairs, segments that are gone, files that held another segment."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hiqlite.engine.model import Identity
from hiqlite.logstore.segments import segment_path
from tests.logstore.log_checks import check_entries, check_plan
from tests.logstore.log_twin import BatchAt, History, SegmentTwin, entries, new_segment, plan_of, terms_of

PURGED = (8, 1)
REPAIRED = 10


class PurgedLog:
    """Three segments: the first is purged, the second in part, the third is written over an old file and holds the
    mark, a repair of a damaged entry of the second, and a truncation."""

    def __init__(self, *, mark_last: bool = True) -> None:
        self.history = history = History()
        first, second = new_segment(), new_segment(2, first_io=3)
        first.batch(1, 0, history.hard_state(1, Identity(7, 5)), 1)
        first.batch(2, 1, history.append(1, 6)[2], 6)
        first.finish()
        second.batch(3, 2, history.append(1, 3)[2], 3)
        second.batch(4, 3, history.append(2, 3)[2], 3)
        second.mark()
        second.finish()
        third = new_segment(3, first_io=5)
        third.before = first.content()
        third.batch(4, 4, history.purge(PURGED[0]), 2)
        third.batch(5, 4, history.append(2, 2)[2], 2)
        third.batch(6, 5, history.repair(REPAIRED), 1)
        third.batch(8, 6, history.truncate(13) + history.append(3, 2)[2], 3)
        third.batch(9, 8, history.append(3, 1)[2], 1)
        if mark_last:
            third.mark()
        self.segments = [first, second, third]

    def content(self, segment: SegmentTwin) -> bytearray:
        content = bytearray(segment.content())
        if segment.header.number == 2:
            content[content.index(entries(2, REPAIRED, REPAIRED)) + 66] ^= 4
        return content

    def write(self, folder: Path, *, first_gone: bool) -> None:
        for segment in self.segments[1 if first_gone else 0 :]:
            segment_path(folder, segment.header.number).write_bytes(self.content(segment))

    def said_without(self, number: int, low: int, high: int, *, first_gone: bool) -> int:
        """Highest `synced up to` of the headers on disk that [low, high) of segment `number` does not touch."""

        def clean(segment: SegmentTwin, at: BatchAt) -> bool:
            return segment.header.number != number or high <= at.offset or low >= at.offset + 48

        there = self.segments[1 if first_gone else 0 :]
        return max(at.synced for segment in there for at in segment.batches if clean(segment, at))


@pytest.mark.parametrize("first_gone", [False, True])
@pytest.mark.parametrize("known", [(0, 0), PURGED])
def test_a_purged_log_comes_back_from_where_it_begins(
    tmp_path: Path, first_gone: bool, known: tuple[int, int]
) -> None:
    """Whatever is left of the purged part, and whether the mark or the metadata say it: the same log."""
    log = PurgedLog()
    log.write(tmp_path, first_gone=first_gone)
    plan = plan_of(tmp_path, newest_named=3, purge_point=known)
    recovered = plan.recovered
    assert recovered.whole and recovered.faulty == ()
    assert (recovered.base_index, recovered.base_term) == PURGED
    assert terms_of(recovered.runs, PURGED[0]) == log.history.state.terms[PURGED[0] :]
    assert (recovered.term, recovered.vote) == (1, Identity(7, 5))
    assert [index for index, *_ in plan.repairs] == [REPAIRED]
    check_entries(tmp_path, plan)


@pytest.mark.parametrize("first_gone", [False, True])
@pytest.mark.parametrize("known", [(0, 0), PURGED])
@pytest.mark.parametrize("number", [2, 3])
def test_a_flipped_bit_anywhere_in_a_purged_log_is_never_silent(
    tmp_path: Path, first_gone: bool, known: tuple[int, int], number: int
) -> None:
    """Each byte of what is left: a state that was, with all that is said to be synced, faulty or corrupt."""
    log = PurgedLog()
    log.write(tmp_path, first_gone=first_gone)
    segment, chance = log.segments[number - 1], random.Random(number)
    path, clean = segment_path(tmp_path, number), log.content(segment)
    for at in range(4096, len(segment.body)):
        damaged = bytearray(clean)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        plan = plan_of(tmp_path, newest_named=3, purge_point=known)
        check_plan(tmp_path, plan, log.history, log.said_without(number, at, at + 1, first_gone=first_gone))
        if known != (0, 0) or (plan.recovered.whole and first_gone):
            assert (plan.recovered.base_index, plan.recovered.base_term) == PURGED


@pytest.mark.parametrize("rest", ["zeros", "noise", "old"])
def test_a_purged_log_torn_at_any_byte_is_a_prefix(tmp_path: Path, rest: str) -> None:
    """The write that the power took lay over zeros, or over what the file held before it was recycled (M49)."""
    log = PurgedLog()
    log.write(tmp_path, first_gone=True)
    third, chance = log.segments[2], random.Random(3)
    path, clean = segment_path(tmp_path, 3), log.content(third)
    for at in range(4096, len(third.body) + 1):
        size = len(clean) - at
        tail = {"zeros": bytes(size), "noise": chance.randbytes(size), "old": third.before[at:]}[rest]
        path.write_bytes(clean[:at] + tail)
        plan = plan_of(tmp_path, newest_named=3, purge_point=PURGED)
        left = [one for one in third.batches if one.end <= at]
        said = max((one.synced for one in left), default=4)
        assert plan.recovered.whole, "a torn tail is no corruption"
        repaired = any(one.io >= 6 for one in left)
        assert plan.recovered.faulty == () or (not repaired and plan.recovered.faulty == ((REPAIRED, REPAIRED),))
        check_plan(tmp_path, plan, log.history, said)
        assert (plan.recovered.base_index, plan.recovered.base_term) == PURGED


def test_a_truncation_below_the_purge_point_may_open_what_is_left(tmp_path: Path) -> None:
    """Entries of an older term that were cut, before that part of the log was purged, mislead nobody."""
    history = History()
    first, second = new_segment(), new_segment(2, first_io=2)
    first.batch(1, 0, history.append(1, 6)[2], 6)
    first.finish()
    second.batch(2, 1, history.append(1, 2)[2], 2)
    second.batch(4, 2, history.truncate(4) + history.append(3, 5)[2], 6)
    second.batch(5, 4, history.append(3, 2)[2], 2)
    second.batch(5, 5, history.purge(9), 2)
    first.write(tmp_path)
    second.write(tmp_path)
    segment_path(tmp_path, 1).unlink()
    for known in ((0, 0), (9, 3), (6, 3)):
        plan = plan_of(tmp_path, newest_named=2, purge_point=known)
        assert plan.recovered.whole and terms_of(plan.recovered.runs, 9) == (3, 3)
        check_plan(tmp_path, plan, history, 5)


def test_what_cannot_be_read_at_the_beginning_matters_only_above_the_purge_point(tmp_path: Path) -> None:
    """Damage to a synced batch that is purged is nothing; the next one is missed, as faulty or as corruption."""
    for term, outcome in ((1, "faulty"), (2, "corrupt")):
        history = History()
        segment = new_segment(4, first_io=3)
        history.append(1, 6)
        history.append(1, 1)
        segment.batch(3, 2, history.append(1, 3)[2], 3)
        segment.batch(4, 3, history.append(term, 3)[2], 3)
        segment.mark()
        damaged = bytearray(segment.content())
        damaged[segment.batches[0].offset + 20] ^= 1
        segment_path(tmp_path, 4).write_bytes(damaged)
        plan = plan_of(tmp_path, newest_named=4, purge_point=(10, 1))
        assert plan.recovered.whole and terms_of(plan.recovered.runs, 10) == (term,) * 3
        plan = plan_of(tmp_path, newest_named=4, purge_point=(8, 1))
        if outcome == "faulty":
            assert plan.recovered.whole and plan.recovered.faulty == ((9, 10),)
            check_plan(tmp_path, plan, history, 4)
        else:
            assert plan.recovered.corrupt and plan.recovered.last_index == 8


def test_a_hole_before_a_mark_hides_nothing(tmp_path: Path) -> None:
    """An unreadable synced batch behind which only a purge mark follows: what it held is not forgotten."""
    history = History()
    segment = new_segment()
    segment.batch(1, 0, history.append(1, 9)[2], 9)
    segment.batch(1, 1, history.purge(5), 2)
    segment.mark()
    damaged = bytearray(segment.content())
    damaged[segment.batches[0].offset + 20] ^= 1
    segment_path(tmp_path, 1).write_bytes(damaged)
    assert plan_of(tmp_path, newest_named=1).recovered.corrupt
    assert plan_of(tmp_path, newest_named=1, purge_point=(5, 1)).recovered.corrupt


def test_a_log_of_another_history_than_the_purge_point_is_none(tmp_path: Path) -> None:
    """An image took its place, the metadata know that, and the log's own record of it went with the power.

    What stands behind an entry of another term was written before, and never committed.
    """
    segment = new_segment()
    segment.batch(1, 0, entries(1, 1, 30), 30)
    segment.mark()
    segment.write(tmp_path)
    recovered = plan_of(tmp_path, purge_point=(20, 3)).recovered
    assert (recovered.base_index, recovered.base_term, recovered.runs) == (20, 3, ())
    recovered = plan_of(tmp_path, purge_point=(20, 1)).recovered
    assert (recovered.base_index, recovered.base_term, recovered.last_index) == (20, 1, 30)


def test_a_mark_behind_a_torn_batch_purges_nothing(tmp_path: Path) -> None:
    """The power took a batch and left the one behind it: nothing was done on the word of a mark that was not flushed.

    Whatever ends the process while the tail is cut off, the log begins where it began.
    """
    history = History()
    segment = new_segment()
    segment.batch(1, 0, history.append(1, 9)[2], 9)
    segment.mark()
    segment.batch(2, 1, history.append(1, 1)[2], 1)
    torn = segment.batches[-1]
    segment.batch(2, 1, history.purge(5), 2)
    content = bytearray(segment.content())
    content[torn.offset : torn.offset + 48] = bytes(48)
    segment_path(tmp_path, 1).write_bytes(content)
    recovered = plan_of(tmp_path, newest_named=1).recovered
    assert recovered.whole and (recovered.base_index, recovered.last_index) == (0, 9)


def test_entries_older_than_the_purge_point_do_not_follow_it(tmp_path: Path) -> None:
    """They were cut and written over, and that was purged; then the batch that did so cannot be read any more. Found by
    the random test: what had been cut came back behind the purge point, of a lower term than that."""
    history = History()
    first, second = new_segment(), new_segment(2, first_io=2)
    first.batch(1, 0, history.append(4, 4)[2], 4)
    first.finish()
    second.batch(2, 1, history.append(4, 2)[2], 2)
    at = len(second.body)
    second.batch(4, 2, history.truncate(3) + history.append(6, 3)[2], 4)
    second.mark()
    content = bytearray(second.content())
    content[at : at + 8] = bytes(8)
    segment_path(tmp_path, 2).write_bytes(content)
    plan = plan_of(tmp_path, newest_named=2, purge_point=(4, 6))
    recovered = plan.recovered
    assert not recovered.whole
    assert (recovered.base_index, recovered.base_term, recovered.runs) == (4, 6, ())
    check_plan(tmp_path, plan, history, 4)
