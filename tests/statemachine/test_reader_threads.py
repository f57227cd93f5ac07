"""Reads on reader threads: limits, cancelling, queues, and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvloop
from reader_files import ENDLESS, LONG, opened, until, written

from hiqlite._accel import readpool, reads
from hiqlite._accel.readpool import ENDED, ReaderPool
from hiqlite.errors import Overloaded, RequestTimeout, RowMappingError, ShuttingDown, StatementError
from hiqlite.statemachine.connection import open_reader
from hiqlite.statemachine.reader import Reader
from tests.turns import turns


async def test_a_big_result_arrives_whole_and_in_order(tmp_path: Path) -> None:
    """Many chunks, decoded in slices, are one list."""
    async with opened(tmp_path, rows=60_000) as (reader, _):
        rows = await reader.query("SELECT id, name, price FROM item ORDER BY id")
        assert len(rows) == 60_000
        assert rows[0] == (0, "name 0", 0.0)
        assert all(row[0] == number for number, row in enumerate(rows))
        assert reader.metrics().waiting_bytes == 0


async def test_rows_larger_than_a_chunk_arrive(tmp_path: Path) -> None:
    """A row is never cut, however large."""
    async with opened(tmp_path, rows=10) as (reader, _):
        rows = await reader.query("SELECT id, zeroblob(id * 400000) FROM item ORDER BY id")
        assert [len(row[1]) for row in rows] == [number * 400_000 for number in range(10)]


async def test_the_loop_turns_while_sqlite_works_and_while_rows_are_decoded(tmp_path: Path) -> None:
    """Other tasks get many turns during one long read."""
    async with opened(tmp_path, rows=60_000) as (reader, _):
        async with turns() as counted:
            rows = await reader.query("SELECT * FROM item")
        assert len(rows) == 60_000
        assert counted.count > 20


async def test_a_deadline_interrupts_an_endless_read(tmp_path: Path) -> None:
    """RequestTimeout without outcome, and the thread is free again."""
    async with opened(tmp_path) as (reader, _):
        with pytest.raises(RequestTimeout) as raised:
            await reader.query(ENDLESS, timeout=0.05)
        assert raised.value.outcome is None
        await until(lambda: reader.metrics().busy == 0)
        assert await reader.query("SELECT 1", timeout=10.0) == [(1,)]


async def test_a_deadline_of_zero_has_passed(tmp_path: Path) -> None:
    """It does not mean: no limit."""
    async with opened(tmp_path) as (reader, _):
        with pytest.raises(RequestTimeout):
            await reader.query(ENDLESS, timeout=0)


async def test_cancelling_the_await_interrupts_sqlite(tmp_path: Path) -> None:
    """The await ends at once; the thread soon; what it made is freed."""
    async with opened(tmp_path) as (reader, _):
        tasks = [asyncio.create_task(reader.query(sql)) for sql in (ENDLESS, ENDLESS, "SELECT zeroblob(1000000)")]
        await until(lambda: reader.metrics().busy >= 2)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in ended[:2])
        await until(lambda: reader.metrics().busy == 0 and reader.metrics().waiting_bytes == 0)
        assert reader.metrics().cancelled >= 2
        assert await reader.query("SELECT 1") == [(1,)]


async def test_cancelling_at_every_turn_leaks_nothing(tmp_path: Path) -> None:
    """The await is cancelled after 0, 1, 2 ... turns of the loop; the pool is whole afterwards."""
    async with opened(tmp_path, rows=20_000) as (reader, _):
        for turns in range(40):
            task = asyncio.create_task(reader.query("SELECT * FROM item"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await until(lambda: reader.metrics().busy == 0 and reader.metrics().queued == 0)
        assert reader.metrics().waiting_bytes == 0
        assert len(await reader.query("SELECT * FROM item")) == 20_000


async def test_a_queued_read_can_be_cancelled_and_can_expire(tmp_path: Path) -> None:
    """It leaves the queue at once, though no thread has seen it."""
    async with opened(tmp_path, threads=2) as (reader, _):
        busy = [asyncio.create_task(reader.query(ENDLESS)) for _ in range(2)]
        await until(lambda: reader.metrics().busy == 2)
        waiting = asyncio.create_task(reader.query("SELECT 1"))
        await until(lambda: reader.metrics().queued == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert reader.metrics().queued == 0
        with pytest.raises(RequestTimeout):
            await reader.query("SELECT 1", timeout=0.05)
        assert reader.metrics().queued == 0
        assert reader.metrics().queued_bytes == 0
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def test_a_full_queue_is_overloaded_at_once(tmp_path: Path) -> None:
    """Bounded in number and in bytes."""
    async with opened(tmp_path, threads=2, queue_max=3, queue_bytes_max=10_000) as (reader, _):
        busy = [asyncio.create_task(reader.query(ENDLESS)) for _ in range(2)]
        await until(lambda: reader.metrics().busy == 2)
        with pytest.raises(Overloaded) as raised:
            await reader.query("SELECT ?", ("x" * 20_000,))
        assert raised.value.outcome is None
        busy += [asyncio.create_task(reader.query("SELECT 1")) for _ in range(3)]
        await until(lambda: reader.metrics().queued == 3)
        with pytest.raises(Overloaded):
            await reader.query("SELECT 1")
        assert reader.metrics().overloads == 2
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def test_a_result_past_its_limit_is_refused(tmp_path: Path) -> None:
    """StatementError TOOBIG that names query_iter; memory is given back."""
    async with opened(tmp_path, rows=20_000, result_bytes_max=300_000) as (reader, _):
        with pytest.raises(StatementError, match="query_iter") as raised:
            await reader.query("SELECT * FROM item")
        assert raised.value.sqlite_code == 18
        assert reader.metrics().waiting_bytes == 0


async def test_results_that_nobody_fetches_are_bounded_together(tmp_path: Path) -> None:
    """Rows that are made and not taken count for all reads together; what is taken is free again."""
    with written(tmp_path / "pool.db") as _:
        connection = open_reader(tmp_path / "pool.db")
        for module in (reads, readpool):
            connection.enable_load_extension(True)
            connection.load_extension(module.__file__, "sqlite3_reads_init")
        pool = ReaderPool(waiting_bytes_max=400_000)
        pool.add_thread(connection, connection.sqlite3_pointer())
        crowded = pool.submit("SELECT randomblob(350000) FROM item LIMIT 3", ())
        await until(lambda: pool.counts()["failed"] == 1)
        assert pool.counts()["waiting_bytes"] > 300_000
        with pytest.raises(Overloaded):
            assert crowded.take([], 1_000_000_000) == ENDED
        assert pool.counts()["waiting_bytes"] == 0
        pool.close()
        assert pool.join(10.0) == 0
        assert pool.take_connections() == [connection]
        connection.close()


async def test_an_error_in_the_middle_discards_the_rows_before_it(tmp_path: Path) -> None:
    """Neither half a result nor a connection in the middle of one."""
    async with opened(tmp_path, rows=50_000) as (reader, _):
        failing = "SELECT id, CASE WHEN id = 49000 THEN abs(-9223372036854775807 - 1) ELSE name END FROM item"
        with pytest.raises(StatementError, match="integer overflow"):
            await reader.query(failing)
        bad_text = "SELECT CASE WHEN id = 49000 THEN CAST(x'ff' AS TEXT) ELSE name END AS odd FROM item"
        with pytest.raises(RowMappingError, match="odd"):
            await reader.query(bad_text)
        await until(lambda: reader.metrics().busy == 0 and reader.metrics().waiting_bytes == 0)


async def test_reads_run_beside_each_other(tmp_path: Path) -> None:
    """A short thread read does not wait for a long one."""
    async with opened(tmp_path, rows=300) as (reader, _):
        endless = asyncio.create_task(reader.query(ENDLESS))
        await until(lambda: reader.metrics().busy == 1)
        answers = await asyncio.gather(*[reader.query("SELECT ? + count(*) FROM item", (n,)) for n in range(50)])
        assert [rows[0][0] for rows in answers] == [300 + n for n in range(50)]
        assert await reader.query(LONG, ("none",)) == [(0,)]
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)


async def test_closing_ends_all_reads(tmp_path: Path) -> None:
    """Running, queued and iterating reads end with ShuttingDown; the threads end."""
    async with opened(tmp_path, threads=2) as (reader, _):
        tasks = [asyncio.create_task(reader.query(ENDLESS)) for _ in range(4)]
        await until(lambda: reader.metrics().busy == 2 and reader.metrics().queued == 2)
        await reader.close()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in ended] == [ShuttingDown] * 4


async def test_a_job_that_is_forgotten_is_stopped(tmp_path: Path) -> None:
    """A coroutine that is thrown away frees its thread."""
    async with opened(tmp_path) as (reader, _):
        coroutine = reader.query(ENDLESS)
        coroutine.send(None)
        await until(lambda: reader.metrics().busy == 1)
        coroutine.close()
        del coroutine
        gc.collect()
        await until(lambda: reader.metrics().busy == 0)


async def test_interrupting_reaches_what_runs_inside_one_opcode(tmp_path: Path) -> None:
    """count(*) of a table is one opcode without a callback; cancelling it does not wait for its end."""
    async with opened(tmp_path, rows=400_000) as (reader, _):
        began = time.monotonic()
        for number in range(1, 21):
            task = asyncio.create_task(reader.query("SELECT count(*) FROM item"))
            await until(lambda wanted=number: reader.metrics().jobs >= wanted)  # type: ignore[misc]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await until(lambda: reader.metrics().busy == 0)
        assert time.monotonic() - began < 30


async def test_reopening_moves_new_reads_and_lets_old_ones_end(tmp_path: Path) -> None:
    """A new generation of the database: the switch loses no read, and frees the old file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with opened(tmp_path / "a", rows=100) as (reader, _), opened(tmp_path / "b", rows=7) as (_other, _):
        under_way = asyncio.create_task(reader.query(ENDLESS, timeout=0.5))
        await until(lambda: reader.metrics().busy == 1)
        chunks = reader.iterate("SELECT id FROM item")
        first = await anext(chunks)
        reader.reopen(tmp_path / "b" / "reader.db")
        assert reader.query_now("SELECT max(id) FROM item") == [(6,)]
        assert await reader.query("SELECT count(*) FROM item") == [(7,)]
        with pytest.raises(RequestTimeout):
            await under_way
        assert len(first) + sum([len(rows) async for rows in chunks]) == 100
        await until(lambda: not retired(reader))


