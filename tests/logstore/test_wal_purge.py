"""Purging real logs: what goes, what stays, what is used again, and a crash at each step of it."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hiqlite._accel.wal import LOCAL_BATCH_BYTES, SEGMENT_HEADER_BYTES
from hiqlite.engine.model import Identity
from hiqlite.engine.ports import LogPurged
from hiqlite.errors import LogCorruption
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.segments import list_segments, segment_path
from hiqlite.logstore.wal import WalLog
from tests.logstore.log_checks import check_entries
from tests.logstore.log_runs import open_log, running, until
from tests.logstore.log_twin import ENTRY, HARD_STATE, PURGE_MARK, batches_of, entries, plan_of, record, terms_of

SEGMENT_BYTES = 16 << 10
SPARES = 2


async def write(log: WalLog, first: int, last: int, term: int = 1) -> None:
    """Entries one by one, ten a flush; the io sequence of each is its index."""
    for index in range(first, last + 1):
        log.append(index, index, index, entries(term, index, index))
        if index % 10 == 0 or index == last:
            await until(lambda index=index: log.synced == index)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "log").iterdir())


def lowest(folder: Path) -> int:
    return list_segments(folder / "log")[0]


async def test_purged_segments_go_and_come_back_as_new_ones(tmp_path: Path) -> None:
    """Many rounds of writing and purging: the folder stays small, nothing old is read, each life finds the rest."""
    last = 0
    for life in range(4):
        async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, recovered):
            assert recovered.whole and recovered.last_index == last
            assert recovered.base_index == max(last - 50, 0)
            for _ in range(5):
                await write(log, last + 1, last + 300)
                last += 300
                before = lowest(tmp_path)
                log.purge(last - 50, 1)
                await until(lambda before=before: lowest(tmp_path) > before)
                assert await log.read(last - 49, 1 << 20) == (last, entries(1, last - 49, last))
            await until(lambda: len(list_segments(tmp_path / "log")) <= 3)
            assert len([name for name in files(tmp_path) if name.startswith("spare")]) <= SPARES
            assert len(files(tmp_path)) <= 3 + SPARES + 1
        assert lowest(tmp_path) > life * 10
    check_entries(tmp_path / "log", plan_of(tmp_path / "log"))


async def test_a_recycled_file_holds_its_old_bytes_and_none_of_them_counts(tmp_path: Path) -> None:
    """The same inode under a new number: old batches stand behind the new ones, valid but for the salt (M49)."""
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, _):
        await write(log, 1, 300)
        old = {segment_path(tmp_path / "log", n).stat().st_ino for n in list_segments(tmp_path / "log")[:2]}
        log.purge(290, 1)
        await until(lambda: any(name.startswith("spare") for name in files(tmp_path)))
        last = 300
        while segment_path(tmp_path / "log", list_segments(tmp_path / "log")[-1]).stat().st_ino not in old:
            last += 10
            await write(log, last - 9, last)
    newest = segment_path(tmp_path / "log", list_segments(tmp_path / "log")[-1])
    content = newest.read_bytes()
    used = batches_of(content)[-1].end
    assert b"HQBA" in content[used:], "the file was not used before"
    plan = plan_of(tmp_path / "log")
    assert plan.recovered.whole and plan.recovered.last_index == last and plan.end is not None
    assert plan.end.offset == used
    check_entries(tmp_path / "log", plan)


async def test_the_hard_state_outlives_the_segment_that_held_it(tmp_path: Path) -> None:
    """A purge writes term and vote again: they can still be told from the log alone."""
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, _):
        log.hard_state(1, 7, Identity(3, 33))
        log.append(2, 1, 1, entries(7, 1, 1))
        await until(lambda: log.synced == 2)
        for index in range(2, 301):
            log.append(index + 1, index, index, entries(7, index, index))
        await until(lambda: log.synced == 301)
        log.purge(299, 7)
        await until(lambda: lowest(tmp_path) > 1)
    recovered = plan_of(tmp_path / "log").recovered
    assert (recovered.term, recovered.vote) == (7, Identity(3, 33))
    assert (recovered.base_index, recovered.base_term) == (299, 7)


async def test_a_segment_stays_while_anything_in_it_is_needed(tmp_path: Path) -> None:
    """Only files that lie wholly below go, never the newest, and an entry at the edge stays readable."""
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, _):
        await write(log, 1, 300)
        tops = dict(plan_of(tmp_path / "log").tops)
        numbers = list_segments(tmp_path / "log")
        assert numbers[:3] == [1, 2, 3]
        log.purge(tops[2] - 1, 1)
        await until(lambda: lowest(tmp_path) == 2)
        assert await log.read(tops[2], 1) == (tops[2], entries(1, tops[2], tops[2]))
        log.purge(tops[2], 1)
        await until(lambda: lowest(tmp_path) == 3)
        log.purge(300, 1)
        await until(lambda: list_segments(tmp_path / "log") == numbers[-1:])
        await write(log, 301, 305)
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, recovered):
        assert (recovered.base_index, recovered.last_index) == (300, 305) and recovered.whole
        with pytest.raises(LogPurged):
            await log.read(300, 1)


def sizes(folder: Path) -> set[int]:
    """Of the files there; one that goes while they are listed counts no more."""
    found = set()
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found.add(path.stat().st_size)
    return found


async def test_an_entry_longer_than_a_segment_is_purged_too(tmp_path: Path) -> None:
    """Its file has a size of its own and is removed, not kept."""
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, _):
        await write(log, 1, 10)
        giant = record(ENTRY, 1, 11, b"x" * (3 * SEGMENT_BYTES))
        log.append(11, 11, 11, giant)
        await write(log, 12, 300)
        assert await log.read(11, 1) == (11, giant)
        log.purge(299, 1)
        await until(lambda: len(list_segments(tmp_path / "log")) <= 2 and sizes(tmp_path / "log") == {SEGMENT_BYTES})


@pytest.mark.parametrize("log_sync", ["immediate", "immediate_async", "interval_5"])
async def test_marks_are_durable_before_files_go_in_every_mode(tmp_path: Path, log_sync: str) -> None:
    """Nothing is taken away on the word of a mark that only stands in memory."""
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES, log_sync=log_sync) as (log, _):
        await write(log, 1, 200)
        log.purge(150, 1)
        await until(lambda: lowest(tmp_path) > 1)
        plan = plan_of(tmp_path / "log")
        assert (plan.recovered.base_index, plan.recovered.base_term) == (150, 1)
    meta = Meta.open(tmp_path / "meta")
    assert meta.purge_point(0) == (150, 1)
    meta.close()


async def purged_in_steps(folder: Path) -> tuple[Path, list[str]]:
    """A log of several segments with a mark in it and all files still there; the metadata do not name the purge."""
    async with running(folder / "one", segment_bytes=SEGMENT_BYTES) as (log, _):
        await write(log, 1, 250)
        shutil.copytree(folder / "one" / "meta", folder / "meta-before")
        kept = folder / "kept"
        kept.mkdir()
        for number in list_segments(folder / "one" / "log")[:-1]:
            os.link(segment_path(folder / "one" / "log", number), segment_path(kept, number))
        copies = {path.name: path.read_bytes() for path in kept.iterdir()}
        log.purge(240, 1)
        await until(lambda: len(list_segments(folder / "one" / "log")) <= 2)
    whole = folder / "whole"
    shutil.copytree(folder / "one", whole)
    for name, content in copies.items():
        (whole / "log" / name).write_bytes(content)
    for path in (whole / "log").glob("*.tmp"):
        path.unlink()
    return whole, sorted(copies)


@pytest.mark.parametrize("meta_knows", [False, True])
async def test_a_crash_at_any_step_of_a_purge_leaves_the_log(tmp_path: Path, meta_knows: bool) -> None:
    """After the mark, after the metadata, after each file: the same log comes back, and the rest is tidied up."""
    whole, names = await purged_in_steps(tmp_path)
    if not meta_knows:
        shutil.rmtree(whole / "meta")
        shutil.copytree(tmp_path / "meta-before", whole / "meta")
    for gone in range(len(names) + 1 if meta_knows else 1):
        here = tmp_path / f"step-{gone}"
        shutil.copytree(whole, here)
        for name in names[:gone]:
            (here / "log" / name).unlink(missing_ok=True)
        meta = Meta.open(here / "meta")
        newest = list_segments(here / "log")[-1]
        log, recovered = open_log(here, meta, segment_bytes=SEGMENT_BYTES)
        assert recovered.whole and not recovered.faulty
        assert (recovered.base_index, recovered.base_term, recovered.last_index) == (240, 1, 250)
        assert meta.purge_point(0) == (240, 1)
        assert await log.read(241, 1 << 20) == (250, entries(1, 241, 250))
        await until(lambda here=here, newest=newest: lowest(here) >= newest - 1)
        await write(log, 251, 260)
        await log.close()
        meta.close()


async def test_the_metadata_alone_know_a_purge_whose_mark_is_gone(tmp_path: Path) -> None:
    """And the mark alone knows it when LMDB fell back to an older page: the higher one rules."""
    whole, names = await purged_in_steps(tmp_path)
    plan = plan_of(whole / "log")
    assert plan.recovered.base_index == 240
    for name in names:
        (whole / "log" / name).unlink(missing_ok=True)
    assert plan_of(whole / "log").recovered.base_index == 240
    for number in list_segments(whole / "log"):
        path = segment_path(whole / "log", number)
        content = bytearray(path.read_bytes())
        for at in batches_of(bytes(content)):
            if at.local and content[at.offset + 48 + 5] in (HARD_STATE, PURGE_MARK):
                content[at.offset + 48 + 60] ^= 1
        path.write_bytes(content)
    recovered = plan_of(whole / "log", purge_point=(240, 1)).recovered
    assert (recovered.base_index, recovered.base_term, recovered.last_index) == (240, 1, 250) and recovered.whole
    blind = plan_of(whole / "log").recovered
    assert blind.corrupt, "neither says where the log begins: that is not an empty log"


async def test_segments_missing_above_the_purge_point_are_corruption(tmp_path: Path) -> None:
    """What was never purged and is not there was lost; the log never begins later without a word."""
    whole, _ = await purged_in_steps(tmp_path)
    numbers = list_segments(whole / "log")
    async with running(whole, segment_bytes=SEGMENT_BYTES) as (log, _):
        await write(log, 251, 500)
    for number in numbers:
        segment_path(whole / "log", number).unlink(missing_ok=True)
    recovered = plan_of(whole / "log", purge_point=(240, 1)).recovered
    assert recovered.corrupt and (recovered.base_index, recovered.last_index) == (240, 240)


async def test_a_log_restarted_below_its_purge_point_begins_there(tmp_path: Path) -> None:
    """An image of another leader may end lower than what was purged: the restart rules, marks before it do not."""
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, _):
        await write(log, 1, 100)
        log.purge(90, 1)
        await until(lambda: log._log.purge_marked == 90 and not log._purges)
        io = await log.restart_at(40, 2)
        log.append(io + 1, 41, 45, entries(2, 41, 45))
        await until(lambda: log.synced == io + 1)
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, recovered):
        assert (recovered.base_index, recovered.base_term, recovered.last_index) == (40, 2, 45) and recovered.whole
        assert await log.read(41, 1 << 20) == (45, entries(2, 41, 45))


async def test_a_repair_makes_a_damaged_entry_readable_for_good(tmp_path: Path) -> None:
    """Faulty until it is repaired, then like any other: in this life, in the next one, and byte for byte."""
    async with running(tmp_path) as (log, _):
        await write(log, 1, 20)
    newest = segment_path(tmp_path / "log", 1)
    content = bytearray(newest.read_bytes())
    for index in (5, 6, 15):
        content[content.index(entries(1, index, index)) + 70] ^= 1
    newest.write_bytes(content)
    async with running(tmp_path) as (log, recovered):
        assert recovered.faulty == ((5, 6), (15, 15)) and recovered.last_index == 20
        for index in (5, 15):
            with pytest.raises(LogCorruption):
                await log.read(index, 1)
        assert await log.read(1, 1 << 20) == (4, entries(1, 1, 4))
        log.append_repair(21, 6, 6, entries(1, 6, 6))
        log.append_repair(22, 15, 15, entries(1, 15, 15))
        assert await log.read(6, 1 << 20) == (20, entries(1, 6, 20))
        with pytest.raises(LogCorruption):
            await log.read(5, 1)
        await until(lambda: log.synced == 22)
    async with running(tmp_path) as (log, recovered):
        assert recovered.faulty == ((5, 5),) and recovered.whole and recovered.last_index == 20
        log.append_repair(23, 5, 5, entries(1, 5, 5))
        assert await log.read(1, 1 << 20) == (20, entries(1, 1, 20))
        log.truncate(24, 5)
        log.append(25, 6, 6, entries(2, 6, 6))
        await until(lambda: log.synced == 25)
        assert await log.read(1, 1 << 20) == (6, entries(1, 1, 5) + entries(2, 6, 6))
    plan = plan_of(tmp_path / "log")
    assert plan.recovered.faulty == () and [index for index, *_ in plan.repairs] == [5]
    assert terms_of(plan.recovered.runs) == (1,) * 5 + (2,)
    check_entries(tmp_path / "log", plan)


async def test_a_purge_takes_damage_and_repairs_with_it(tmp_path: Path) -> None:
    """What is purged need not be readable."""
    async with running(tmp_path) as (log, _):
        await write(log, 1, 20)
        log.append_repair(21, 4, 4, entries(1, 4, 4))
    newest = segment_path(tmp_path / "log", 1)
    content = bytearray(newest.read_bytes())
    for index in (3, 8):
        content[content.index(entries(1, index, index)) + 70] ^= 1
    newest.write_bytes(content)
    async with running(tmp_path) as (log, recovered):
        assert recovered.faulty == ((3, 3), (8, 8))
        log.purge(5, 1)
        await until(lambda: not log._purges)
    plan = plan_of(tmp_path / "log")
    assert plan.recovered.faulty == ((8, 8),) and plan.repairs == () and plan.recovered.base_index == 5


async def test_of_a_purge_and_a_reset_in_one_wake_the_metadata_name_the_higher(tmp_path: Path) -> None:
    """Whichever of their marks is looked at last."""
    async with running(tmp_path) as (log, _):
        log.append(1, 1, 30, entries(1, 1, 30))
        await until(lambda: log.synced == 1)
        log.purge(10, 1)
        log.reset(2, 60, 3)
        deadline = time.monotonic() + 10
        while log._log.synced < 2:  # the loop is busy meanwhile
            assert time.monotonic() < deadline
        await until(lambda: not log._purges and not log._resets)
        await until(lambda: log._meta.purge_point(0)[0] > 0)
        assert log._meta.purge_point(0) == (60, 3)


@pytest.mark.parametrize("means", ["purge", "reset"])
async def test_a_log_tells_term_vote_and_purge_point_without_the_metadata(tmp_path: Path, means: str) -> None:
    """They stand twice, whatever files went: also when all was purged at once, or an image took the log's place."""
    vote = Identity(3, 33)
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, _):
        log.hard_state(1, 9, vote)
        for index in range(1, 301):
            log.append(index + 1, index, index, entries(1, index, index))
        await until(lambda: log.synced == 301)
        before, io = lowest(tmp_path), 301
        if means == "purge":
            log.purge(300, 1)
        else:
            io += 1
            log.reset(io, 300, 1)
        await until(lambda: lowest(tmp_path) > before)
        log.append(io + 1, 301, 301, record(ENTRY, 1, 301, bytes(2 * SEGMENT_BYTES)))  # too long for the mark's segment
        io += 1
        for index in range(302, 1001):
            io += 1
            log.append(io, index, index, entries(1, index, index))
        await until(lambda: log.synced == io)
    async with running(tmp_path, segment_bytes=SEGMENT_BYTES) as (log, _):  # finishes what the first life left to do
        log.append(io + 1, 1001, 1001, entries(1, 1001, 1001))
        await until(lambda: log.synced == io + 1)
    recovered = plan_of(tmp_path / "log").recovered
    assert (recovered.term, recovered.vote, recovered.base_index) == (9, vote, 300)


