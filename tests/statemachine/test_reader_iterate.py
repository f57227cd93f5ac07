"""Iterations: one snapshot, rows as they are asked for, limits that end what nobody reads."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest
from reader_files import ENDLESS, opened, until

from hiqlite.errors import (
    ParameterError,
    RequestTimeout,
    ShuttingDown,
    SnapshotCorruption,
    StorageError,
    UsageError,
)
from tests.turns import turns

ALL = "SELECT id, name FROM item ORDER BY id"


async def test_all_rows_come_in_bounded_lists(tmp_path: Path) -> None:
    """In order, none twice, in more than one list."""
    async with opened(tmp_path, rows=30_000) as (reader, _):
        lists = [rows async for rows in reader.iterate(ALL)]
        assert len(lists) > 3
        assert max(len(rows) for rows in lists) < 5000
        assert [row[0] for rows in lists for row in rows] == list(range(30_000))
        assert reader.metrics().iterations == 0


async def test_an_empty_result_ends_at_once(tmp_path: Path) -> None:
    """No list, no error."""
    async with opened(tmp_path) as (reader, _):
        assert [rows async for rows in reader.iterate("SELECT 1 WHERE 0")] == []


async def test_the_snapshot_does_not_move_while_it_is_read(tmp_path: Path) -> None:
    """Writes between two requests are not seen, and are seen by the next read."""
    async with opened(tmp_path, rows=30_000) as (reader, writer):
        chunks = reader.iterate(ALL)
        found = await anext(chunks)
        writer.execute("UPDATE item SET name = 'changed'")
        async for rows in chunks:
            found += rows
        assert len(found) == 30_000
        assert not any(row["name"] == "changed" for row in found)
        assert reader.query_now("SELECT name FROM item WHERE id = 29999") == [("changed",)]


async def test_rows_are_read_only_when_they_are_asked_for(tmp_path: Path) -> None:
    """One list in hand and one ahead: memory does not grow with the result."""
    async with opened(tmp_path, rows=200_000) as (reader, _):
        chunks = reader.iterate(ALL)
        await anext(chunks)
        await until(lambda: reader.metrics().waiting_bytes > 0)
        for _ in range(200):
            await asyncio.sleep(0)
        assert reader.metrics().waiting_bytes < 200_000
        await chunks.aclose()


async def test_leaving_early_frees_the_thread(tmp_path: Path) -> None:
    """Closing the iterator, and cancelling the task that reads it."""
    async with opened(tmp_path, rows=30_000) as (reader, _):
        chunks = reader.iterate(ALL)
        await anext(chunks)
        assert reader.metrics().busy == 1
        await chunks.aclose()
        await until(lambda: reader.metrics().busy == 0 and reader.metrics().waiting_bytes == 0)

        async def read_all() -> list[int]:
            return [len(rows) async for rows in reader.iterate(ENDLESS)]

        task = asyncio.create_task(read_all())
        await until(lambda: reader.metrics().busy == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: reader.metrics().busy == 0)
        assert reader.metrics().iterations == 0


async def test_an_iteration_that_nobody_reads_gives_its_snapshot_up(tmp_path: Path) -> None:
    """The idle limit: what was read in time comes, then RequestTimeout."""
    async with opened(tmp_path, rows=30_000) as (reader, writer):
        chunks = reader.iterate(ALL, idle_s=0.05)
        await anext(chunks)
        await until(lambda: reader.metrics().busy == 0)
        with pytest.raises(RequestTimeout) as raised:
            async for _ in chunks:
                assert reader.metrics().busy == 0
        assert raised.value.outcome is None
        writer.execute("UPDATE item SET name = 'changed' WHERE id = 1")
        for _ in range(8):
            assert await reader.query("SELECT name FROM item WHERE id = 1") == [("changed",)]


async def test_who_takes_row_by_row_is_not_idle(tmp_path: Path) -> None:
    """However long one list lasts: each row that is taken counts."""
    async with opened(tmp_path, rows=30_000) as (reader, _):
        chunks = reader.iterate(ALL, idle_s=1.0)
        rows = await anext(chunks)
        end = time.monotonic() + 1.6
        while time.monotonic() < end:
            chunks.touch()
            await asyncio.sleep(0)
        assert reader.metrics().busy == 1
        async for more in chunks:
            rows += more
        assert len(rows) == 30_000


async def test_the_loop_goes_on_beside_an_iteration_that_never_waits(tmp_path: Path) -> None:
    """The thread is always ahead of a caller who works on each row: each list costs a turn all the same."""
    async with opened(tmp_path, rows=30_000) as (reader, _):
        lists = 0
        async with turns() as counted:
            async for rows in reader.iterate("SELECT zeroblob(5000) FROM item"):
                lists += 1
                end = time.perf_counter() + 0.0005 * len(rows) / 10
                while time.perf_counter() < end:
                    pass
        assert counted.count >= lists > 1000


def temporary_files() -> list[str]:
    """Those that this process has open and that have no name any more, as SQLite's own."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(descriptor.readlink()))
    return [name for name in found if name.endswith("(deleted)")]


