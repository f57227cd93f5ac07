"""Recovery of single, built logs: what is kept, what is cut, what is called damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hiqlite._accel import records
from hiqlite._accel.wal import crc32c
from hiqlite.engine.model import Identity, TermRun
from hiqlite.errors import StorageError
from hiqlite.logstore.recovery import recover
from hiqlite.logstore.segments import CRC, HEADER, SegmentFolder, decode_header, list_segments, segment_path
from hiqlite.logstore.starting import settle
from tests.logstore.log_checks import check_entries, check_plan, state_of
from tests.logstore.log_twin import (
    PURGE_MARK,
    TRUNCATE,
    BatchAt,
    History,
    SegmentTwin,
    encode_batch,
    entries,
    new_segment,
    plan_of,
    record,
    terms_of,
)


def busy_segment(*, mark_last: bool = True) -> tuple[SegmentTwin, History]:
    """A short life: votes, entries of three terms, a truncation in the middle of a batch, a mark or none at the end."""
    segment, history = new_segment(), History()
    segment.batch(1, 0, history.hard_state(1, Identity(7, 5)), 1)
    segment.batch(2, 1, history.append(1, 3)[2], 3)
    segment.mark()
    segment.batch(3, 2, history.append(1, 1)[2], 1)
    content = history.append(2, 4)[2] + history.truncate(5) + history.append(3, 2)[2]
    segment.batch(6, 3, content, 7)
    segment.batch(7, 6, history.hard_state(3, None), 1)
    segment.mark()
    segment.batch(8, 7, history.append(3, 2)[2], 2)
    segment.batch(9, 8, history.append(3, 1)[2], 1)
    if mark_last:
        segment.mark()
    return segment, history


def damaged_in_its_second_batch(folder: Path, at: int) -> tuple[SegmentTwin, Path]:
    """Three batches, of which the last header calls only the first synced; a bit of the second is flipped."""
    segment, history = new_segment(), History()
    for io, synced in ((1, 0), (2, 1), (3, 1)):
        segment.batch(io, synced, history.append(1, 2)[2], 2)
    path = segment.write(folder)
    damaged = bytearray(segment.content())
    damaged[segment.batches[1].offset + at] ^= 1
    path.write_bytes(damaged)
    return segment, path


def said_without(batches: list[BatchAt], low: int, high: int) -> int:
    """Highest `synced up to` of the batches whose header does not touch [low, high)."""
    return max((one.synced for one in batches if not (one.offset < high and low < one.offset + 48)), default=0)


def test_a_whole_log_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Entries, the truncation, term and vote: all of it, and the log goes on in its segment."""
    segment, history = busy_segment()
    segment.write(tmp_path)
    plan = plan_of(tmp_path)
    assert state_of(plan) == history.state
    assert plan.recovered.runs == (TermRun(1, 1, 4), TermRun(2, 5, 5), TermRun(3, 6, 10))
    assert plan.recovered.io_sequence == 9
    assert plan.resume is not None and plan.end is not None
    assert (plan.end.offset, plan.end.last_io, plan.end.last_crc) == (len(segment.body), 9, segment.last_crc)
    check_entries(tmp_path, plan)


def test_a_lost_sector_in_the_middle_is_damage_and_no_end(tmp_path: Path) -> None:
    """Zeros where synced batches stood, valid ones behind: the log is corrupt, or says which entries are gone."""
    segment, history = busy_segment()
    path = segment.write(tmp_path)
    for at in range(4096, len(segment.body) - 112 - 64, 64):
        damaged = bytearray(segment.content())
        damaged[at : at + 64] = bytes(64)
        path.write_bytes(damaged)
        plan = plan_of(tmp_path)
        check_plan(tmp_path, plan, history, said_without(segment.batches, at, at + 64))


def test_damage_above_what_is_synced_is_cut(tmp_path: Path) -> None:
    """A batch that no header calls synced was never promised: it and all behind it go, a new segment follows."""
    damaged_in_its_second_batch(tmp_path, 48 + 70)
    plan = plan_of(tmp_path)
    assert plan.recovered.whole and terms_of(plan.recovered.runs) == (1, 1)
    assert plan.recovered.io_sequence == 3, "the sequence goes on above what was cut"
    assert plan.resume is None
    settle(SegmentFolder(tmp_path), plan)
    again = plan_of(tmp_path)
    assert terms_of(again.recovered.runs) == (1, 1) and again.resume is None


