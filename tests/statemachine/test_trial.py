"""Writes that are tried on the writer's thread and undone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from apply_harness import batch, execute, execute_many, migration, txn
from writer_driver import Driver, opened

from hiqlite._accel.apply import Trial
from hiqlite._accel.commands import encode_command
from hiqlite._accel.records import stamp
from hiqlite.errors import DiskFull, Overloaded, ShuttingDown, StatementTimeout
from hiqlite.statemachine.connection import open_reader
from hiqlite.statemachine.equality import content_hash
from hiqlite.statemachine.session_record import session_record
from hiqlite.statemachine.trial import refusal_of

SHORT_NS = 100_000_000
LONG_NS = 20_000_000_000
RECURSIVE = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
ENDLESS = {
    "insert": execute(f"INSERT INTO t {RECURSIVE} SELECT x FROM c"),
    "update": execute(f"UPDATE t SET x = (SELECT max(x) FROM ({RECURSIVE} SELECT x FROM c))"),
    "delete": execute(f"DELETE FROM t WHERE x IN ({RECURSIVE} SELECT x FROM c)"),
    "returning": execute(f"INSERT INTO t {RECURSIVE} SELECT x FROM c RETURNING x", rows=True),
    "many": execute_many(f"INSERT INTO t {RECURSIVE} SELECT x + ? FROM c", [[1], [2]]),
    "txn": txn("INSERT INTO t VALUES (1)", f"SELECT max(x) FROM ({RECURSIVE} SELECT x FROM c)"),
    "batch": batch(f"INSERT INTO t VALUES (1); INSERT INTO t {RECURSIVE} SELECT x FROM c; INSERT INTO t VALUES (2)"),
    "migration": migration(1, f"CREATE TABLE m (x); INSERT INTO m {RECURSIVE} SELECT x FROM c"),
    "without foreign keys": migration(1, f"INSERT INTO t {RECURSIVE} SELECT x FROM c", foreign_keys_off=True),
    "create": execute(f"CREATE TABLE made AS {RECURSIVE} SELECT x FROM c"),
    "trigger": txn(
        f"CREATE TRIGGER endless AFTER INSERT ON t BEGIN DELETE FROM t WHERE x IN ({RECURSIVE} SELECT x FROM c); END",
        "INSERT INTO t VALUES (1)",
    ),
    "rollback again": batch("INSERT OR ROLLBACK INTO u VALUES (1);" + f"INSERT INTO t {RECURSIVE} SELECT x FROM c"),
}


async def tried(driver: Driver, *records: bytes, limit_ns: int = LONG_NS) -> Trial:
    stamped = [stamp(record, 10**18, number) for number, record in enumerate(records, 1)]
    return await driver.writer.try_out(stamped, [limit_ns] * len(records))


async def prepared(driver: Driver) -> str:
    """A database with a few rows; its content."""
    driver.submit(
        execute("CREATE TABLE t (x)"), execute("CREATE TABLE u (x UNIQUE)"), execute("INSERT INTO u VALUES (1)"),
        execute("INSERT INTO t VALUES (1), (2), (3)"),
        execute("CREATE TABLE keyed (id INTEGER PRIMARY KEY AUTOINCREMENT, p REFERENCES u (x))"),
    )  # fmt: skip
    await driver.applied()
    return content(driver)


def content(driver: Driver) -> str:
    reader = open_reader(driver.writer._path)
    try:
        return content_hash(reader)
    finally:
        reader.close()


@pytest.mark.parametrize("record", ENDLESS.values(), ids=ENDLESS.keys())
async def test_a_write_without_an_end_is_found_out_and_leaves_nothing(tmp_path: Path, record: bytes) -> None:
    """The thread then applies what is committed, and answers as if nothing had been."""
    async with opened(tmp_path / "a.db") as driver:
        before = await prepared(driver)
        position = driver.writer.applied_index, driver.writer.equality_hash
        alone = [] if record == ENDLESS["without foreign keys"] else [execute("INSERT INTO t VALUES (0)")]
        trial = await tried(driver, *alone, record, record, limit_ns=SHORT_NS)
        assert trial.late and len(trial.spent_ns) == len(alone) and not trial.changes_schema
        error = refusal_of(trial, SHORT_NS)
        assert isinstance(error, StatementTimeout) and error.outcome == "not_applied" and "0.1 s" in error.message
        assert (driver.writer.applied_index, driver.writer.equality_hash) == position
        assert content(driver) == before
        driver.submit(execute("INSERT INTO t VALUES (4)"), execute("INSERT INTO keyed (p) VALUES (77)"))
        await driver.applied()
        assert driver.writer.failure is None and len(driver.runs[-1]) > 0


async def test_what_ends_says_how_long_it_took_and_whether_it_changes_the_schema(tmp_path: Path) -> None:
    """Errors of the statement are no reason to refuse: what it gives is found out when it is applied."""
    records = {
        execute("INSERT INTO t VALUES (5)"): False,
        execute("INSERT INTO u VALUES (1)"): False,
        execute("INSERT OR ROLLBACK INTO u VALUES (1)"): False,
        execute("INSERT INTO missing VALUES (1)"): False,
        txn("INSERT INTO t VALUES (6)", "INSERT INTO u VALUES (1)"): False,
        batch("INSERT OR ROLLBACK INTO u VALUES (1); INSERT OR ROLLBACK INTO u VALUES (1); DELETE FROM t"): False,
        execute("CREATE TABLE another (x)"): True,
        batch("CREATE TABLE another (x); INSERT INTO another VALUES (1)"): True,
        migration(1, "CREATE TABLE another (x); DROP TABLE t"): True,
        migration(1, "DELETE FROM u", foreign_keys_off=True): False,
    }
    async with opened(tmp_path / "a.db") as driver:
        before = await prepared(driver)
        for record, changes_schema in records.items():
            trial = await tried(driver, record)
            assert trial.changes_schema is changes_schema and 0 < trial.spent_ns[0] < LONG_NS
            assert trial.failure is None and not trial.late and not trial.given_up
        assert content(driver) == before


async def test_an_exhausted_autoincrement_is_no_full_disk(tmp_path: Path) -> None:
    """SQLite says FULL to both; it is an answer, and the trial lets it pass."""
    async with opened(tmp_path / "a.db") as driver:
        await prepared(driver)
        driver.submit(execute("INSERT INTO keyed VALUES (9223372036854775806, NULL)"))
        driver.submit(execute("UPDATE sqlite_sequence SET seq = 9223372036854775807"))
        await driver.applied()
        trial = await tried(driver, execute("INSERT INTO keyed (p) VALUES (NULL)"))
        assert trial.failure is None and len(trial.spent_ns) == 1


async def test_a_write_may_not_use_up_disk_or_memory(tmp_path: Path) -> None:
    """Both end it long before its time; SQLite's log keeps no size that only a trial had."""
    blobs = "WITH RECURSIVE c (x, b) AS (SELECT 1, zeroblob(1000000) UNION SELECT x + 1, zeroblob(1000000) FROM c)"
    async with opened(tmp_path / "a.db") as driver:
        before = await prepared(driver)
        trials = driver.writer._trials
        trials.memory_bytes_max = 32 << 20
        trial = await tried(driver, execute(f"INSERT INTO t {blobs} SELECT x FROM c"))
        assert trial.out_of_memory and isinstance(refusal_of(trial, LONG_NS), Overloaded)
        trials.memory_bytes_max, trials.disk_bytes_max = 1 << 40, lambda: 16 << 20
        trial = await tried(driver, execute("DELETE FROM t"), ENDLESS["insert"], execute("DELETE FROM t"))
        assert trial.out_of_disk and len(trial.spent_ns) == 1
        error = refusal_of(trial, LONG_NS)
        assert isinstance(error, DiskFull) and error.outcome == "not_applied"
        assert content(driver) == before
        assert (tmp_path / "a.db-wal").stat().st_size < 256 << 20


