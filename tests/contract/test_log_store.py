"""The contract of ports.LogStore, over every implementation: the same calls, the same promises, in each `log_sync`.

What only a disk in trouble shows (it is full, it hangs) is in tests/logstore/test_wal_faults.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hiqlite.clock import Clock
from hiqlite.engine.model import Identity
from hiqlite.engine.ports import LogPurged, LogStore
from hiqlite.errors import StorageError, UsageError
from hiqlite.logstore.memory import MemoryLog
from hiqlite.logstore.wal import WalLog
from tests.logstore.log_runs import running, until
from tests.logstore.log_twin import entries

IN_MEMORY = "in memory"
# The last one syncs so seldom that the loop writes all small batches itself.
ON_DISK = ["immediate", "immediate_async", "interval_5", "interval_60000"]
FOLDER_TAKEN = ("making.tmp", "prepared.tmp")


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[LogStore]:
    if kind == IN_MEMORY:
        log = MemoryLog()
        yield log
        await log.close()
    else:
        async with running(folder, log_sync=kind) as (on_disk, _):
            yield on_disk


@pytest.fixture(params=[*ON_DISK, IN_MEMORY])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LogStore]:
    async with opened(request.param, tmp_path) as made:
        yield made


async def test_nothing_is_told_inside_the_call(log: LogStore) -> None:
    """Completion comes with a later turn of the loop, by the callback, which sees it in `synced`."""
    seen: list[int] = []
    log.on_progress(lambda: seen.append(log.synced))
    log.hard_state(1, 1, Identity(1, 1))
    log.append(2, 1, 2, entries(1, 1, 2))
    assert seen == []
    await until(lambda: bool(seen) and seen[-1] == 2)
    assert seen == sorted(seen) and log.written == 2 and log.failure is None
    assert log.queued_bytes == 0


async def test_work_that_waits_says_since_when(log: LogStore) -> None:
    """By the boot clock, not from before there was any; none waits once all is done. A healthy log is neither full nor
    failed."""
    clock, last = Clock(), 0
    assert log.waiting_since_ns == 0
    for io in range(1, 101):
        begun = clock.monotonic_ns() if log.queued_bytes == 0 else last
        log.append(io, io, io, entries(1, io, io))
        since = log.waiting_since_ns
        assert since == 0 or begun <= since <= clock.monotonic_ns()
        last = max(last, since)
        if io % 10 == 0:
            await until(lambda io=io: log.synced == io and log.queued_bytes == 0)
            assert log.waiting_since_ns == 0
    assert log.failure is None and not log.disk_full


@pytest.mark.parametrize("log", ON_DISK, indirect=True)
async def test_a_failure_is_told_and_stays(log: LogStore, tmp_path: Path) -> None:
    """Nothing is promised from there on, though what had failed would work again; a close ends all the same."""
    told: list[Exception | None] = []
    log.on_progress(lambda: told.append(log.failure))
    log.append(1, 1, 1, entries(1, 1, 1))
    await until(lambda: log.synced == 1)
    for name in FOLDER_TAKEN:  # no next segment can be made
        (tmp_path / "log" / name).unlink(missing_ok=True)
        (tmp_path / "log" / name).mkdir()
    io = 1
    while log.failure is None:
        io += 1
        log.append(io, io, io, entries(1, io, io))
        await asyncio.sleep(0)
    promised = log.synced
    assert isinstance(log.failure, StorageError) and promised < io
    await until(lambda: told[-1] is not None)
    for name in FOLDER_TAKEN:
        (tmp_path / "log" / name).rmdir()
    log.append(io + 1, io + 1, io + 1, entries(1, io + 1, io + 1))
    await until(lambda: log.queued_bytes == 0)
    assert log.synced == promised and log.failure is told[-1] and log.waiting_since_ns == 0


async def test_synced_covers_all_that_is_below_it(log: LogStore) -> None:
    """Writes complete in the order of the calls, whatever they are."""
    log.append(1, 1, 3, entries(1, 1, 3))
    log.truncate(2, 2)
    log.hard_state(3, 2, None)
    log.append(4, 3, 3, entries(2, 3, 3))
    last = 0
    while log.synced < 4:
        assert log.synced >= last
        last = log.synced
        await asyncio.sleep(0)
    assert await log.read(1, 1 << 20) == (3, entries(1, 1, 2) + entries(2, 3, 3))


async def test_reading_gives_whole_records_in_order(log: LogStore) -> None:
    """At least one, at most `size_max` bytes, nothing that was truncated, also right after the calls."""
    for io in range(1, 11):
        log.append(io, io * 3 - 2, io * 3, entries(1, io * 3 - 2, io * 3))
    log.truncate(11, 20)
    log.append(12, 21, 22, entries(2, 21, 22))
    everything = entries(1, 1, 20) + entries(2, 21, 22)
    assert await log.read(1, 1 << 20) == (22, everything)
    for first in range(1, 23):
        last, data = await log.read(first, 400)
        expected = b"".join(entries(1 if index <= 20 else 2, index, index) for index in range(first, last + 1))
        assert data == expected and (len(data) <= 400 or last == first)
    with pytest.raises(StorageError):
        await log.read(23, 100)
    with pytest.raises(LogPurged):  # nothing is below the first entry, ever
        await log.read(0, 100)


async def test_an_io_sequence_counts_once(log: LogStore) -> None:
    """A call whose io sequence does not ascend is refused."""
    log.append(5, 1, 1, entries(1, 1, 1))
    calls: list[Callable[[], None]] = [
        lambda: log.append(5, 2, 2, entries(1, 2, 2)),
        lambda: log.truncate(4, 0),
        lambda: log.hard_state(5, 1, None),
    ]
    for call in calls:
        with pytest.raises(UsageError):
            call()
    await until(lambda: log.synced == 5)


async def test_a_closed_log_takes_nothing(log: LogStore) -> None:
    """Closing twice is allowed; writing afterwards is not."""
    log.append(1, 1, 1, entries(1, 1, 1))
    await log.close()
    await log.close()
    with pytest.raises(UsageError):
        log.append(2, 2, 2, entries(1, 2, 2))


async def test_what_is_purged_is_said_to_be(log: LogStore) -> None:
    """Reads up to the purge point fail by name, at once; the rest stays readable, and the log goes on."""
    for io in (1, 2, 3):
        log.append(io, io * 2 - 1, io * 2, entries(1, io * 2 - 1, io * 2))
    assert log.base_index == 0
    log.purge(3, 1)
    assert log.base_index == 3
    for gone in (1, 2, 3):
        with pytest.raises(LogPurged):
            await log.read(gone, 100)
    assert await log.read(4, 1 << 20) == (6, entries(1, 4, 6))
    log.purge(2, 1)  # below what is purged already: nothing happens
    assert log.base_index == 3
    log.append(4, 7, 8, entries(2, 7, 8))
    await until(lambda: log.written == 4)
    assert await log.read(6, 1 << 20) == (8, entries(1, 6, 6) + entries(2, 7, 8))


async def test_a_whole_log_can_be_purged(log: LogStore) -> None:
    """Up to the last entry; the next one follows it."""
    log.append(1, 1, 5, entries(1, 1, 5))
    log.purge(5, 1)
    with pytest.raises(LogPurged):
        await log.read(5, 100)
    log.append(2, 6, 6, entries(1, 6, 6))
    assert await log.read(6, 100) == (6, entries(1, 6, 6))
    with pytest.raises(UsageError):
        log.purge(7, 1)


async def test_a_purge_completes_nothing_and_holds_nothing_up(log: LogStore) -> None:
    """It has no io sequence: what was written before and after it completes as ever."""
    log.append(1, 1, 2, entries(1, 1, 2))
    await until(lambda: log.synced == 1)
    log.purge(1, 1)
    log.append(2, 3, 3, entries(1, 3, 3))
    log.purge(2, 1)
    log.hard_state(3, 2, Identity(1, 1))
    await until(lambda: log.synced == 3)
    assert log.written == 3 and log.failure is None


async def test_a_truncation_stays_above_what_is_purged(log: LogStore) -> None:
    """Cut behind the purge point, entries of another term follow."""
    log.append(1, 1, 6, entries(1, 1, 6))
    log.purge(3, 1)
    log.truncate(2, 3)
    log.append(3, 4, 5, entries(2, 4, 5))
    await until(lambda: log.written == 3)
    assert await log.read(4, 1 << 20) == (5, entries(2, 4, 5))


async def test_repairs_are_of_entries_that_the_log_holds(log: LogStore) -> None:
    """A repair of a healthy entry changes nothing; one outside of the log is refused."""
    log.append(1, 1, 6, entries(1, 1, 6))
    log.purge(2, 1)
    log.append_repair(2, 4, 5, entries(1, 4, 5))
    assert await log.read(3, 1 << 20) == (6, entries(1, 3, 6))
    await until(lambda: log.synced == 2)
    for first, last in ((2, 3), (6, 7)):
        with pytest.raises(UsageError):
            log.append_repair(9, first, last, entries(1, first, last))


async def test_a_reset_empties_the_log_behind_an_image(log: LogStore) -> None:
    """It counts as a write: entries follow the image's index at once, nothing that was there can be read, not below."""
    log.append(1, 1, 6, entries(1, 1, 6))
    log.reset(2, 20, 3)
    log.append(3, 21, 22, entries(4, 21, 22))
    assert log.base_index == 20
    assert await log.read(21, 1 << 20) == (22, entries(4, 21, 22))
    with pytest.raises(LogPurged):
        await log.read(6, 100)
    await until(lambda: log.synced == 3)
    with pytest.raises(UsageError):
        log.reset(4, 19, 3)


async def test_what_a_log_holds_shrinks_when_it_is_purged(log: LogStore) -> None:
    """`held_bytes` is about what the entries take."""
    for io in range(1, 201):
        log.append(io, io * 10 - 9, io * 10, entries(1, io * 10 - 9, io * 10))
    await until(lambda: log.synced == 200)
    held = log.held_bytes
    assert held >= 2000 * 64
    log.purge(1990, 1)
    await until(lambda: log.held_bytes < held)


async def test_a_log_begins_anew_where_it_is_told(log: WalLog | MemoryLog) -> None:
    """After a restart the log is empty behind the given entry, whatever it held."""
    log.append(1, 1, 6, entries(1, 1, 6))
    assert await log.restart_at(20, 3) == 2
    assert log.base_index == 20 and log.synced == 2
    with pytest.raises(LogPurged):
        await log.read(6, 100)
    log.append(3, 21, 21, entries(3, 21, 21))
    assert await log.read(21, 1) == (21, entries(3, 21, 21))