def test_a_batch_cut_off_once_never_comes_back(tmp_path: Path) -> None:
    """Behind a cut stand valid batches of old: not even a damaged end batch lets them in again (M47)."""
    segment, path = damaged_in_its_second_batch(tmp_path, 50)
    settle(SegmentFolder(tmp_path), plan_of(tmp_path))
    cut = path.read_bytes()
    following = new_segment(2, first_io=2)
    following.batch(4, 3, entries(2, 3, 3), 1)
    following.write(tmp_path)
    assert terms_of(plan_of(tmp_path).recovered.runs) == (1, 1, 2)
    for at in range(segment.batches[1].offset, segment.batches[1].offset + 112):
        broken = bytearray(cut)
        broken[at] ^= 0x10
        path.write_bytes(broken)
        plan = plan_of(tmp_path)
        assert terms_of(plan.recovered.runs) == (1, 1, 2) and plan.recovered.whole


def test_synced_counts_writes_and_not_indexes(tmp_path: Path) -> None:
    """Indexes are written again after a truncation: a low index in a high, unsynced write is no corruption (M46)."""
    segment, history = new_segment(), History()
    segment.batch(1, 0, history.append(1, 9)[2], 9)
    segment.batch(2, 1, history.truncate(2), 1)
    segment.batch(3, 2, history.append(2, 1)[2], 1)
    path = segment.write(tmp_path)
    damaged = bytearray(segment.content())
    damaged[segment.batches[2].offset + 48 + 66] ^= 1
    path.write_bytes(damaged)
    plan = plan_of(tmp_path)
    assert plan.recovered.whole and plan.recovered.faulty == () and terms_of(plan.recovered.runs) == (1, 1)


def test_a_damaged_payload_of_a_synced_entry_is_faulty_and_not_absent(tmp_path: Path) -> None:
    """Its term and index are known, it stays in the trail, and reading it says that it is damaged (M45, M48)."""
    segment, history = busy_segment()
    path = segment.write(tmp_path)
    second = segment.batches[1].offset + 48 + len(entries(1, 1, 1)) + 64
    damaged = bytearray(segment.content())
    damaged[second] ^= 1
    path.write_bytes(damaged)
    plan = plan_of(tmp_path)
    assert plan.recovered.faulty == ((2, 2),) and plan.recovered.whole
    assert terms_of(plan.recovered.runs) == history.state.terms
    check_entries(tmp_path, plan)


def test_an_unreadable_entry_between_entries_of_its_term_is_faulty(tmp_path: Path) -> None:
    """Terms never fall, so the term of what stood between two entries of one term is known."""
    segment, history = new_segment(), History()
    for io in (1, 2, 3):
        segment.batch(io, io - 1, history.append(4, 2)[2], 2)
    segment.mark()
    path = segment.write(tmp_path)
    for spoiled in (segment.batches[1].offset + 20, segment.batches[1].offset + 48 + 8):
        damaged = bytearray(segment.content())
        damaged[spoiled] ^= 1
        path.write_bytes(damaged)
        plan = plan_of(tmp_path)
        assert plan.recovered.whole and plan.recovered.faulty == ((3, 4),)
        check_entries(tmp_path, plan)


def test_an_unreadable_batch_between_terms_makes_the_log_corrupt(tmp_path: Path) -> None:
    """What stood there could be anything: the log ends before it, and says that this is not all."""
    segment, history = new_segment(), History()
    segment.batch(1, 0, history.append(1, 2)[2], 2)
    segment.batch(2, 1, history.append(1, 2)[2], 2)
    segment.batch(3, 2, history.append(2, 2)[2], 2)
    segment.mark()
    path = segment.write(tmp_path)
    damaged = bytearray(segment.content())
    damaged[segment.batches[1].offset + 20] ^= 1
    path.write_bytes(damaged)
    plan = plan_of(tmp_path)
    assert plan.recovered.corrupt and terms_of(plan.recovered.runs) == (1, 1)
    settle(SegmentFolder(tmp_path), plan)
    again = plan_of(tmp_path)
    assert again.recovered.whole and terms_of(again.recovered.runs) == (1, 1)


def test_a_record_without_a_batch_header_does_not_exist(tmp_path: Path) -> None:
    """Perfect records behind no header, or behind a header of another file's salt, are not read (M44, M49)."""
    for salt in (None, 12345):
        segment = new_segment()
        segment.batch(1, 0, entries(1, 1, 1), 1)
        content = entries(1, 2, 2)
        segment.body += content if salt is None else encode_batch(salt, 2, 1, segment.last_crc, content, 1)
        segment.write(tmp_path)
        assert terms_of(plan_of(tmp_path).recovered.runs) == (1,)


