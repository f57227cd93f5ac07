"""Reads beside a writer: never older than the last commit, never torn, never pinned."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from reader_files import opened, until

from hiqlite.errors import RowMappingError, StatementError

COMMITS = 3000


async def test_reads_are_never_stale_while_a_writer_commits(tmp_path: Path) -> None:
    """What was committed before a read began is in it, on the calling thread and on the others; pairs never tear."""
    async with opened(tmp_path) as (reader, writer):
        writer.execute("CREATE TABLE counter(id INTEGER PRIMARY KEY, a INTEGER, b INTEGER)")
        writer.execute("INSERT INTO counter VALUES (1, 0, 0)")
        committed = 0

        def write() -> None:
            nonlocal committed
            for number in range(1, COMMITS + 1):
                writer.execute("UPDATE counter SET a = ?1, b = -?1 WHERE id = 1", (number,))
                committed = number

        thread = threading.Thread(target=write)
        thread.start()
        reads = 0
        while committed < COMMITS:
            before = committed
            rows = reader.query_now("SELECT a, b FROM counter WHERE id = 1")
            assert rows is not None
            assert rows[0][0] >= before and rows[0][0] == -rows[0][1]
            before = committed
            rows = await reader.query("SELECT max(a), sum(b) FROM counter")
            assert rows[0][0] >= before and rows[0][0] == -rows[0][1]
            reads += 1
            await asyncio.sleep(0)
        thread.join()
        assert reads > 10
        assert reader.query_now("SELECT a FROM counter WHERE id = 1") == [(COMMITS,)]


ENDINGS = [
    "SELECT * FROM item WHERE id = 1",
    "SELECT * FROM item WHERE kind = 1",
    "SELECT CAST(x'ff' AS TEXT) FROM item WHERE kind = 1",
    "SELECT abs(-9223372036854775807 - id) FROM item WHERE id IN (0, 1)",
    "SELECT a.price + b.price FROM item a JOIN item b ON b.kind = a.kind WHERE a.kind < 9",
    "SELECT * FROM item a JOIN item b ON b.kind = a.kind",
]


@pytest.mark.parametrize("sql", ENDINGS)
async def test_no_way_out_of_a_read_pins_the_snapshot(sql: str, tmp_path: Path) -> None:
    """Done, interrupted, failed in a value or in SQLite: the next read sees the next commit, the WAL can be emptied."""
    async with opened(tmp_path) as (reader, writer):
        for number in range(3):
            try:
                reader.query_now(sql)
                await asyncio.wait_for(reader.query(sql), 0.05)
            except (RowMappingError, StatementError, TimeoutError) as ended:
                assert str(ended) or isinstance(ended, TimeoutError)
            writer.execute("UPDATE item SET price = ? WHERE id = 3", (number,))
            assert reader.query_now("SELECT price FROM item WHERE id = 3") == [(number,)]
        await until(lambda: reader.metrics().busy == 0)
        assert writer.wal_checkpoint(mode=3) == (0, 0)
