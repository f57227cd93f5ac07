"""The read calls of an embedded client, and its migrations, on a single node opened from a path."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

import hiqlite
from hiqlite import Json, Row
from hiqlite.client.local import LocalClient
from tests.turns import turns

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def numbers(limit: int) -> str:
    """1 to `limit`, as a query."""
    return f"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT {limit}) SELECT x FROM c"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LocalClient]:
    async with hiqlite.open(tmp_path / "data") as client:
        await client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        await client.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        yield client


# --------------------------------------------------------------------------- query*


async def test_query_gives_rows(db: LocalClient):
    """Rows behave like tuples, and know their columns."""
    rows = await db.query("SELECT id, name FROM t WHERE id >= ? ORDER BY id", [2])
    assert rows == [(2, "b"), (3, "c")]
    row = rows[0]
    assert isinstance(row, Row) and len(row) == 2 and list(row) == [2, "b"]
    assert row[0] == row["id"] == row.id == 2
    assert row.keys() == ("id", "name") and row.asdict() == {"id": 2, "name": "b"}
    assert await db.query("SELECT * FROM t WHERE id = :id", {"id": 99}) == []


async def test_query_one_optional_and_value_count_rows(db: LocalClient):
    """Exactly one, at most one, the first column of exactly one."""
    assert await db.query_one("SELECT * FROM t WHERE id = 1") == (1, "a")
    assert await db.query_optional("SELECT * FROM t WHERE id = 1") == (1, "a")
    assert await db.query_optional("SELECT * FROM t WHERE id = 9") is None
    assert await db.query_value("SELECT name, id FROM t WHERE id = ?", [3]) == "c"
    for call in (db.query_one, db.query_value):
        with pytest.raises(hiqlite.RowNotFound) as none:
            await call("SELECT * FROM t WHERE id = 9")
        assert none.value.outcome is None
    for call in (db.query_one, db.query_value, db.query_optional):
        with pytest.raises(hiqlite.TooManyRows) as many:
            await call("SELECT * FROM t")
        assert many.value.outcome is None


@dataclass
class Item:
    id: int
    name: str


class Pair(NamedTuple):
    id: int
    name: str


async def test_a_view_may_search_a_full_text_index(db: LocalClient) -> None:
    """As in SQLite itself: what the schema calls, the readers trust as the writer does."""
    (await db.batch(
        "CREATE VIRTUAL TABLE ft USING fts5 (body); INSERT INTO ft VALUES ('some words'), ('other words');"
        "CREATE VIEW found AS SELECT body, bm25(ft) AS rank, highlight(ft, 0, '<', '>') AS h FROM ft WHERE ft MATCH"
        " 'some'"
    )).raise_for_error()  # fmt: skip
    for consistency in ("local", "linearizable"):
        (row,) = await db.query("SELECT * FROM found", consistency=consistency)
        assert (row["body"], row["h"]) == ("some words", "<some> words") and row["rank"] < 0
    assert [row["body"] async for row in db.query_iter("SELECT body FROM found")] == ["some words"]


async def test_a_large_result_is_mapped_without_stopping_the_loop(db: LocalClient) -> None:
    """Turn by turn, with the same result."""
    await db.execute("CREATE TABLE many (x)")
    await db.execute(f"INSERT INTO many {numbers(10_000)}")

    def slow(row: hiqlite.Row) -> int:
        end_ns = time.perf_counter_ns() + 20_000
        while time.perf_counter_ns() < end_ns:
            pass
        return row["x"]

    async with turns() as counted:
        rows = await db.query("SELECT x FROM many ORDER BY +x", into=slow)
    assert rows == list(range(1, 10_001)) and counted.count > 100


@pytest.mark.parametrize("into", [Item, Pair, lambda row: (row["name"], row["id"])])
async def test_rows_become_what_the_caller_asks_for(db: LocalClient, into: object):
    """A dataclass, a NamedTuple, any callable; in every read call."""
    sql = "SELECT * FROM t WHERE id = 2"
    expected = into(2, "b") if isinstance(into, type) else ("b", 2)  # type: ignore[call-arg]
    assert await db.query(sql, into=into) == [expected]
    assert await db.query_one(sql, into=into) == expected
    assert await db.query_optional(sql, into=into) == expected
    assert [item async for item in db.query_iter(sql, into=into)] == [expected]


async def test_a_row_that_does_not_fit_is_a_mapping_error_of_a_read(db: LocalClient):
    """Column and type are named; the outcome is None, because nothing was written."""
    with pytest.raises(hiqlite.RowMappingError, match="name") as caught:
        await db.query("SELECT id, NULL AS name FROM t", into=Item)
    assert caught.value.outcome is None


@pytest.mark.parametrize("consistency", [None, "local", "session", "linearizable"])
async def test_every_consistency_sees_what_was_written(db: LocalClient, consistency: str | None):
    """On a single node all of them see the last write."""
    for number in range(10, 20):
        await db.execute("INSERT INTO t VALUES (?, 'x')", [number])
        options = {"consistency": consistency}
        assert await db.query_value("SELECT max(id) FROM t", **options) == number  # type: ignore[arg-type]
        rows = [row async for row in db.query_iter("SELECT max(id) FROM t", **options)]  # type: ignore[arg-type]
        assert rows == [(number,)]


async def test_an_unknown_consistency_is_a_usage_error(db: LocalClient):
    """It is not silently taken for another."""
    with pytest.raises(hiqlite.UsageError, match="consistency"):
        await db.query("SELECT 1", consistency="strong")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "sql, hint",
    [
        ("INSERT INTO t VALUES (9, 'x')", "execute"),
        ("DELETE FROM t RETURNING id", "execute_returning"),
        ("CREATE TABLE u (x)", "execute"),
        ("SELECT 1; SELECT 2", ""),
        ("", ""),
    ],
)
async def test_a_write_given_to_a_read_call_is_a_usage_error(db: LocalClient, sql: str, hint: str):
    """It names the right call, has no outcome, and writes nothing."""
    for read in (db.query(sql), db.query_one(sql), db.query_value(sql), db.query_optional(sql)):
        with pytest.raises(hiqlite.UsageError) as caught:
            await read
        assert hint in caught.value.hint and caught.value.outcome is None
    with pytest.raises(hiqlite.UsageError):
        _ = [row async for row in db.query_iter(sql)]
    assert await db.query_value("SELECT count(*) FROM t") == 3


@pytest.mark.parametrize("sql", ["SELECT * FROM nowhere", "SELECT nothing FROM t", "SELECT (", "SELECT nofunction()"])
async def test_a_wrong_query_is_a_statement_error_without_outcome(db: LocalClient, sql: str):
    """Clear, typed, and harmless."""
    with pytest.raises(hiqlite.StatementError) as caught:
        await db.query(sql)
    assert caught.value.outcome is None and caught.value.sqlite_code == 1


@pytest.mark.parametrize("params", [[], [1, 2], {"x": 1}, "a", 5, [float("nan")], [2**63]])
async def test_parameters_of_a_read_are_checked(db: LocalClient, params: object):
    """The same rules as for writes."""
    with pytest.raises(hiqlite.ParameterError) as caught:
        await db.query("SELECT ?", params)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.outcome is None


@pytest.mark.parametrize(
    "sql",
    ["BEGIN", "PRAGMA journal_mode = DELETE", "ATTACH ':memory:' AS x", "PRAGMA query_only = 0", "VACUUM", "COMMIT"],
)
async def test_what_would_disturb_a_reader_is_refused(db: LocalClient, sql: str):
    """Transaction control, pragmas that change something, attached files."""
    with pytest.raises((hiqlite.StatementError, hiqlite.UsageError)):
        await db.query(sql)
    assert await db.query_value("SELECT count(*) FROM t") == 3


async def test_a_read_that_takes_too_long_ends_in_time(db: LocalClient):
    """RequestTimeout; the connection is free again, and other reads were served meanwhile."""
    slow = asyncio.create_task(db.query(ENDLESS, timeout=0.2))
    while not slow.done():
        assert await db.query_value("SELECT name FROM t WHERE id = 1") == "a"
        await asyncio.sleep(0)
    with pytest.raises(hiqlite.RequestTimeout) as caught:
        await slow
    assert caught.value.outcome is None
    assert await db.query_value("SELECT count(*) FROM t") == 3


async def test_a_cancelled_read_is_interrupted(db: LocalClient):
    """More of them than there are readers, and the next ones are served all the same."""
    for _ in range(3):
        slow = [asyncio.create_task(db.query(ENDLESS)) for _ in range(8)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in slow:
            task.cancel()
        ends = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert len(await db.query(numbers(100_000))) == 100_000


# --------------------------------------------------------------------------- query_iter


async def test_query_iter_reads_one_snapshot(db: LocalClient):
    """What is written while it runs does not show in it, and is not held up by it."""
    await db.execute(f"INSERT INTO t SELECT x + 3, 'n' FROM ({numbers(50_000)})")
    seen = 0
    async for row in db.query_iter("SELECT id FROM t ORDER BY id"):
        seen += 1
        assert row.id == seen
        if seen in (1, 1000):
            await db.execute("DELETE FROM t WHERE id > 100")
    assert seen == 50_003
    assert await db.query_value("SELECT count(*) FROM t") == 100


async def test_a_query_iter_that_is_left_early_gives_its_reader_back(db: LocalClient):
    """Break out of many of them, more than there are readers."""
    for _ in range(20):
        rows = db.query_iter(numbers(1_000_000))
        async for row in rows:
            assert row.x == 1
            break
        await rows.aclose()  # type: ignore[attr-defined]  # an async generator in fact
    assert len(await db.query(numbers(100_000))) == 100_000


@pytest.mark.parametrize("limit, pause_s", [({"query_iter_idle": 0.2}, 0.5), ({"query_iter_total": 0.3}, 0)])
async def test_query_iter_ends_at_its_limits(tmp_path: Path, limit: dict[str, float], pause_s: float):
    """Idle or in all: RequestTimeout, and the snapshot is given up."""
    loop = asyncio.get_running_loop()
    async with hiqlite.open(tmp_path / "data", **limit) as db:
        with pytest.raises(hiqlite.RequestTimeout):
            async for row in db.query_iter(ENDLESS.replace("count(*)", "x")):
                if row.x == 1:
                    pause = loop.create_future()
                    loop.call_later(pause_s, pause.set_result, None)
                    await pause


# --------------------------------------------------------------------------- values


class Colour(enum.Enum):
    RED = "red"


MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 1, 5)
EAST = datetime.timezone(datetime.timedelta(hours=2))
VALUES = [
    (None, None),
    (True, 1),
    (False, 0),
    (0, 0),
    (-(2**63), -(2**63)),
    (2**63 - 1, 2**63 - 1),
    (1.5, 1.5),
    (-0.0, -0.0),
    (1e308, 1e308),
    (float("inf"), float("inf")),
    ("", ""),
    ("grün \U0001f600 \0 end", "grün \U0001f600 \0 end"),
    (b"", b""),
    (bytes(range(256)), bytes(range(256))),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"cd"), b"cd"),
    (MOMENT, "2024-02-29 12:30:01.000005"),
    (MOMENT.replace(tzinfo=EAST), "2024-02-29 10:30:01.000005+00:00"),
    (MOMENT.date(), "2024-02-29"),
    (MOMENT.time(), "12:30:01.000005"),
    (decimal.Decimal("1.10"), "1.10"),
    (uuid.UUID(int=5), uuid.UUID(int=5).bytes),
    (Colour.RED, "red"),
    (Json({"a": [1, None]}), '{"a":[1,null]}'),
]


@pytest.mark.parametrize("given, stored", VALUES, ids=lambda value: type(value).__name__)
async def test_every_kind_of_value_is_stored_by_its_class(db: LocalClient, given: object, stored: object):
    """Written and read by each path, the value and its type are the same."""
    await db.execute("CREATE TABLE v (x)")
    by_returning = await db.execute_returning_one("INSERT INTO v VALUES (?) RETURNING x", [given])
    await db.execute("INSERT INTO v VALUES (:x)", {"x": given})
    await db.execute_many("INSERT INTO v VALUES (?)", [[given]])
    await db.txn([("INSERT INTO v VALUES (?)", [given])])
    rows = await db.query("SELECT x FROM v")
    linearizable = await db.query("SELECT x FROM v", consistency="linearizable")
    streamed = [row async for row in db.query_iter("SELECT x FROM v")]
    bound = await db.query("SELECT ?", [given])
    for row in [by_returning, *rows, *linearizable, *streamed, *bound]:
        assert row[0] == stored and type(row[0]) is type(stored) and repr(row[0]) == repr(stored)
    assert len(rows) == len(linearizable) == len(streamed) == 4


# --------------------------------------------------------------------------- migrations


FIRST = "CREATE TABLE m (x);"
SECOND = "CREATE TABLE n (y); INSERT INTO n VALUES (1);"


async def test_migrations_are_applied_once_in_order(db: LocalClient, tmp_path: Path):
    """From a folder or a mapping; the report tells what was new."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "1_first.sql").write_text(FIRST)
    report = await db.migrate(folder)
    assert (report.applied, report.already_applied) == ([1], [])
    both = {"1_first.sql": FIRST, "2_second.sql": SECOND}
    report = await db.migrate(both)
    assert (report.applied, report.already_applied) == ([2], [1])
    report = await db.migrate(both)
    assert (report.applied, report.already_applied) == ([], [1, 2])
    rows = await db.query("SELECT id, name, length(hash) FROM _migrations ORDER BY id")
    assert rows == [(1, "1_first.sql", 64), (2, "2_second.sql", 64)]
    assert await db.query("SELECT y FROM n") == [(1,)]