@pytest.mark.parametrize("io", [1, 2])
def test_a_batch_knows_its_records_from_others_of_their_size(tmp_path: Path, io: int) -> None:
    """A torn write leaves the header of a mark, or of a batch, before a record that stood there earlier."""
    segment = new_segment()
    segment.batch(1, 0, entries(1, 1, 1), 1)
    stale = records.encode_record(1, 8, b"", term=1, index=2)
    start = len(segment.body)
    if io == 1:
        segment.mark()
    else:
        segment.batch(2, 1, records.encode_record(1, 8, b"", term=3, index=2), 1)
    segment.body[start + 48 :] = stale
    segment.write(tmp_path)
    recovered = plan_of(tmp_path).recovered
    assert recovered.whole and terms_of(recovered.runs) == (1,)


def test_a_batch_that_continues_another_header_is_stale(tmp_path: Path) -> None:
    """The chain of header CRCs tells a batch that was left standing from one that follows."""
    segment = new_segment()
    segment.batch(1, 0, entries(1, 1, 1), 1)
    segment.body += encode_batch(segment.header.salt, 2, 1, segment.last_crc ^ 1, entries(1, 2, 2), 1)
    segment.write(tmp_path)
    assert terms_of(plan_of(tmp_path).recovered.runs) == (1,)


@pytest.mark.parametrize("shift", [0, -8, -64])
def test_a_sector_that_holds_what_another_place_held_is_damage(tmp_path: Path, shift: int) -> None:
    """Also when it shows an older mark in front of one that says more: that one is believed, nothing goes silently."""
    segment = new_segment()
    segment.batch(3, 0, entries(1, 1, 4), 4)
    start = len(segment.body)
    segment.mark()
    size = len(segment.body) - start
    lost = len(segment.body)
    segment.batch(6, 3, entries(1, 5, 10), 6)
    behind = len(segment.body)
    segment.mark()
    segment.batch(7, 3, entries(1, 11, 11), 1)
    content = bytearray(segment.content())
    content[lost:behind] = bytes(behind - lost)
    old = content[start : start + size]
    place = behind - size - shift  # further on, its end is that of the one behind it
    content[place:behind] = old[: behind - place]
    segment.write(tmp_path).write_bytes(content)
    recovered = plan_of(tmp_path).recovered
    assert not recovered.whole or recovered.faulty == ((5, 10),)


def test_an_io_sequence_never_goes_back(tmp_path: Path) -> None:
    """A batch with a lower io sequence than the one before it is of another time."""
    segment = new_segment(first_io=5)
    segment.batch(5, 4, entries(1, 1, 1), 1)
    segment.body += encode_batch(segment.header.salt, 3, 2, segment.last_crc, entries(1, 2, 2), 1)
    segment.write(tmp_path)
    assert terms_of(plan_of(tmp_path).recovered.runs) == (1,)


def test_a_truncation_counts_across_segments(tmp_path: Path) -> None:
    """Entries cut by a record in the next segment are gone (M50)."""
    first, second = new_segment(), new_segment(2, first_io=2)
    first.batch(1, 0, entries(1, 1, 5), 5)
    first.finish()
    second.batch(3, 1, record(TRUNCATE, 0, 2) + entries(2, 3, 3), 2)
    first.write(tmp_path)
    second.write(tmp_path)
    plan = plan_of(tmp_path)
    assert plan.recovered.runs == (TermRun(1, 1, 2), TermRun(2, 3, 3))
    check_entries(tmp_path, plan)


def test_a_purge_mark_moves_the_beginning(tmp_path: Path) -> None:
    """Behind the end it empties the log: the next entry follows it."""
    segment = new_segment()
    segment.batch(1, 0, entries(1, 1, 5), 5)
    segment.batch(2, 1, record(PURGE_MARK, 1, 3), 1)
    segment.write(tmp_path)
    plan = plan_of(tmp_path)
    assert (plan.recovered.base_index, plan.recovered.base_term) == (3, 1)
    assert plan.recovered.runs == (TermRun(1, 4, 5),)
    segment.batch(3, 2, record(PURGE_MARK, 4, 20), 1)
    segment.batch(4, 3, entries(4, 21, 22), 2)
    segment.write(tmp_path)
    plan = plan_of(tmp_path)
    assert (plan.recovered.base_index, plan.recovered.base_term) == (20, 4)
    assert plan.recovered.runs == (TermRun(4, 21, 22),)


