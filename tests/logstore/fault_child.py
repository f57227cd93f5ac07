"""What a log does on a disk that fails; faulty_disk.c is preloaded. Arguments: the scenario, `log_sync`, a folder.

Each scenario asserts for itself; the test only looks at how the process ends.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path

from hiqlite._accel.records import encode_record
from hiqlite.errors import StorageError
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.segments import segment_path
from hiqlite.logstore.wal import WalLog
from tests.logstore.log_runs import open_log, until
from tests.logstore.log_twin import NODE, batches_of, entries

FDATASYNC, PWRITEV, FALLOCATE, PWRITE, HOLD, FSYNC, FILLER_FDATASYNC, HOLD_FILLER = range(8)
HOLD_EACH, BEGUN, ALLOWED = 11, 12, 13
MIB = 1 << 20


async def fails_for_ever(log: WalLog, orders: mmap.mmap, meta: Meta, which: int) -> None:
    """The failure is told, nothing is promised, and a disk that works again changes nothing."""
    told: list[Exception | None] = []
    log.on_progress(lambda: told.append(log.failure))
    log.append(1, 1, 1, entries(1, 1, 1))
    await until(lambda: log.synced == 1)
    orders[which] = errno.EIO
    log.append(2, 2, 2, entries(1, 2, 2))
    await until(lambda: log.failure is not None)
    assert isinstance(log.failure, StorageError)
    await until(lambda: bool(told) and told[-1] is not None)
    promised = log.synced
    orders[which] = 0
    log.append(3, 3, 3, entries(1, 3, 3))
    await until(lambda: log.queued_bytes == 0)
    assert log.synced == promised < 3 and (promised == 1 or which == FDATASYNC)
    assert log.failure is told[-1]


async def fdatasync_fails(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    await fails_for_ever(log, orders, meta, FDATASYNC)


async def pwritev_fails(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    await fails_for_ever(log, orders, meta, PWRITEV)


async def disk_fills_up(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """No space for the next segment: new work is refused by `disk_full`, what was taken waits, then all goes on."""
    orders[FALLOCATE] = errno.ENOSPC
    io = 0
    while not log.disk_full:
        io += 1
        log.append(io, io, io, entries(1, io, io))
        await asyncio.sleep(0)
    first_refusal = io
    while log.synced == io or io < first_refusal + 300:
        io += 1
        log.append(io, io, io, entries(1, io, io))
        await asyncio.sleep(0)
    assert log.failure is None
    orders[FALLOCATE] = 0
    await until(lambda: log.synced == io and not log.disk_full)
    assert log.failure is None
    assert (await log.read(1, 1 << 30))[0] == io


async def zeros_ahead_fail(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """An fdatasync that fails beside the log thread may have been about a batch: it is as final as the thread's own."""
    orders[FILLER_FDATASYNC] = errno.EIO
    log.append(1, 1, 1, entries(1, 1, 1))
    await until(lambda: orders[FILLER_FDATASYNC] == 0)
    await until(lambda: log.failure is not None)


