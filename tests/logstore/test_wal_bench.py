"""What the log costs: one turn of append and sync, handing over, and reading a log back at start."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hiqlite._accel import wal as native
from hiqlite._accel.records import crc32c, encode_record
from tests.logstore.log_twin import BATCH, ENTRY, SegmentTwin, new_segment, plan_of, record

BATCH_MAGIC = int.from_bytes(b"HQBA", "little")


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
    segment = SegmentTwin(replace(new_segment().header, size_bytes=64 << 20))
    index = 0
    while len(segment.body) < (64 << 20) - (40 << 10):
        first, index = index + 1, index + 15
        content = b"".join(encode_record(ENTRY, 1, bytes(1024), 1, at) for at in range(first, index + 1))
        fields = BATCH.pack(
            BATCH_MAGIC, len(content), segment.header.salt, index, first - 1, segment.last_crc, 15, crc32c(content)
        )
        segment.last_crc = crc32c(fields)
        segment.body += fields + segment.last_crc.to_bytes(4, "little") + content
    segment.write(tmp_path)
    plan = benchmark.pedantic(plan_of, args=(tmp_path,), rounds=5)
    assert plan.recovered.last_index == index
