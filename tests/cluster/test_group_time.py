"""The clock of a group over the lives of its leaders."""

from __future__ import annotations

import shutil
import threading
import time
from itertools import pairwise
from pathlib import Path

import hiqlite
import hiqlite.testing
from hiqlite._accel.records import header
from hiqlite.runtime.window import Window
from tests.node.storage_opener import storage_of


def newest_stamp_ns(window: Window) -> int:
    """Group time in the newest entry."""
    return header(window.records(window.last_index, window.last_index), 0).group_time_ns


async def test_group_time_moves_no_faster_than_real_time_over_a_restart(tmp_path: Path) -> None:
    """Leases and expiries hang on it: neither the uptime of the machine nor that of the process may enter it."""
    stamps: list[tuple[int, float]] = []
    for _ in range(4):
        async with hiqlite.open(tmp_path) as db:
            begun = time.monotonic()
            await db.execute("CREATE TABLE IF NOT EXISTS t (x)")
            stamps.append((newest_stamp_ns(db._services.group.window), begun))
    for (before, begun), (after, _) in pairwise(stamps):
        assert 0 < after - before <= (time.monotonic() - begun) * 1e9


async def test_what_memory_lets_go_of_is_remembered_by_its_group_time(tmp_path: Path) -> None:
    """A follower that takes over at once goes on from its newest entry, though no heartbeat came after it."""
    small = dict.fromkeys(("raft_frame_bytes_max", "raft_window_bytes", "raft_memory_window_bytes"), "64 KiB")
    slow = {"heartbeat_interval_ms": 400, "election_timeout_ms": "2000-4000", "raft_stall_ms": 1000}
    async with hiqlite.testing.cluster(3, base_dir=tmp_path, **small, **slow) as cluster:
        await cluster.client.execute("CREATE TABLE t (x)")
        follower = cluster._running[cluster.followers[0]].group
        for _ in range(5):
            result = await cluster.client.execute("INSERT INTO t VALUES (?)", [bytes(200_000)])
            index = result.log_index

            def gone(index: int = index) -> bool:
                return follower.applier.applied_index >= index and follower.window.last_index == 0

            await cluster.wait_until(gone)
            _, record = await follower.log_store.read(index, 1)
            assert follower.newest_group_time() >= header(record, 0).group_time_ns


async def test_a_node_that_has_an_image_only_goes_on_from_its_group_time(tmp_path: Path) -> None:
    """It restarts with nothing in its log and is elected: what it stamps does not go back."""
    far_ns = 1_000_000_000_000  # no test lives as long
    async with hiqlite.open(tmp_path / "one", wal_size="1 MiB"):
        pass
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # of one cluster
    async with hiqlite.open(tmp_path / "one", wal_size="1 MiB") as db:
        db._services.group.group_time.saw(far_ns)  # as if a leader before this one had been there
        for number in range(50):
            await db.execute(f"CREATE TABLE t{number} (x)")
        before = newest_stamp_ns(db._services.group.window)
        assert before >= far_ns
    async with hiqlite.open(tmp_path / "two", wal_size="1 MiB") as db:
        await db.execute("CREATE TABLE other (x)")
    async with storage_of(tmp_path / "one") as one, storage_of(tmp_path / "two") as two:
        outgoing = one.images.make(one.database, threading.Event())
        incoming = two.images.begin(outgoing.offer(), threading.Event())
        while not incoming.complete:
            incoming.write(incoming.offset, outgoing.read(incoming.offset))
        incoming.finish(threading.Event())
        await two.switch_to(incoming)
        assert two.writer.applied_group_time_ns >= before
    async with hiqlite.open(tmp_path / "two", wal_size="1 MiB") as db:
        await db.execute("INSERT INTO t49 VALUES (1)")
        assert newest_stamp_ns(db._services.group.window) >= before