async def test_what_is_sorted_goes_to_a_file(tmp_path: Path) -> None:
    """More than a cache holds would take memory without end."""
    async with opened(tmp_path, rows=200_000) as (reader, _):
        before = temporary_files()
        chunks = reader.iterate("SELECT id, name || hex(zeroblob(200)) AS long FROM item ORDER BY long DESC")
        rows = await anext(chunks)
        assert rows[0]["id"] == 99_999 and len(temporary_files()) > len(before)
        await chunks.aclose()
        await until(lambda: len(temporary_files()) == len(before))


async def test_damage_of_a_database_that_was_replaced_says_nothing_of_the_new_one(tmp_path: Path) -> None:
    """An iteration goes on on the file that it began with."""
    async with opened(tmp_path, rows=30_000) as (reader, _):
        old = reader._files
        assert old is not None
        assert type(reader._of(old, SnapshotCorruption("a page"))) is SnapshotCorruption
        chunks = reader.iterate(ALL)
        await anext(chunks)
        reader.reopen(tmp_path / "reader.db")
        error = reader._of(old, SnapshotCorruption("a page"))
        assert type(error) is StorageError and "a page" in str(error) and error.outcome is None
        await chunks.aclose()


async def test_an_iteration_ends_at_its_total_limit(tmp_path: Path) -> None:
    """Also when it is asked all the time, and when SQLite never comes to a row."""
    async with opened(tmp_path) as (reader, _):
        endless_rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
        with pytest.raises(RequestTimeout):
            async for _ in reader.iterate(endless_rows, total_s=0.1):
                pass
        with pytest.raises(RequestTimeout):
            async for _ in reader.iterate(ENDLESS, total_s=0.1):
                pass
        await until(lambda: reader.metrics().busy == 0)


async def test_iterations_leave_a_thread_for_queries(tmp_path: Path) -> None:
    """More open iterations than threads: queries go on, the others wait for their turn or their limit."""
    async with opened(tmp_path, rows=30_000, threads=2) as (reader, _):
        open_one = reader.iterate(ALL)
        await anext(open_one)
        waiting = reader.iterate(ALL, idle_s=0.05)
        with pytest.raises(RequestTimeout):
            await anext(waiting)
        patient = reader.iterate(ALL)
        begun = asyncio.ensure_future(anext(patient))
        assert await reader.query("SELECT count(*) FROM item") == [(30_000,)]
        assert not begun.done()
        await open_one.aclose()
        assert len(await begun) > 0
        await patient.aclose()


async def test_what_is_wrong_is_said_at_the_first_request(tmp_path: Path) -> None:
    """The same errors as in query."""
    async with opened(tmp_path) as (reader, _):
        for sql, params, kind in [
            ("DELETE FROM item", (), UsageError),
            ("SELECT ?", (), ParameterError),
            ("SELECT ?", "text", ParameterError),
        ]:
            with pytest.raises(kind):
                await anext(reader.iterate(sql, params))
        assert reader.metrics().iterations == 0


async def test_closing_ends_iterations(tmp_path: Path) -> None:
    """ShuttingDown, not an end that looks complete."""
    async with opened(tmp_path, rows=30_000) as (reader, _):
        chunks = reader.iterate(ALL)
        await anext(chunks)
        await reader.close()
        with pytest.raises(ShuttingDown):
            async for _ in chunks:
                pass