def test_a_missing_or_short_newest_segment_is_a_lost_log(tmp_path: Path) -> None:
    """The metadata names a segment that is not there, or the file ends too early: promises may be gone."""
    segment, history = busy_segment()
    path = segment.write(tmp_path)
    assert not plan_of(tmp_path, newest_named=1).recovered.lost
    assert plan_of(tmp_path, newest_named=2).recovered.lost
    for size in (0, 100, 4096, 5000, len(segment.body), len(segment.content()) - 1):
        path.write_bytes(segment.content()[:size])
        plan = plan_of(tmp_path, newest_named=1)
        assert not plan.recovered.whole and plan.resume is None
        settle(SegmentFolder(tmp_path), plan)
        assert terms_of(plan.recovered.runs) in {state.terms for state in history.states.values()}
        for number in list_segments(tmp_path):
            segment_path(tmp_path, number).unlink()
    path.write_bytes(segment.content())


def test_a_missing_segment_in_the_middle_makes_the_log_corrupt(tmp_path: Path) -> None:
    """What stands behind the hole is set aside, what stands before it stays."""
    for number, io in ((1, 1), (2, 2), (3, 3)):
        segment = new_segment(number, first_io=io)
        segment.batch(io, io - 1, entries(1, io, io), 1)
        segment.finish()
        path = segment.write(tmp_path)
        if number == 2:
            path.unlink()
    plan = plan_of(tmp_path, newest_named=3)
    assert plan.recovered.corrupt and terms_of(plan.recovered.runs) == (1,) and plan.discarded == (3,)
    settle(SegmentFolder(tmp_path), plan)
    assert list_segments(tmp_path) == [1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_segment_header_makes_the_log_corrupt(tmp_path: Path, number: int) -> None:
    """Without its salt nothing in the file can be believed, nor what follows it."""
    for each in (1, 2, 3):
        segment = new_segment(each, first_io=each)
        segment.batch(each, each - 1, entries(1, each, each), 1)
        if each < 3:
            segment.finish()
        path = segment.write(tmp_path)
        if each == number:
            path.write_bytes(b"\0" * 8 + segment.content()[8:])
    plan = plan_of(tmp_path, newest_named=3)
    assert plan.recovered.corrupt and terms_of(plan.recovered.runs) == (1,) * (number - 1)
    assert plan.discarded == tuple(range(number, 4))


@pytest.mark.parametrize("wrong", [{"node_id": 8}, {"group": 1}, {"incarnation": 99}])
def test_a_segment_of_another_log_is_none_of_this_one(tmp_path: Path, wrong: dict[str, int]) -> None:
    """A copied file must not be taken for one's own: not that of another node, group or incarnation."""
    new_segment().write(tmp_path)
    own = decode_header(new_segment().content())
    assert own is not None
    right = {"group": 0, "node_id": 7, "incarnation": own.incarnation}
    assert recover(SegmentFolder(tmp_path), newest_named=1, **right).recovered.whole
    assert "another log's" in recover(SegmentFolder(tmp_path), newest_named=1, **{**right, **wrong}).recovered.corrupt


def test_a_segment_of_another_format_is_refused(tmp_path: Path) -> None:
    """Nothing is thrown away of what another version understands."""
    content = bytearray(new_segment().content())
    content[8] += 1
    CRC.pack_into(content, HEADER.size, crc32c(bytes(content[: HEADER.size])))
    segment_path(tmp_path, 1).write_bytes(content)
    with pytest.raises(StorageError, match="has format 2, this version reads 1"):
        recover(SegmentFolder(tmp_path), group=0, node_id=7, newest_named=1)


def test_noise_is_no_log(tmp_path: Path) -> None:
    """Whatever bytes stand in a segment, recovery ends with an answer."""
    chance = random.Random(3)
    for size in (0, 1, 71, 72, 4095, 4096, 4097, 20000):
        segment_path(tmp_path, 1).write_bytes(chance.randbytes(size))
        assert plan_of(tmp_path).recovered.corrupt
    header = new_segment().content()[:4096]
    for _ in range(200):
        noise = bytearray(chance.randbytes(2000))
        for at in range(0, 2000, 200):
            noise[at : at + 4] = b"HQBA"
        segment_path(tmp_path, 1).write_bytes(header + noise)
        assert plan_of(tmp_path).recovered.runs == ()
