"""The writer on a loop: order, wake-ups, where runs are applied, checkpoints, failures, the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest
from apply_harness import batch, execute, no_op, sealed, status_of, txn
from writer_driver import DEADLINE_S, Driver, eventually, opened

from hiqlite._accel.apply import CHECKPOINT_OVERDUE_PAGES, CHECKPOINT_PAGES, HASH_EVERY
from hiqlite.errors import DataFolderInUse, StorageError
from hiqlite.statemachine.connection import ConnectionSettings, open_reader, open_writer
from hiqlite.statemachine.cpus import cpus_of
from hiqlite.statemachine.writer import Writer, WriterSettings

MODES = ("auto", "always", "inline")


def count(path: Path, table: str = "t") -> int:
    reader = open_reader(path)
    try:
        return int(reader.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
    finally:
        reader.close()


INSERT = "INSERT INTO t(a) VALUES (?)"


@pytest.mark.parametrize("mode", MODES)
async def test_entries_come_back_in_order_with_their_answers(mode: str, tmp_path: Path) -> None:
    """Small and large submissions in every mode: runs are contiguous, each wanted answer is there."""
    async with opened(tmp_path / "a.db", WriterSettings(apply_thread=mode)) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        for size in (1, 2, 900, 1, 5000, 3, 1):
            driver.submit(*[execute(INSERT, [i]) for i in range(size)])
            await asyncio.sleep(0)
        await driver.applied()
        expected = 1
        for run in driver.runs:
            assert run.first == expected and len(run) == run.last - run.first + 1
            assert all(status_of(run.answer(index)) == 0 for index in range(run.first, run.last + 1))
            expected = run.last + 1
        assert driver.writer.applied_index == driver.next - 1
        assert driver.writer.metrics()["apply_entries"] == driver.next - 1
        assert max(len(run) for run in driver.runs) <= 4096  # one transaction never grows without limit
        assert driver.writer.queued_bytes == 0
    assert count(tmp_path / "a.db") == 900 + 5000 + 8


async def test_answers_that_nobody_waits_for_are_not_kept(tmp_path: Path) -> None:
    """Without a wish for answers the run comes back without them; asking says so."""
    async with opened(tmp_path / "a.db") as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"), answers=False)
        await driver.applied()
        with pytest.raises(LookupError):
            driver.runs[0].answer(1)
        with pytest.raises(LookupError):
            driver.runs[0].answer(2)


async def test_runs_wait_for_whoever_registers_late(tmp_path: Path) -> None:
    """Runs that ended before anybody asked are taken later; nothing spins meanwhile."""
    writer = Writer.open(tmp_path / "a.db", WriterSettings(apply_thread="always"))
    writer.submit(1, 1, 1, [sealed([execute("CREATE TABLE t(a)")])], True)

    async def wait() -> None:
        while writer.applied_index < 1:
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), DEADLINE_S)
    driver = Driver(writer)
    await driver.until(lambda: bool(driver.runs))
    await writer.close()
    await writer.close()
    assert writer.applied_index == 1 and writer.applied_term == 1 and writer.take() == []


async def test_close_applies_what_is_queued(tmp_path: Path) -> None:
    """A graceful end leaves data that needs no replay."""
    async with opened(tmp_path / "a.db", WriterSettings(apply_thread="always")) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        for _ in range(20):
            driver.submit(*[execute(INSERT, [i]) for i in range(500)], answers=False)
    assert count(tmp_path / "a.db") == 10_000
    async with opened(tmp_path / "a.db") as driver:
        assert driver.writer.applied_index == 10_001


@pytest.mark.parametrize("mode", ("always", "auto"))
async def test_checkpoints_never_pass_what_the_log_has_synced(mode: str, tmp_path: Path) -> None:
    """No checkpoint until the synced index is told and has caught up; then the database file grows and the end empties
    SQLite's log."""
    path = tmp_path / "a.db"
    async with opened(path, WriterSettings(apply_thread=mode)) as driver:
        writer = driver.writer
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        while writer.metrics()["apply_wal_pages"] < CHECKPOINT_PAGES:
            driver.submit(*[execute(INSERT, [b"x" * 3000]) for _ in range(50)], answers=False)
            await driver.applied()
        assert writer.metrics()["apply_checkpoints"] == 0
        writer.set_synced_index(writer.applied_index - 1)
        driver.submit(no_op())
        await driver.applied()
        assert writer.metrics()["apply_checkpoints"] == 0
        assert path.stat().st_size < 1 << 20
        writer.set_synced_index(writer.applied_index)
        await eventually(lambda: writer.metrics()["apply_checkpoints"] > 0)
    assert path.stat().st_size > 4 << 20
    assert not (tmp_path / "a.db-wal").exists() or (tmp_path / "a.db-wal").stat().st_size == 0


