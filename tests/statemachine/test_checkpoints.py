"""Checkpoints beside running writes, and SQLite's log as it is written: what may reach the database file, and when."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest
from apply_harness import batch, execute, status_of, txn
from writer_driver import DEADLINE_S, Driver, eventually, opened

from hiqlite._accel.apply import CHECKPOINT_OVERDUE_PAGES, CHECKPOINT_PAGES
from hiqlite.statemachine.connection import ConnectionSettings, open_reader, open_writer
from hiqlite.statemachine.writer import Writer, WriterSettings

INSERT = "INSERT INTO t(a) VALUES (?)"
ROW = b"x" * 3500  # one page each
ROWS_IN_RUN = (1 << 20) // 3500  # a run ends after a megabyte of records


def checkpoints(writer: Writer) -> int:
    return writer.metrics()["apply_checkpoints"]


async def fill(driver: Driver, pages: int) -> None:
    """Until SQLite's log holds `pages`."""
    while driver.writer.metrics()["apply_wal_pages"] < pages:
        driver.submit(*[execute(INSERT, [ROW]) for _ in range(50)], answers=False)
        await driver.applied()


async def test_checkpoints_are_made_while_writes_go_on(tmp_path: Path) -> None:
    """Nobody stops writing for them, and what the database file and SQLite's log say together stays whole."""
    path = tmp_path / "a.db"
    async with opened(path, WriterSettings(apply_thread="always")) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        for _ in range(5):
            await fill(driver, CHECKPOINT_PAGES)
            before = checkpoints(driver.writer)
            driver.writer.set_synced_index(driver.writer.applied_index)
            for _ in range(40):
                driver.submit(*[execute(INSERT, [ROW]) for _ in range(20)], answers=False)
            await driver.applied()
            # One that began before `before` was read may have moved all that was due by then: the next one needs more.
            async with asyncio.timeout(DEADLINE_S):
                while checkpoints(driver.writer) == before:
                    driver.submit(*[execute(INSERT, [ROW]) for _ in range(20)], answers=False)
                    await driver.applied()
                    driver.writer.set_synced_index(driver.writer.applied_index)
        rows = driver.next - 2
        reader = open_reader(path)
        assert reader.execute("SELECT count(*), sum(length(a)) FROM t").fetchall() == [(rows, rows * len(ROW))]
        assert reader.pragma("integrity_check") == "ok"
        reader.close()


async def test_sqlites_log_starts_anew_although_writes_never_pause(tmp_path: Path) -> None:
    """The last pages are moved while nothing is written; where copying is slower than writing, writes wait for it: the
    log's file has a bound however fast they come."""
    path = tmp_path / "a.db"
    async with opened(path, WriterSettings(apply_thread="always")) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        written = 0
        while written < 3 * CHECKPOINT_OVERDUE_PAGES:
            driver.submit(*[execute(INSERT, [ROW]) for _ in range(50)], answers=False)
            await driver.applied()
            driver.writer.set_synced_index(driver.writer.applied_index)
            written += 50
        await eventually(lambda: checkpoints(driver.writer) >= 2)
        size_pages = path.with_name("a.db-wal").stat().st_size // 4096
        assert size_pages < CHECKPOINT_OVERDUE_PAGES + 2 * ROWS_IN_RUN


async def test_an_old_reader_delays_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    """It goes on seeing its snapshot, writes go on, and once it is gone the pages are moved."""
    path = tmp_path / "a.db"
    async with opened(path, WriterSettings(apply_thread="always")) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"), execute(INSERT, [b"first"]))
        await driver.applied()
        reader = open_reader(path)
        cursor = reader.execute("SELECT count(*) FROM t, (SELECT 1 UNION ALL SELECT 2)")
        assert next(cursor) == (2,)
        rows = reader.execute("SELECT id FROM t")
        assert next(rows) == (1,)
        await fill(driver, 2 * CHECKPOINT_PAGES)
        driver.writer.set_synced_index(driver.writer.applied_index)
        await eventually(lambda: checkpoints(driver.writer) > 0)
        assert list(rows) == []  # its snapshot has one row
        reader.close()
        await fill(driver, 3 * CHECKPOINT_PAGES)
        driver.writer.set_synced_index(driver.writer.applied_index)
        await eventually(lambda: path.stat().st_size > CHECKPOINT_PAGES * 4096)


@pytest.mark.parametrize("shared", (False, True))
async def test_every_commit_is_seen_at_once_by_other_connections(shared: bool, tmp_path: Path) -> None:
    """Commits of one page and of thousands, gathered or in pieces: a reader never misses one or meets half of one."""
    path = tmp_path / "a.db"
    settings = WriterSettings(connection=ConnectionSettings(shared_access=shared, cache_kib=256), apply_thread="inline")
    async with opened(path, settings) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        reader = open_reader(path, settings.connection)
        expected = 0
        for size in (1, 2, 30, 31, 32, 33, 64, 1, 700, 1, 100):  # 700 pages do not fit into the writer's cache
            driver.submit(txn(*[(INSERT, [ROW])] * size))
            await driver.applied()
            expected += size
            found = reader.execute("SELECT count(*), sum(length(a)) FROM t").fetchall()
            assert found == [(expected, expected * len(ROW))]
        assert reader.pragma("integrity_check") == "ok"
        reader.close()


async def test_pages_that_were_spilled_and_rolled_back_leave_no_trace(tmp_path: Path) -> None:
    """A transaction larger than the cache writes to SQLite's log before it fails; what follows takes its place."""
    path = tmp_path / "a.db"
    settings = WriterSettings(connection=ConnectionSettings(cache_kib=256), apply_thread="inline")
    async with opened(path, settings) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"), execute(INSERT, [b"kept"]))
        for _ in range(3):
            driver.submit(txn(*[(INSERT, [ROW])] * 600, ("INSERT INTO t(id) VALUES (1)", ())))
            driver.submit(batch("UPDATE t SET a = 'again'; INSERT INTO t(id) VALUES (1)"), execute(INSERT, [ROW]))
        await driver.applied()
        failed = driver.runs[-1]
        assert status_of(failed.answer(failed.last)) == 0
        reader = open_reader(path, settings.connection)
        assert reader.execute("SELECT count(*) FROM t").fetchall() == [(4,)]
        assert reader.pragma("integrity_check") == "ok"
        reader.close()


def test_the_log_of_a_killed_process_is_read_by_plain_sqlite(tmp_path: Path) -> None:
    """Nothing about the bytes on disk is special: copied while open, as after kill -9, SQLite recovers every commit."""
    path, copied = tmp_path / "a.db", tmp_path / "b.db"
    writer = open_writer(path)
    try:
        writer.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
        for number in range(200):
            writer.execute("INSERT INTO t(a) VALUES (?)", (bytes(number),))
        shutil.copy(path, copied)
        shutil.copy(f"{path}-wal", f"{copied}-wal")
    finally:
        writer.close()
    plain = apsw.Connection(str(copied))
    assert plain.execute("SELECT count(*), sum(length(a)) FROM t").fetchall() == [(200, sum(range(200)))]
    assert plain.pragma("integrity_check") == "ok"
    plain.close()
