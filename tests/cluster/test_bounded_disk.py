"""What a node has on its disk follows from what its database holds, not from how much was ever written."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import hiqlite
from hiqlite.logstore.space import APPLYING_BYTES
from tests.waiting import moment

SEGMENT_BYTES = 64 << 10
SEGMENTS_MAX = 8  # tail, entries that are not worth a purge, the next segment, files that wait for being used again
PAGE_BYTES = 4096
DEADLINE_S = 60
KEYS = 500
WRITES = 5000
TASKS = 50
INSERT = "INSERT OR REPLACE INTO t VALUES (?, ?)"
TEXT = "x" * 7000  # two pages: so many writes would not fit in what SQLite's own log may take


def size_bytes(folder: Path, names: str) -> int:
    total = 0
    for path in folder.rglob(names):
        with suppress(FileNotFoundError):  # purged since
            total += path.stat().st_size
    return total


async def test_logs_and_database_do_not_grow_with_writes(tmp_path: Path) -> None:
    """The log is purged, SQLite's own log begins anew before it is long, and the database is as large as its rows."""
    async with hiqlite.open(tmp_path, cache=False, wal_size=SEGMENT_BYTES, logs_until_snapshot=50) as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text)")
        chance, sqlite_log = random.Random(1), list[int]()

        async def write() -> None:
            for _ in range(WRITES // TASKS):
                await db.execute(INSERT, [chance.randrange(KEYS), TEXT])
            sqlite_log.append(size_bytes(tmp_path, "*-wal"))  # it never shrinks

        await asyncio.gather(*(write() for _ in range(TASKS)))
        assert max(sqlite_log) <= APPLYING_BYTES < WRITES * 2 * PAGE_BYTES
        assert size_bytes(tmp_path, "*.db") <= 2 * KEYS * len(TEXT)
        async with asyncio.timeout(DEADLINE_S):
            while size_bytes(tmp_path, "*.wal") > SEGMENTS_MAX * SEGMENT_BYTES:
                await moment()
