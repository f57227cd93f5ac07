"""The running log: group commit, the three modes, truncation, long entries, reading back, rotation, the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path

import pytest

from hiqlite._accel import wal as native
from hiqlite._accel.records import encode_record, header
from hiqlite.engine.model import Identity, TermRun
from hiqlite.errors import ConfigError, LogCorruption, StorageError, UsageError
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.segments import decode_header, list_segments, segment_path
from hiqlite.logstore.starting import parse_log_sync
from tests.logstore.log_runs import open_log, running, until
from tests.logstore.log_twin import (
    ENTRY,
    NODE,
    SEGMENT_END,
    SYNCED,
    SegmentTwin,
    batches_of,
    entries,
    new_segment,
    record,
    terms_of,
)


def membership(term: int, index: int) -> bytes:
    return bytes(encode_record(ENTRY, 3, b"who is in", term=term, index=index))


MODES = ["immediate", "immediate_async", "interval_5"]


def first_segment(folder: Path) -> bytes:
    return segment_path(folder / "log", 1).read_bytes()


@pytest.mark.parametrize("log_sync", MODES)
async def test_what_was_synced_is_there_after_a_restart(tmp_path: Path, log_sync: str) -> None:
    """Entries, term and vote, a truncation, in each mode; the io sequence goes on above the highest one."""
    async with running(tmp_path, log_sync=log_sync) as (log, recovered):
        assert recovered.last_index == 0 and recovered.io_sequence == 0 and recovered.whole
        log.hard_state(1, 3, Identity(2, 9))
        log.append(2, 1, 5, entries(2, 1, 5))
        log.truncate(3, 4)
        log.append(4, 5, 6, entries(3, 5, 6))
        await until(lambda: log.synced == 4)
        assert log.written == 4 and log.queued_bytes == 0 and log.failure is None
    async with running(tmp_path, log_sync=log_sync) as (log, recovered):
        assert recovered.runs == (TermRun(2, 1, 4), TermRun(3, 5, 6))
        assert (recovered.term, recovered.vote, recovered.io_sequence) == (3, Identity(2, 9), 4)
        assert await log.read(1, 1 << 20) == (6, entries(2, 1, 4) + entries(3, 5, 6))
        assert log.synced == log.written == 4


async def test_all_that_waits_shares_one_flush(tmp_path: Path) -> None:
    """Many appends of one turn become a batch or two: one header, one fsync, one wake-up."""
    async with running(tmp_path, segment_bytes=1 << 20) as (log, _):
        log.append(1, 1, 1, entries(1, 1, 1))
        await until(lambda: log.synced == 1)
        calls: list[int] = []
        log.on_progress(lambda: calls.append(log.synced))
        waiting = [entries(1, index, index) for index in range(2, 202)]
        before = log.counters
        for io, data in enumerate(waiting, start=2):
            log.append(io, io, io, data)
        await until(lambda: log.synced == 201)
        flushes, fsyncs = log.counters[0] - before[0], log.counters[1] - before[1]
        assert flushes == fsyncs and flushes < 100
        await until(lambda: bool(calls) and calls[-1] == 201)
        assert len(calls) <= flushes + 1


async def test_progress_comes_without_being_asked(tmp_path: Path) -> None:
    """The callback alone is enough to learn that an append is durable."""
    async with running(tmp_path) as (log, _):
        told = asyncio.Event()
        log.on_progress(lambda: told.set() if log.synced >= 2 else None)
        log.hard_state(1, 1, None)
        log.append(2, 1, 1, entries(1, 1, 1))
        await asyncio.wait_for(told.wait(), 30)


async def test_the_bytes_on_disk_are_those_of_the_format(tmp_path: Path) -> None:
    """Every batch of a real log, encoded again by the twin, gives the same file; the rest is zeros."""
    async with running(tmp_path) as (log, _):
        for io in range(1, 20):
            log.append(io, io, io, entries(1, io, io))
            await until(lambda io=io: log.synced == io)
    content = first_segment(tmp_path)
    header = decode_header(content[:4096])
    assert header is not None and header.number == 1 and header.first_io == 1 and header.size_bytes == len(content)
    assert (header.node_id, header.incarnation, header.group) == (NODE.id, NODE.incarnation, 0)
    twin = SegmentTwin(header)
    for at in batches_of(content):
        inside = content[at.offset + 48 : at.end]
        twin.batch(at.io, at.synced, inside, int.from_bytes(content[at.offset + 36 : at.offset + 40], "little"))
    assert content == twin.content()


async def test_an_idle_log_says_what_is_synced(tmp_path: Path) -> None:
    """Some time after the last flush a mark stands behind it, without a flush of its own."""
    async with running(tmp_path) as (log, _):
        log.append(1, 1, 1, entries(1, 1, 1))
        await until(lambda: log.synced == 1)
        fsyncs = log.counters[1]
        await until(lambda: len(batches_of(first_segment(tmp_path))) == 2)
        mark = batches_of(first_segment(tmp_path))[1]
        assert mark.local and mark.io == mark.synced == 1
        assert first_segment(tmp_path)[mark.offset + 48 : mark.end] == record(SYNCED, 0, 1)
        assert log.counters[1] == fsyncs
        log.append(2, 2, 2, entries(1, 2, 2))
        await until(lambda: log.synced == 2)
        assert batches_of(first_segment(tmp_path))[2].io == 2


@pytest.mark.parametrize("log_sync", MODES)
async def test_a_clean_stop_leaves_nothing_unproven(tmp_path: Path, log_sync: str) -> None:
    """What was queued when the log closed is written, synced and said to be."""
    async with running(tmp_path, log_sync=log_sync) as (log, _):
        log.append(1, 1, 3, entries(1, 1, 3))
        log.hard_state(2, 1, NODE)
    assert batches_of(first_segment(tmp_path))[-1].synced == 2
    async with running(tmp_path, log_sync=log_sync) as (_, recovered):
        assert recovered.last_index == 3 and recovered.vote == NODE


async def test_segments_follow_each_other(tmp_path: Path) -> None:
    """A full segment ends with its end record; the metadata names the next one before `synced` enters it."""
    meta = Meta.open(tmp_path / "meta")
    log, _ = open_log(tmp_path, meta, segment_bytes=16 << 10)
    named: list[tuple[int, int]] = []
    log.on_progress(lambda: named.append((log.synced, meta.newest_segment(0))))
    for io in range(1, 301):
        log.append(io, io, io, entries(1, io, io))
        if io % 10 == 0:
            await until(lambda io=io: log.synced == io)
    await log.close()
    numbers = list_segments(tmp_path / "log")
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 2
    assert meta.newest_segment(0) == numbers[-1]
    headers = {}
    for number in numbers:
        content = segment_path(tmp_path / "log", number).read_bytes()
        headers[number] = decode_header(content[:4096])
        last = batches_of(content)[-1]
        if number != numbers[-1]:
            assert content[last.offset + 48 : last.end] == record(SEGMENT_END, 0, 0)
    for synced, number in named:
        later = headers.get(number + 1)
        assert later is None or synced < later.first_io
    assert len({header.generation for header in headers.values() if header}) == len(numbers)
    log, recovered = open_log(tmp_path, meta, segment_bytes=16 << 10)
    assert recovered.last_index == 300
    assert (await log.read(1, 1 << 30))[1] == entries(1, 1, 300)
    await log.close()
    meta.close()


async def test_an_entry_longer_than_a_segment_gets_its_own(tmp_path: Path) -> None:
    """Long entries, one of them longer than a slice, between short ones: all come back."""
    sizes = {2: 100_000, 4: 9 << 20, 5: 16 << 10, 6: (16 << 10) - 4096 - 48 - 112 - 64}
    chance = random.Random(4)
    written = {}
    async with running(tmp_path, segment_bytes=16 << 10) as (log, _):
        for index in range(1, 9):
            written[index] = record(ENTRY, 1, index, chance.randbytes(sizes.get(index, 20)))
            log.append(index, index, index, written[index])
        await until(lambda: log.synced == 8)
        for index in range(1, 9):
            assert await log.read(index, 1) == (index, written[index])
    async with running(tmp_path, segment_bytes=16 << 10) as (log, recovered):
        assert recovered.last_index == 8
        assert await log.read(1, 1 << 30) == (8, b"".join(written.values()))
        log.append(9, 9, 9, entries(1, 9, 9))
        await until(lambda: log.synced == 9)


async def test_reading_respects_the_size_and_gives_at_least_one(tmp_path: Path) -> None:
    """The answer ends before the limit, or with the first record when that alone is longer."""
    async with running(tmp_path) as (log, _):
        log.append(1, 1, 40, entries(1, 1, 40))
        await until(lambda: log.synced == 1)
        for first in (1, 7, 40):
            for size in (1, 100, 300, 1000, 1 << 20):
                last, data = await log.read(first, size)
                assert data == entries(1, first, last) and first <= last <= 40
                assert len(data) <= size or last == first
                assert last == 40 or len(data) + len(entries(1, last + 1, last + 1)) > size
        for absent in (0, 41, 1000):
            with pytest.raises(StorageError):
                await log.read(absent, 100)


async def test_old_entries_can_be_read_while_new_ones_are_written(tmp_path: Path) -> None:
    """Readers see what was written, never half of it, while the log thread and truncations go on."""
    chance = random.Random(5)
    async with running(tmp_path, segment_bytes=32 << 10) as (log, _):
        terms: list[int] = []
        io = 0
        for step in range(150):
            if step % 10 == 9:
                io += 1
                del terms[chance.randrange(len(terms) // 2, len(terms)) :]
                log.truncate(io, len(terms))
            io += 1
            term, first, count = step // 10 + 1, len(terms) + 1, chance.randrange(1, 6)
            terms += [term] * count
            log.append(io, first, len(terms), entries(term, first, len(terms)))
            start = chance.randrange(1, len(terms) + 1)
            last, data = await log.read(start, 2000)
            expected = b"".join(entries(terms[index - 1], index, index) for index in range(start, last + 1))
            assert data == expected
        await until(lambda: log.synced == io)
        last, data = await log.read(1, 1 << 30)
        assert data == b"".join(entries(term, index, index) for index, term in enumerate(terms, start=1))
    async with running(tmp_path, segment_bytes=32 << 10) as (_, recovered):
        assert terms_of(recovered.runs) == tuple(terms)


async def test_a_log_restarted_behind_its_database_begins_there(tmp_path: Path) -> None:
    """`restart_at` empties it durably; entries follow that index, before and after a restart."""
    async with running(tmp_path) as (log, _):
        log.append(1, 1, 3, entries(1, 1, 3))
        assert await log.restart_at(50, 4) == 2
        log.append(3, 51, 52, entries(4, 51, 52))
        assert (await log.read(51, 1000))[0] == 52
        with pytest.raises(StorageError):
            await log.read(3, 100)
    async with running(tmp_path) as (_, recovered):
        assert (recovered.base_index, recovered.base_term) == (50, 4)
        assert recovered.runs == (TermRun(4, 51, 52),)


async def test_a_reset_log_begins_behind_its_image_after_a_restart(tmp_path: Path) -> None:
    """Also when the old log reached beyond it; the metadata follow, and the old files go with the next purge."""
    async with running(tmp_path) as (log, _):
        log.append(1, 1, 30, entries(1, 1, 30))
        log.reset(2, 20, 3)
        log.append(3, 21, 25, entries(4, 21, 25))
        await until(lambda: log.synced == 3 and log._meta.purge_point(0) == (20, 3))
    async with running(tmp_path) as (_, recovered):
        assert (recovered.base_index, recovered.base_term) == (20, 3)
        assert recovered.runs == (TermRun(4, 21, 25),)


async def test_a_reset_log_gives_no_entry_of_the_log_before_it(tmp_path: Path) -> None:
    """Neither at once nor later: not where several of its records stood, nor behind the end of what is new."""
    async with running(tmp_path, segment_bytes=32 << 10) as (log, _):
        for start in range(1, 1001, 10):
            log.append(start, start, start + 9, entries(1, start, start + 9))
            await until(lambda start=start: log.written == start)
        log.reset(1001, 500, 3)
        log.append(1002, 501, 520, entries(4, 501, 520))
        await until(lambda: log.synced == 1002)
        for index in range(501, 521):
            last, data = await log.read(index, 1)
            assert (last, header(data, 0).term) == (index, 4)
        for index in (500, 521, 900):
            with pytest.raises(StorageError):
                await log.read(index, 1)


async def test_recovery_names_the_membership_entries_that_are_left(tmp_path: Path) -> None:
    """Not those that were cut or purged, nor a damaged one until it is repaired."""
    async with running(tmp_path) as (log, _):
        for index in range(1, 13):
            log.append(index, index, index, entries(1, index, index) if index % 3 else membership(1, index))
            await until(lambda index=index: log.synced == index)
        log.truncate(13, 10)
        log.append(14, 11, 12, membership(2, 11) + entries(2, 12, 12))
        log.purge(4, 1)
        await until(lambda: log.synced == 14)
    async with running(tmp_path) as (_, recovered):
        assert recovered.memberships == (6, 9, 11)
    content = bytearray(first_segment(tmp_path))
    at = next(batch for batch in batches_of(bytes(content)) if batch.io == 9)
    content[at.end - 3] ^= 1
    segment_path(tmp_path / "log", 1).write_bytes(content)
    async with running(tmp_path) as (log, recovered):
        assert (recovered.memberships, recovered.faulty) == ((6, 11), ((9, 9),))
        io_sequence = recovered.io_sequence + 1
        log.append_repair(io_sequence, 9, 9, membership(1, 9))
        await until(lambda: log.synced == io_sequence)
    async with running(tmp_path) as (_, recovered):
        assert recovered.memberships == (6, 9, 11)


async def test_a_torn_tail_is_cut_and_the_log_goes_on(tmp_path: Path) -> None:
    """Recovery of a log that was cut in its last batch, new entries, recovery again: nothing old comes back."""
    async with running(tmp_path) as (log, _):
        for io in (1, 2, 3):
            log.append(io, io, io, entries(1, io, io))
            await until(lambda io=io: log.synced == io)
    content = bytearray(first_segment(tmp_path))
    third = [at for at in batches_of(bytes(content)) if not at.local][2]
    content[third.end :] = bytes(len(content) - third.end)  # the mark behind it never came to the disk
    content[third.end - 3] ^= 1
    segment_path(tmp_path / "log", 1).write_bytes(content)
    async with running(tmp_path) as (log, recovered):
        assert recovered.whole and recovered.last_index == 2 and recovered.io_sequence == 3
        log.append(4, 3, 3, entries(2, 3, 3))
        await until(lambda: log.synced == 4)
        assert await log.read(1, 1000) == (3, entries(1, 1, 2) + entries(2, 3, 3))
    assert list_segments(tmp_path / "log") == [1, 2]
    async with running(tmp_path) as (_, recovered):
        assert recovered.runs == (TermRun(1, 1, 2), TermRun(2, 3, 3)) and recovered.io_sequence == 4


async def test_a_faulty_entry_says_so_when_it_is_read(tmp_path: Path) -> None:
    """LogCorruption for it; the entries round it are served."""
    segment = new_segment()
    segment.batch(1, 0, entries(1, 1, 3), 3)
    segment.mark()
    (tmp_path / "log").mkdir()
    path = segment.write(tmp_path / "log")
    damaged = bytearray(segment.content())
    damaged[4096 + 48 + len(entries(1, 1, 1)) + 64] ^= 1
    path.write_bytes(damaged)
    async with running(tmp_path) as (log, recovered):
        assert recovered.faulty == ((2, 2),)
        assert await log.read(1, 1 << 20) == (1, entries(1, 1, 1))
        assert await log.read(3, 1 << 20) == (3, entries(1, 3, 3))
        with pytest.raises(LogCorruption):
            await log.read(2, 1 << 20)


async def test_a_lost_log_takes_no_writes_until_the_loss_is_accepted(tmp_path: Path) -> None:
    """Opening it changes nothing on disk; with `accept_loss` it goes on, and is whole from then on."""
    async with running(tmp_path, segment_bytes=16 << 10) as (log, _):
        for io in range(1, 201):
            log.append(io, io, io, entries(1, io, io))
        await until(lambda: log.synced == 200)
    newest = list_segments(tmp_path / "log")[-1]
    segment_path(tmp_path / "log", newest).unlink()
    for _ in range(2):
        async with running(tmp_path) as (log, recovered):
            assert recovered.lost and 0 < recovered.last_index < 200
            assert (await log.read(1, 100))[0] >= 1
            with pytest.raises(UsageError):
                log.hard_state(1000, 1, None)
    async with running(tmp_path, accept_loss=True) as (log, recovered):
        assert recovered.lost
        io, last = recovered.io_sequence, recovered.last_index
        log.append(io + 1, last + 1, last + 1, entries(2, last + 1, last + 1))
        await until(lambda: log.synced == io + 1)
    async with running(tmp_path) as (_, recovered):
        assert recovered.whole and recovered.last_index == last + 1


async def test_the_vote_of_log_and_metadata_is_the_higher_one(tmp_path: Path) -> None:
    """Whichever of the two was set back, the later term and its vote rule (M15)."""
    async with running(tmp_path) as (log, _):
        log.hard_state(1, 5, NODE)
        await until(lambda: log.synced == 1)
    for term, vote, expected in ((4, Identity(3, 3), (5, NODE)), (5, None, (5, NODE)), (6, None, (6, None))):
        meta = Meta.open(tmp_path / "meta")
        meta.set_hard_state(0, term, vote)
        meta.close()
        async with running(tmp_path) as (_, recovered):
            assert (recovered.term, recovered.vote) == expected


async def test_wrong_calls_are_refused_and_change_nothing(tmp_path: Path) -> None:
    """Io sequences that do not ascend, bytes that are no records, a log that is closed."""
    async with running(tmp_path) as (log, _):
        log.append(1, 1, 1, entries(1, 1, 1))
        for call in (
            lambda: log.append(1, 2, 2, entries(1, 2, 2)),
            lambda: log.append(2, 2, 3, entries(1, 2, 2)[:100]),
            lambda: log.append(2, 2, 1, b""),
            lambda: log.append(2, 2, 2, entries(1, 2, 2) + b"x"),
        ):
            with pytest.raises(UsageError):
                call()
        await until(lambda: log.synced == 1)
    with pytest.raises(UsageError):
        log.append(2, 2, 2, entries(1, 2, 2))
    await log.close()


def test_log_sync_is_one_of_three() -> None:
    """Anything else is a clear error."""
    assert parse_log_sync("immediate")[0] != parse_log_sync("immediate_async")[0]
    assert parse_log_sync("interval_200")[1] == 200_000_000
    for wrong in ("", "never", "interval_", "interval_0", "interval_-1", "interval_1.5", "Immediate"):
        with pytest.raises(ConfigError):
            parse_log_sync(wrong)


async def test_a_log_forgotten_without_close_ends_its_threads(tmp_path: Path) -> None:
    """Dropping the object stops the threads, and what was queued is written."""

    def threads() -> set[str]:
        names = set()
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
                names.add((task / "comm").read_text().strip())
        return names

    folder = os.open(tmp_path, os.O_RDONLY)
    log = native.NativeLog(folder, 1, 7, 1, 64 << 10, 0, 0)
    os.close(folder)
    log.start(0, 0, 0, 1)
    log.append(1, 1, 1, entries(1, 1, 1))
    await until(lambda: "hq-log-1" in threads())
    del log
    await until(lambda: "hq-log-1" not in threads() and "hq-fill-1" not in threads())
    assert len(batches_of(segment_path(tmp_path, 1).read_bytes())) == 2


def test_a_forked_child_cannot_touch_the_log(tmp_path: Path) -> None:
    """The threads live in the parent only: in the child a call is refused, and dropping the log does nothing."""
    folder = os.open(tmp_path, os.O_RDONLY)
    log = native.NativeLog(folder, 1, 7, 1, 64 << 10, 0, 0)
    os.close(folder)
    log.start(0, 0, 0, 1)
    child = os.fork()
    if child == 0:
        try:
            log.append(1, 1, 1, entries(1, 1, 1))
        except UsageError:
            del log
            os._exit(17)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    log.append(1, 1, 1, entries(1, 1, 1))
    assert log.stop(10_000_000) and log.synced == 0 and log.written == 1