async def test_one_long_step_is_too_long_though_nothing_looks_meanwhile(tmp_path: Path) -> None:
    """A table that is emptied is one step of SQLite's program."""
    async with opened(tmp_path / "a.db") as driver:
        await prepared(driver)
        trial = await tried(driver, execute("DELETE FROM t"), limit_ns=1)
        assert trial.late and trial.spent_ns == []
        assert (await tried(driver, execute("DELETE FROM t"))).failure is None


async def test_each_write_is_tried_on_what_those_before_it_leave(tmp_path: Path) -> None:
    """Until one changes the schema, or they have taken as long as a run may; a migration that switches foreign keys off
    stands alone."""
    slow = execute(f"INSERT INTO t {RECURSIVE[:-1]} WHERE x < 3000000) SELECT x FROM c")
    off = migration(1, "DELETE FROM u", foreign_keys_off=True)
    async with opened(tmp_path / "a.db") as driver:
        before = await prepared(driver)
        doubled = [execute("INSERT INTO t SELECT x FROM t") for _ in range(12)]
        many = "(SELECT count(*) FROM t) > 3 << 11"
        endless_then = execute(f"INSERT INTO t {RECURSIVE[:-1]} WHERE {many}) SELECT x FROM c")
        assert len((await tried(driver, endless_then)).spent_ns) == 1
        records = [stamp(record, 10**18, number) for number, record in enumerate([*doubled, endless_then], 1)]
        trial = await driver.writer.try_out(records, [LONG_NS] * 12 + [SHORT_NS])
        assert trial.late and len(trial.spent_ns) == 12
        made = await tried(driver, doubled[0], execute("CREATE TABLE n (x)"), execute("INSERT INTO n VALUES (1)"))
        assert len(made.spent_ns) == 2 and made.changes_schema
        assert len((await tried(driver, slow, slow, slow)).spent_ns) == 1
        assert len((await tried(driver, doubled[0], off, doubled[0])).spent_ns) == 1
        assert len((await tried(driver, off, off)).spent_ns) == 1
        assert content(driver) == before


