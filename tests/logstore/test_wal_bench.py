"""What the log costs: one turn of append and sync, handing over, and reading a log back at start."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hiqlite._accel import wal as native
from tests.logstore.log_twin import ENTRY, SEGMENT_BYTES, new_segment, plan_of, record


def native_log(folder: Path, mode: int) -> native.NativeLog:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        log = native.NativeLog(descriptor, 0, 7, 1, 64 << 20, mode, 0)
    finally:
        os.close(descriptor)
    log.start(0, 0, 0, 1)
    return log


@pytest.mark.parametrize("mode", [0, 1], ids=["immediate", "immediate_async"])
def test_append_and_sync_turn(benchmark: BenchmarkFixture, tmp_path: Path, mode: int) -> None:
    """A batch of 64 entries of 200 bytes, from the call to the wake-up of the loop."""
    log = native_log(tmp_path, mode)
    loop = asyncio.new_event_loop()
    woken = asyncio.Event()

    def on_wake() -> None:
        log.drain()
        if log.take_segment():
            log.segment_recorded()
        woken.set()

    loop.add_reader(log.fileno(), on_wake)
    data = b"".join(record(ENTRY, 1, index, bytes(136)) for index in range(1, 65))
    io = 0

    async def turn() -> None:
        nonlocal io
        io += 1
        log.append(io, io * 64 - 63, io * 64, data)
        while log.synced < io:
            woken.clear()
            await woken.wait()

    benchmark(lambda: loop.run_until_complete(turn()))
    loop.remove_reader(log.fileno())
    loop.close()
    assert log.stop(10_000_000)


def test_handing_over_one_append(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """What the loop pays for one append while the log thread works."""
    log = native_log(tmp_path, 1)
    data = record(ENTRY, 1, 1, bytes(136))
    io = 0

    def append() -> None:
        nonlocal io
        io += 1
        log.append(io, io, io, data)

    benchmark.pedantic(append, iterations=100, rounds=50)
    assert log.stop(10_000_000)


def test_recovering_a_full_segment(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """64 MiB of batches of 16 KiB, scanned and replayed."""
    assert SEGMENT_BYTES == 16 << 10
    segment = new_segment()
    segment.header = type(segment.header)(0, 7, 1, 1, 5, 1, 64 << 20)
    segment.body = bytearray()
    segment.__post_init__()
    index = 0
    while len(segment.body) < (64 << 20) - (40 << 10):
        content = b"".join(record(ENTRY, 1, index + step, bytes(1024)) for step in range(1, 16))
        index += 15
        segment.batch(index, max(index - 15, 0), content, 15)
    segment.write(tmp_path)
    plan = benchmark.pedantic(plan_of, args=(tmp_path,), rounds=5)
    assert plan.recovered.last_index == index
