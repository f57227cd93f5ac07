"""The clock of a group over the lives of its leaders."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import hiqlite
from hiqlite._accel.records import header
from hiqlite.runtime.window import Window


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