@pytest.mark.parametrize("last", [2, 30])
async def test_a_log_whose_place_was_taken_goes_on_behind_the_purge_point(tmp_path: Path, last: int) -> None:
    """The metadata know of an image, the log does not yet: the power went. What follows is found again afterwards."""
    async with running(tmp_path) as (log, _):
        log.append(1, 1, last, entries(1, 1, last))
        await until(lambda: log.synced == 1)
        log._meta.set_purge_point(0, 20, 3)
    async with running(tmp_path) as (log, recovered):
        assert (recovered.whole, recovered.base_index, recovered.base_term, recovered.runs) == (True, 20, 3, ())
        log.append(recovered.io_sequence + 1, 21, 25, entries(4, 21, 25))
        await until(lambda: log.synced == recovered.io_sequence + 1)
        assert await log.read(21, 1 << 20) == (25, entries(4, 21, 25))
    async with running(tmp_path) as (_, recovered):
        assert recovered.whole and recovered.base_index == 20 and recovered.last_index == 25
    check_entries(tmp_path / "log", plan_of(tmp_path / "log", purge_point=(20, 3)))


@pytest.mark.parametrize("means", ["purge", "reset"])
async def test_term_and_vote_stand_in_the_segment_of_the_mark_however_little_room_is_left(
    tmp_path: Path, means: str
) -> None:
    """A segment that has room for them and none for the mark ends before both: it goes on that mark's word."""
    vote = Identity(3, 33)
    for room in range(72, 136, 8):
        folder = tmp_path / f"room-{room}"
        async with running(folder, segment_bytes=SEGMENT_BYTES) as (log, _):
            log.hard_state(1, 9, vote)
            await until(lambda log=log: log.synced == 1)
            used = SEGMENT_HEADER_BYTES + (48 + 72) + (48 + 64)  # of the header, of term and vote, round the payload
            size = SEGMENT_BYTES - used - (48 + LOCAL_BATCH_BYTES) - room
            log.append(2, 1, 1, record(ENTRY, 1, 1, bytes(size)))
            await until(lambda log=log: log.synced == 2)
            if means == "purge":
                log.purge(1, 1)
            else:
                log.reset(3, 1, 1)
            await until(lambda folder=folder: lowest(folder) == 2)
        recovered = plan_of(folder / "log").recovered
        assert (recovered.term, recovered.vote, recovered.base_index) == (9, vote, 1), room