async def test_trials_come_one_after_the_other_and_behind_what_was_submitted(tmp_path: Path) -> None:
    """Whoever is cancelled ends its own early, and the next one runs."""
    async with opened(tmp_path / "a.db") as driver:
        await prepared(driver)
        endless = asyncio.create_task(tried(driver, ENDLESS["insert"]))
        others = [asyncio.create_task(tried(driver, execute("DELETE FROM t"))) for _ in range(3)]
        await asyncio.sleep(0)
        endless.cancel()
        for one in others:
            assert (await one).failure is None
        assert endless.cancelled()
        driver.submit(execute("INSERT INTO t VALUES (9)"))
        assert (await tried(driver, execute("DELETE FROM t"))).failure is None
        await driver.applied()


@pytest.mark.parametrize("ending", ["close", "switch"])
async def test_a_trial_ends_with_its_writer(tmp_path: Path, ending: str) -> None:
    """One that runs, and one that waits for it."""
    async with opened(tmp_path / "other.db"):
        pass
    async with opened(tmp_path / "a.db") as driver:
        await prepared(driver)
        running = [asyncio.create_task(tried(driver, ENDLESS["insert"])) for _ in range(2)]
        for _ in range(5):
            await asyncio.sleep(0)
        await (driver.writer.close() if ending == "close" else driver.writer.switch(tmp_path / "other.db"))
        found = await asyncio.gather(*running, return_exceptions=True)
        assert isinstance(found[1], ShuttingDown), found
        assert isinstance(found[0], Trial) and isinstance(refusal_of(found[0], LONG_NS), ShuttingDown), found
        if ending == "switch":
            assert (await tried(driver, execute("CREATE TABLE t (x)"))).changes_schema


async def test_a_run_says_what_was_slow_and_that_the_schema_is_another_one(tmp_path: Path) -> None:
    """By these the leader forgets what it had learnt."""
    slow = f"INSERT INTO t {RECURSIVE[:-1]} WHERE x < 1000000) SELECT x FROM c"
    async with opened(tmp_path / "a.db") as driver:
        await prepared(driver)
        assert any(run.changed_schema for run in driver.runs)
        driver.runs.clear()
        driver.submit(execute("INSERT INTO t VALUES (1)"))
        await driver.applied()
        assert [(run.changed_schema, run.slow_texts) for run in driver.runs] == [(False, [])]
        driver.runs.clear()
        driver.submit(execute(slow), execute(slow))
        await driver.applied()
        assert {text for run in driver.runs for text in run.slow_texts} == {slow}


async def test_what_was_answered_before_is_tried_all_the_same(tmp_path: Path) -> None:
    """Its time may be over, or its session, when it is applied; and its text is no quicker for being repeated."""
    endless = f"INSERT INTO t {RECURSIVE} SELECT x FROM c"
    async with opened(tmp_path / "a.db") as driver:
        before = await prepared(driver)
        driver.submit(
            session_record(8, 10**12, 10**12),
            encode_command(1, [("INSERT INTO t VALUES (9)", ())], session=6, sequence=1, window_low=1, request_id="a"),
        )
        await driver.applied()
        before = content(driver)
        known = {"session": 6, "sequence": 1, "window_low": 1}
        for place in ({"request_id": "a"}, known, {"session": 99, "sequence": 1}):
            trial = await tried(driver, encode_command(1, [(endless, ())], **place), limit_ns=SHORT_NS)
            assert trial.late, place
        trial = await tried(driver, session_record(8, 10**12, 10**12), session_record(8, 10**12, 10**12))
        assert len(trial.spent_ns) == 2
        assert content(driver) == before
        driver.submit(encode_command(1, [("INSERT INTO t VALUES (9)", ())], request_id="a"))
        await driver.applied()
        assert content(driver) == before