async def close_awaits_the_filler(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """A log that is closed writes nothing more: a file of its filler may be the next owner's segment."""
    orders[HOLD_FILLER] = 1
    io = 0
    while not (log_folder() / "prepared.tmp").exists():
        io += 1
        log.append(io, io, io, entries(1, io, io))
        await until(lambda io=io: log.synced == io)
    closing = asyncio.create_task(log.close())
    await until(lambda: "hq-log-0" not in threads())
    for _ in range(2000):
        await asyncio.sleep(0)
    assert not closing.done() and "hq-fill-0" in threads()
    orders[HOLD_FILLER] = 0
    await closing
    assert "hq-fill-0" not in threads()


def threads() -> list[str]:
    """Names of this process's threads; one may end while they are read."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            names.append((task / "comm").read_text().strip())
    return names


async def no_reservation(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """A file system without fallocate: zeros are written ahead instead, and a full disk is still no failure."""
    orders[FALLOCATE] = errno.EOPNOTSUPP
    for io in range(1, 401):
        log.append(io, io, io, entries(1, io, io))
    await until(lambda: log.synced == 400)
    orders[PWRITE] = errno.ENOSPC
    io = 400
    while not log.disk_full:
        io += 1
        log.append(io, io, io, entries(1, io, io))
        await asyncio.sleep(0)
    orders[PWRITE] = 0
    await until(lambda: log.synced == io and not log.disk_full)
    assert log.failure is None


async def disk_stalls(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """An fsync that does not return: the loop goes on, the stamp grows old, nothing is promised, votes neither."""
    log.append(1, 1, 1, entries(1, 1, 1))
    await until(lambda: log.synced == 1)
    assert log.waiting_since_ns == 0
    orders[HOLD] = 1
    log.append(2, 2, 2, entries(1, 2, 2))
    log.hard_state(3, 4, NODE)
    await until(lambda: log.written >= 2)
    stamp = log.waiting_since_ns
    assert stamp > 0 and log.busy
    for _ in range(2000):
        await asyncio.sleep(0)
    assert log.waiting_since_ns == stamp and log.synced == 1
    orders[HOLD] = 0
    await until(lambda: log.synced == 3)
    assert log.waiting_since_ns == 0 and meta.hard_state(0).term == 4


async def slices_are_progress(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """A long entry goes to a slow disk in slices of 8 MiB: each one that is there is progress, none is a promise."""
    log.append(1, 1, 1, entries(1, 1, 1))
    await until(lambda: log.synced == 1)
    orders[HOLD_EACH] = 1
    log.append(2, 2, 2, encode_record(1, 1, bytes(17 * MIB), term=1, index=2))
    stamps = [0]
    for slices in (1, 2, 3):
        await until(lambda slices=slices: orders[BEGUN] == slices)
        stamps.append(log.waiting_since_ns)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert log.waiting_since_ns == stamps[-1] > stamps[-2], "a slice is progress, waiting is none"
        assert log.synced == 1 and log.busy
        orders[ALLOWED] = slices
    await until(lambda: log.synced == 2)
    assert log.waiting_since_ns == 0
    orders[HOLD_EACH] = 0


async def recovery_syncs_first(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """What a killed process left may be in memory only: a log that cannot sync it does not open (M58)."""
    log.append(1, 1, 1, entries(1, 1, 1))
    await until(lambda: log.synced == 1)
    await log.close()
    orders[FSYNC] = errno.EIO
    try:
        open_log(log_folder().parent, meta)
    except StorageError:
        orders[FSYNC] = 0
    assert orders[FSYNC] == 0, "the log opened without an fsync"
    again, recovered = open_log(log_folder().parent, meta)
    assert recovered.last_index == 1
    await again.close()


async def exit_with_a_hanging_disk(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """The process ends although a flush never returns."""
    orders[HOLD] = 1
    log.append(1, 1, 1, entries(1, 1, 1))
    await until(lambda: log.busy)
    print("passed", flush=True)
    sys.exit(0)


async def unsynced_modes(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """Synced is told after the write while the disk hangs; the batch header tells the truth, and a vote waits."""
    orders[HOLD] = 1
    log.append(1, 1, 1, entries(1, 1, 1))
    while not segment_path(log_folder(), 1).exists():
        orders[HOLD] = 0  # the first segment is made with fsyncs of its own
        await asyncio.sleep(0)
    await until(lambda: log.synced == 1)
    orders[HOLD] = 1
    for io in (2, 3, 4):
        log.append(io, io, io, entries(1, io, io))
        await until(lambda io=io: log.synced == io)
    log.hard_state(5, 2, NODE)
    await until(lambda: log.written == 5)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert log.synced == 4, "term and vote are never told before they are durable"
    assert batches_of(segment_path(log_folder(), 1).read_bytes())[-1].synced <= 1
    orders[HOLD] = 0
    await until(lambda: log.synced == 5)


async def metadata_on_a_refusing_disk(log: WalLog, orders: mmap.mmap, meta: Meta) -> None:
    """EIO from fsync while opening: the error names the disk, and tells nobody to move good data away."""
    folder = Path(sys.argv[3]) / "other"
    Meta.open(folder).close()
    orders[FSYNC] = errno.EIO
    try:
        Meta.open(folder)
    except StorageError as error:
        assert os.strerror(errno.EIO) in error.message and error.hint == "check the disk", error
    else:
        raise AssertionError("it opened")
    orders[FSYNC] = 0
    Meta.open(folder).close()


def log_folder() -> Path:
    return Path(sys.argv[3]) / "log"


async def main(scenario: str, log_sync: str, folder: Path) -> None:
    with Path(os.environ["FAULTY_DISK"]).open("r+b") as file:
        orders = mmap.mmap(file.fileno(), 64)
    meta = Meta.open(folder / "meta")
    segment_bytes = {"zeros_ahead_fail": 4 * MIB, "slices_are_progress": 32 * MIB}.get(scenario, 32 << 10)
    log, _ = open_log(folder, meta, segment_bytes=segment_bytes, log_sync=log_sync)
    await globals()[scenario](log, orders, meta)
    await log.close()
    meta.close()
    print("passed", flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