async def test_a_failing_migration_leaves_nothing_of_its_file(db: LocalClient):
    """Files before it stay; the error names file and statement."""
    wrong = "CREATE TABLE good (x); CREATE TABLE bad (x, x); CREATE TABLE late (x);"
    with pytest.raises(hiqlite.MigrationError) as caught:
        await db.migrate({"1_first.sql": FIRST, "2_wrong.sql": wrong})
    assert "2_wrong.sql" in str(caught.value) and caught.value.statement_index == 1
    assert caught.value.outcome == "not_applied"
    tables = {row[0] for row in await db.query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "m" in tables and not tables & {"good", "bad", "late"}
    assert await db.query_value("SELECT count(*) FROM _migrations") == 1


@pytest.mark.parametrize(
    "source",
    [
        {"1_first.sql": FIRST + " -- edited"},
        {"1_renamed.sql": FIRST},
        {"1_first.sql": FIRST, "3_gap.sql": SECOND},
        {"2_first.sql": FIRST},
        {"1_first.sql": FIRST, "1_twice.sql": SECOND},
        {"first.sql": FIRST},
    ],
)
async def test_wrong_sets_of_migrations_are_clear_errors(db: LocalClient, source: dict[str, str]):
    """Edited, renamed, with gaps, twice, or with a wrong name: nothing is applied."""
    await db.migrate({"1_first.sql": FIRST})
    with pytest.raises(hiqlite.MigrationError):
        await db.migrate(source)
    assert await db.query_value("SELECT count(*) FROM _migrations") == 1


@pytest.mark.parametrize("source", [{}, "no_such_package_anywhere", "no/such/folder", 5])
async def test_a_source_without_migrations_is_a_usage_error(db: LocalClient, source: object):
    """Nothing to apply is most likely a wrong path."""
    with pytest.raises(hiqlite.UsageError):
        await db.migrate(source)  # type: ignore[arg-type]  # wrong on purpose


async def test_a_migration_may_switch_foreign_keys_off(db: LocalClient):
    """A table can be rebuilt without a cascade; a violation that remains fails the file."""
    schema = (
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p INTEGER REFERENCES p (id) ON DELETE CASCADE);"
        "INSERT INTO p VALUES (1); INSERT INTO c VALUES (1);"
    )
    rebuild = (
        "-- hiqlite: foreign_keys=off\nCREATE TABLE q (id INTEGER PRIMARY KEY); INSERT INTO q SELECT * FROM p;"
        "DROP TABLE p; ALTER TABLE q RENAME TO p;"
    )
    await db.migrate({"1_schema.sql": schema, "2_rebuild.sql": rebuild})
    assert await db.query("SELECT p FROM c") == [(1,)]
    violating = "-- hiqlite: foreign_keys=off\nDELETE FROM p;"
    with pytest.raises(hiqlite.MigrationError):
        await db.migrate({"1_schema.sql": schema, "2_rebuild.sql": rebuild, "3_wrong.sql": violating})
    assert await db.query("SELECT id FROM p") == [(1,)]


async def test_migrations_at_once_are_applied_once(db: LocalClient):
    """Several tasks with the same set: each file runs once, every call ends well."""
    files = {f"{n}_m.sql": f"CREATE TABLE m{n} (x); INSERT INTO m{n} VALUES (1);" for n in range(1, 6)}
    reports = await asyncio.gather(*(db.migrate(files) for _ in range(4)))
    assert sorted(number for report in reports for number in report.applied) == [1, 2, 3, 4, 5]
    assert all(sorted(report.applied + report.already_applied) == [1, 2, 3, 4, 5] for report in reports)
    for n in range(1, 6):
        assert await db.query_value(f"SELECT count(*) FROM m{n}") == 1