LEFT_OPEN = """
import asyncio, sys
from reader_files import ENDLESS, ReaderSettings, Reader, until

async def main() -> None:
    reader = Reader.open(sys.argv[1], ReaderSettings(), asyncio.get_running_loop())
    reads = [asyncio.create_task(reader.query(ENDLESS)) for _ in range(3)]
    chunks = reader.iterate("SELECT * FROM item")
    await anext(chunks)
    await until(lambda: reader.metrics().busy >= 3)
    print("reading", len(reads), flush=True)
    if sys.argv[2] == "raise":
        raise KeyError("on purpose")
    if sys.argv[2] == "keep":
        globals()["kept"] = (reader, chunks)

asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["return", "raise", "keep"])
def test_a_process_that_forgets_to_close_still_exits(way: str, tmp_path: Path) -> None:
    """Neither a hang nor a crash, while threads are in the middle of endless reads."""
    with written(tmp_path / "left.db"):
        pass
    paths = [str(Path(__file__).parent), *sys.path]
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, str(tmp_path / "left.db"), way],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout == "reading 3\n", ended.stderr
    assert ended.returncode == (1 if way == "raise" else 0), ended.stderr


def test_uvloop_serves_as_well(tmp_path: Path) -> None:
    """Any asyncio loop: nothing but add_reader and timers is asked of it."""

    async def read() -> None:
        async with opened(tmp_path, rows=20_000) as (reader, _):
            assert len(await reader.query("SELECT * FROM item")) == 20_000
            assert sum([len(rows) async for rows in reader.iterate("SELECT * FROM item")]) == 20_000
            with pytest.raises(RequestTimeout):
                await reader.query(ENDLESS, timeout=0.05)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(read())


def retired(reader: Reader) -> int:
    return len(reader._retired)