async def test_a_log_that_syncs_late_cannot_make_sqlites_log_grow_for_ever(tmp_path: Path) -> None:
    """Once a checkpoint is overdue, runs end at the synced index, and go on when it moves."""
    async with opened(tmp_path / "a.db", WriterSettings(apply_thread="always")) as driver:
        writer = driver.writer
        writer.set_synced_index(1)
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        for _ in range(CHECKPOINT_OVERDUE_PAGES // 50):
            driver.submit(*[execute(INSERT, [b"x" * 3500]) for _ in range(60)], answers=False)
        await driver.until(lambda: writer.metrics()["apply_wal_pages"] >= CHECKPOINT_OVERDUE_PAGES)
        assert writer.applied_index < driver.next - 1
        writer.set_synced_index(driver.next - 1)
        await driver.applied()
        await eventually(lambda: writer.metrics()["apply_checkpoints"] >= 1)


async def test_a_locked_database_stops_applying_and_resume_goes_on(tmp_path: Path) -> None:
    """BUSY is never a result: the run is rolled back, the failure is said once, nothing is lost after `resume`."""
    path = tmp_path / "a.db"
    settings = WriterSettings(connection=ConnectionSettings(busy_timeout_ms=1), apply_thread="always")
    async with opened(path, settings) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"), execute(INSERT, [1]))
        await driver.applied()
        other = open_writer(path)
        lock = apsw.Connection(str(path), vfs="hiqlite")
        lock.execute("BEGIN IMMEDIATE")
        driver.submit(execute(INSERT, [2]), execute(INSERT, [3]))
        await driver.until(lambda: driver.writer.failure is not None)
        failure = driver.writer.failure
        assert isinstance(failure, StorageError) and "SQLITE_BUSY" in failure.message
        driver.submit(execute(INSERT, [4]))
        assert driver.writer.applied_index == 2
        lock.execute("ROLLBACK")
        lock.close()
        other.close()
        driver.writer.resume()
        await driver.applied()
        assert driver.writer.failure is None
    assert count(path) == 4


async def test_entries_must_follow_one_another(tmp_path: Path) -> None:
    """A gap or a repetition is a mistake of the caller and is refused at once; wrong bytes stop the applier."""
    async with opened(tmp_path / "a.db", WriterSettings(apply_thread="always")) as driver:
        writer = driver.writer
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        for first, last in ((1, 1), (3, 3), (2, 1)):
            with pytest.raises(ValueError, match="cannot follow"):
                writer.submit(first, last, 1, [sealed([no_op()], first)], True)
        await driver.applied()
        writer.submit(2, 2, 1, [sealed([no_op()], 7)], True)
        await driver.until(lambda: writer.failure is not None)
        assert "entry 2" in str(writer.failure)
        assert writer.applied_index == 1


async def test_two_writers_of_one_file_in_two_processes_is_the_file_layers_matter_here_opening_fails_cleanly(
    tmp_path: Path,
) -> None:
    """What is no database is refused with one clear error, and leaves nothing open."""
    path = tmp_path / "a.db"
    path.write_bytes(b"this is not a database" * 1000)
    with pytest.raises((StorageError, DataFolderInUse)):
        Writer.open(path)
    with pytest.raises(ValueError, match="apply_thread"):
        Writer.open(tmp_path / "b.db", WriterSettings(apply_thread="sometimes"))


async def test_the_running_hash_is_remembered_at_multiples(tmp_path: Path) -> None:
    """Two machines that cut runs differently agree on it, and it speaks of applied entries only."""
    hashes = []
    for name, size in (("a", 700), ("b", 33)):
        async with opened(tmp_path / f"{name}.db") as driver:
            driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
            while driver.next <= 2 * HASH_EVERY + 10:
                driver.submit(*[execute(INSERT, [driver.next + i]) for i in range(size)])
                await driver.applied()
            hashes.append([driver.writer.hash_at(HASH_EVERY), driver.writer.hash_at(2 * HASH_EVERY)])
            assert driver.writer.hash_at(HASH_EVERY + 1) is None
            assert driver.writer.hash_at(100 * HASH_EVERY) is None
    assert hashes[0] == hashes[1] and None not in hashes[0]


async def test_reads_on_other_connections_go_on_during_a_long_run(tmp_path: Path) -> None:
    """The loop is free and readers see the last commit while the thread applies a giant txn."""
    path = tmp_path / "a.db"
    async with opened(path) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"))
        await driver.applied()
        reader = open_reader(path)
        driver.submit(txn(*[(INSERT, [i]) for i in range(25_000)]))
        seen = {int(reader.execute("SELECT count(*) FROM t").fetchall()[0][0])}
        while driver.writer.applied_index < 2:
            seen.add(int(reader.execute("SELECT count(*) FROM t").fetchall()[0][0]))
            await asyncio.sleep(0)
        reader.close()
        await driver.applied()
        assert seen <= {0, 25_000}
    assert count(path) == 25_000


def test_affinity_is_read_as_configured() -> None:
    """auto, none or numbers; anything else is a mistake."""
    assert cpus_of("none") == []
    assert cpus_of((0, 1)) == [0, 1]
    assert len(cpus_of("auto")) <= 1
    with pytest.raises(ValueError, match="cpu_affinity"):
        cpus_of("some")


async def test_the_bookkeeping_stays_small(tmp_path: Path) -> None:
    """One row per run, old ones go; a batch of nothing but no-ops still moves the index."""
    path = tmp_path / "a.db"
    async with opened(path, WriterSettings(apply_thread="inline")) as driver:
        driver.submit(batch("CREATE TABLE t(a)"))
        for _ in range(1200):
            driver.submit(no_op())
        await driver.applied()
    connection = apsw.Connection(str(path), vfs="hiqlite")
    rows = connection.execute("SELECT count(*), max(last_index) FROM _hiqlite_run").fetchall()
    connection.close()
    assert rows[0][0] <= 512 and rows[0][1] == 1201
