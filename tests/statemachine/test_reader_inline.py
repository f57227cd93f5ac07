"""Reads on the calling thread: what may run there, what comes back, and what never stays behind."""

from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import apsw
import pytest
from reader_files import opened

from hiqlite._accel import reads
from hiqlite.errors import (
    ParameterError,
    RowMappingError,
    SchemaError,
    ShuttingDown,
    StatementError,
    StorageError,
    UsageError,
)
from hiqlite.statemachine.reader import Reader, ReaderSettings

SHORT = [
    "SELECT * FROM item WHERE id = ?",
    "SELECT * FROM item WHERE kind = ? ORDER BY name",
    "SELECT * FROM item WHERE id IN (1, 2, 3)",
    "SELECT max(id), min(id) FROM item WHERE id > ?",
    "SELECT max(id) FROM item",
    "SELECT * FROM item ORDER BY id LIMIT 10",
    "SELECT * FROM item ORDER BY id DESC LIMIT 10",
    "SELECT count(*) FROM item WHERE kind = ?",
    "SELECT EXISTS (SELECT 1 FROM item WHERE kind = ?)",
    "SELECT a.id FROM item a JOIN item b ON b.id = a.kind WHERE a.id = ?",
    "SELECT json_extract('{\"a\": 1}', '$.a') FROM item WHERE id = ?",
    "SELECT 1",
    "SELECT replace(trim(name), ?, 'b'), instr(name, ?) FROM item WHERE id = 1",
]
LONG_PROGRAMS = [
    "SELECT count(*) FROM item",
    "SELECT * FROM item",
    "SELECT min(name) FROM item",
    "SELECT * FROM item WHERE name = ?",
    "SELECT * FROM item ORDER BY name LIMIT 3",
    "SELECT * FROM item WHERE name LIKE ? AND id = 1",
    "SELECT unhex(name, ?) FROM item WHERE id = 1",
    "SELECT * FROM item a WHERE EXISTS (SELECT 1 FROM item b WHERE b.id = a.kind)",
    "SELECT * FROM json_each(?)",
    "SELECT a.id FROM item a, item b WHERE a.name = b.name AND a.id = 1",
    "PRAGMA integrity_check",
]


@pytest.mark.parametrize("sql", SHORT)
async def test_a_program_without_long_opcodes_or_scans_runs_on_the_calling_thread(sql: str, tmp_path: Path) -> None:
    """query_now answers by itself."""
    async with opened(tmp_path, rows=100) as (reader, _):
        rows = reader.query_now(sql, (1,) * sql.count("?"))
        assert rows is not None
        assert rows == await reader.query(sql, (1,) * sql.count("?"))


@pytest.mark.parametrize("sql", LONG_PROGRAMS)
async def test_a_program_that_may_be_long_goes_to_a_thread(sql: str, tmp_path: Path) -> None:
    """query_now says None and has not run it; query gives the rows."""
    async with opened(tmp_path) as (reader, _):
        params = ("[1]",) * sql.count("?")
        assert reader.query_now(sql, params) is None
        assert isinstance(await reader.query(sql, params), list)


async def test_a_program_over_its_budget_is_interrupted_and_remembered(tmp_path: Path) -> None:
    """An index range is short by its program and long by its data: the second call does not even begin."""
    sql = "SELECT sum(price + ?) FROM item WHERE id > ?"
    async with opened(tmp_path, rows=200_000) as (reader, _):
        assert reader.query_now(sql, (1, 0)) is None
        assert reader.metrics().interrupted == 1
        assert reader.query_now(sql, (1, 199_999 - 2)) is None
        assert reader.metrics().interrupted == 1
        assert (await reader.query(sql, (0, 199_999 - 2)))[0][0] == (199_998 + 199_999) * 0.5


async def test_big_values_and_big_results_go_to_a_thread(tmp_path: Path) -> None:
    """The calling thread copies bounded bytes only: value, sum of values, and parameters."""
    async with opened(tmp_path) as (reader, writer):
        writer.execute("CREATE TABLE doc(id INTEGER PRIMARY KEY, body TEXT)")
        writer.execute("INSERT INTO doc VALUES (1, ?)", ("x" * 100_000,))
        for number in range(2, 20):
            writer.execute("INSERT INTO doc VALUES (?, ?)", (number, "y" * 60_000))
        assert reader.query_now("SELECT id FROM doc WHERE id = 1") == [(1,)]
        assert reader.query_now("SELECT body FROM doc WHERE id = 1") is None
        assert len((await reader.query("SELECT body FROM doc WHERE id = 1"))[0][0]) == 100_000
        assert reader.query_now("SELECT body FROM doc WHERE id = 2") == [("y" * 60_000,)]
        assert reader.query_now("SELECT body FROM doc WHERE id > 1") is None
        assert len(await reader.query("SELECT body FROM doc WHERE id > 1")) == 18
        assert reader.query_now("SELECT length(?)", ("z" * 70_000,)) is None
        assert await reader.query("SELECT length(?)", ("z" * 70_000,)) == [(70_000,)]
        assert reader.query_now(f"SELECT '{'w' * 70_000}'") is None
        assert reader.query_now(f"SELECT 1 -- {'w' * 70_000}") is None
        assert await reader.query(f"SELECT 1 -- {'w' * 70_000}") == [(1,)]


async def test_values_come_back_by_storage_class(tmp_path: Path) -> None:
    """Integers to the 64-bit edge, reals, infinite ones, text with NUL and emoji, blobs, empty ones, NULL."""
    values = (0, -(2**63), 2**63 - 1, 1.5, float("inf"), "", "a\0b", "🦉", b"", b"\0\xff", None, True)
    sql = "SELECT " + ", ".join(["?"] * len(values))
    async with opened(tmp_path) as (reader, _):
        inline, threaded = reader.query_now(sql, values), await reader.query(sql, values)
        assert inline == threaded == [values]
        assert [type(value) for value in (inline or [])[0]] == [*map(type, values[:-1]), int]


async def test_other_types_are_converted_as_in_writes(tmp_path: Path) -> None:
    """Dates, decimals, UUIDs and the like become what a write would store."""
    uuid = UUID(int=5)
    values = [date(2024, 2, 29), Decimal("1.50"), uuid, bytearray(b"ab")]
    async with opened(tmp_path) as (reader, _):
        stored = ("2024-02-29", "1.50", uuid.bytes, b"ab")
        assert reader.query_now("SELECT ?, ?, ?, ?", values) == [stored]
        assert await reader.query("SELECT ?, ?, ?, ?", values) == [stored]


async def test_named_parameters_are_found_whatever_their_prefix(tmp_path: Path) -> None:
    """:a, @b and $c in a mapping, in any order, one of them twice."""
    sql, params = "SELECT :a, @b, $c, :a", {"c": 3, "a": 1, "b": 2}
    async with opened(tmp_path) as (reader, _):
        assert reader.query_now(sql, params) == [(1, 2, 3, 1)]
        assert await reader.query(sql, params) == [(1, 2, 3, 1)]


MISFITS = [
    ("SELECT ?, ?", (1,)),
    ("SELECT ?", (1, 2)),
    ("SELECT 1", (1,)),
    ("SELECT :a, :b", {"a": 1}),
    ("SELECT :a", {"a": 1, "b": 2}),
    ("SELECT ?", {"a": 1}),
    ("SELECT ?", "x"),
    ("SELECT ?", 5),
    ("SELECT ?", {1}),
    ("SELECT :a", {5: 1}),
    ("SELECT ?", (float("nan"),)),
    ("SELECT ?", (2**63,)),
    ("SELECT ?", ("\ud800",)),
    ("SELECT ?", (object(),)),
    ("SELECT :a", {"a": float("nan")}),
]


@pytest.mark.parametrize(("sql", "params"), MISFITS)
async def test_parameters_that_do_not_fit_are_refused(sql: str, params: object, tmp_path: Path) -> None:
    """ParameterError without an outcome, from both ways, and the reader goes on."""
    async with opened(tmp_path) as (reader, _):
        with pytest.raises(ParameterError) as inline:
            reader.query_now(sql, params)  # type: ignore[arg-type]
        with pytest.raises(ParameterError) as threaded:
            await reader.query(sql, params)  # type: ignore[arg-type]
        assert inline.value.outcome is None
        assert threaded.value.outcome is None
        assert reader.query_now("SELECT 1") == await reader.query("SELECT 1") == [(1,)]


HOSTILE: list[tuple[str, type[Exception]]] = [
    ("", UsageError),
    (" ; -- nothing", UsageError),
    ("SELECT 1; SELECT 2", UsageError),
    ("SELECT 1; garbage", UsageError),
    ("SELECT 1; /* x */ DROP TABLE item", UsageError),
    ("SELECT 1\0; DROP TABLE item", UsageError),
    ("SELECT '\ud800'", UsageError),
    ("INSERT INTO item VALUES (1, 1, 1, 1)", UsageError),
    ("INSERT INTO item(kind) VALUES (1) RETURNING id", UsageError),
    ("WITH x AS (SELECT 1) DELETE FROM item", UsageError),
    ("/* a */ -- b\n UPDATE item SET kind = 2", UsageError),
    ("CREATE TABLE other(a)", UsageError),
    ("DROP TABLE item", UsageError),
    ("BEGIN", StatementError),
    ("BEGIN IMMEDIATE", StatementError),
    ("COMMIT", StatementError),
    ("SAVEPOINT a", StatementError),
    ("VACUUM", StatementError),
    ("VACUUM INTO 'copy.db'", StatementError),
    ("ATTACH 'other.db' AS other", StatementError),
    ("PRAGMA journal_mode = DELETE", StatementError),
    ("PRAGMA wal_checkpoint(TRUNCATE)", StatementError),
    ("SELECT load_extension('x')", StatementError),
    ("SELECT", StatementError),
    ("SELEC 1", StatementError),
    ("SELECT 'open", StatementError),
    ("SELECT " + "1 + " * 2000 + "1", StatementError),
    ("SELECT * FROM absent", SchemaError),
    ("SELECT absent FROM item", SchemaError),
    ("SELECT absent(1)", SchemaError),
    ("SELECT abs(-9223372036854775808)", StatementError),
    ("SELECT json('{')", StatementError),
]


@pytest.mark.parametrize(("sql", "kind"), HOSTILE, ids=[repr(sql[:40]) for sql, _ in HOSTILE])
async def test_hostile_sql_ends_with_one_typed_error(sql: str, kind: type[Exception], tmp_path: Path) -> None:
    """From both ways the same class, no outcome, nothing left open, and the next read is right."""
    async with opened(tmp_path) as (reader, writer):
        with pytest.raises(kind) as inline:
            reader.query_now(sql)
        with pytest.raises(kind) as threaded:
            await reader.query(sql)
        assert type(inline.value) is type(threaded.value)
        assert getattr(inline.value, "outcome", "") is None
        assert getattr(threaded.value, "outcome", "") is None
        writer.execute("UPDATE item SET kind = 77 WHERE id = 1")
        assert reader.query_now("SELECT kind FROM item WHERE id = 1") == [(77,)]
        for _ in range(4):
            assert await reader.query("SELECT kind FROM item WHERE id = 1") == [(77,)]


async def test_errors_name_the_right_call_and_carry_codes(tmp_path: Path) -> None:
    """A write names execute or execute_returning; SQLite's errors carry its codes and the shortened text."""
    async with opened(tmp_path) as (reader, _):
        with pytest.raises(UsageError, match=r"execute\(\)"):
            reader.query_now("DELETE FROM item")
        with pytest.raises(UsageError, match=r"execute_returning\(\)"):
            reader.query_now("DELETE FROM item RETURNING id")
        with pytest.raises(SchemaError) as raised:
            reader.query_now("SELECT * FROM absent -- " + "x" * 500)
        assert (raised.value.sqlite_code, raised.value.extended_code, raised.value.statement_index) == (1, 1, 0)
        assert raised.value.sql is not None and len(raised.value.sql) == 200


async def test_text_that_is_not_utf8_is_refused_or_given_as_bytes(tmp_path: Path) -> None:
    """RowMappingError names the column, from both ways; asked for bytes, it is bytes."""
    sql = "SELECT CAST(x'61ff62' AS TEXT) AS odd"
    async with opened(tmp_path) as (reader, _):
        with pytest.raises(RowMappingError, match="odd"):
            reader.query_now(sql)
        with pytest.raises(RowMappingError, match="odd"):
            await reader.query(sql)
        assert reader.query_now(sql, bytes_for_bad_text=True) == [(b"a\xffb",)]
        assert await reader.query(sql, bytes_for_bad_text=True) == [(b"a\xffb",)]


async def test_a_changed_schema_is_seen_at_once_and_inspected_anew(tmp_path: Path) -> None:
    """Columns follow the schema; a program that became long does not run on the calling thread even once."""
    async with opened(tmp_path) as (reader, writer):
        assert reader.query_now("SELECT * FROM item WHERE id = 1") == [(1, 1, "name 1", 0.5)]
        writer.execute("ALTER TABLE item ADD COLUMN more TEXT DEFAULT 'm'")
        rows = reader.query_now("SELECT * FROM item WHERE id = 1")
        assert rows is not None and rows[0].keys()[-1] == "more" and rows[0]["more"] == "m"
        by_kind = "SELECT count(*) FROM item WHERE kind = 3"
        assert reader.query_now(by_kind) == [(500,)]
        writer.execute("DROP INDEX item_kind")
        assert reader.query_now(by_kind) is None
        assert await reader.query(by_kind) == [(500,)]
        writer.execute("DROP TABLE item")
        with pytest.raises(SchemaError):
            reader.query_now("SELECT * FROM item WHERE id = 1")


async def test_a_large_schema_does_not_drive_reads_from_the_calling_thread(tmp_path: Path) -> None:
    """Neither one long CREATE text nor many tables, which take longer to read than any budget."""
    async with opened(tmp_path, rows=10) as (reader, writer):
        writer.execute(f"CREATE TABLE long(a, b DEFAULT '{'x' * 100_000}')")
        writer.execute("SELECT 1").fetchall()
        assert reader.query_now("SELECT id FROM item WHERE id = 1") == [(1,)]
        for number in range(800):
            writer.execute(f"CREATE TABLE t{number}(a INTEGER PRIMARY KEY, b TEXT CHECK (length(b) < 9), c DEFAULT 1)")
        assert reader.query_now("SELECT id FROM item WHERE id = 1") == [(1,)]
        assert reader.query_now("SELECT id FROM item WHERE id = 2 AND kind >= 0") == [(2,)]


async def test_statements_kept_are_bounded(tmp_path: Path) -> None:
    """The cache drops what was not used lately; what is used stays."""
    async with opened(tmp_path, statement_cache=8) as (reader, _):
        for number in range(100):
            assert reader.query_now(f"SELECT {number}") == [(number,)]
            assert reader.query_now("SELECT id FROM item WHERE id = 7") == [(7,)]
        assert reader.metrics().statements == 8


async def test_a_closed_reader_says_so(tmp_path: Path) -> None:
    """Both ways raise ShuttingDown; closing twice is fine."""
    async with opened(tmp_path) as (reader, _):
        await reader.close()
        await reader.close()
        with pytest.raises(ShuttingDown):
            reader.query_now("SELECT 1")
        with pytest.raises(ShuttingDown):
            await reader.query("SELECT 1")


async def test_a_missing_or_foreign_file_is_a_storage_error(tmp_path: Path) -> None:
    """Nothing is created, and nothing stays open."""
    loop = asyncio.get_running_loop()
    with pytest.raises(StorageError):
        Reader.open(tmp_path / "missing.db", ReaderSettings(), loop)
    (tmp_path / "foreign.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError):
        Reader.open(tmp_path / "foreign.db", ReaderSettings(), loop)


def test_without_a_guard_transaction_control_still_cannot_pin_a_snapshot() -> None:
    """Defence in depth: the program is refused by its opcodes."""
    connection = apsw.Connection(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(reads.__file__, "sqlite3_reads_init")
    reader = reads.ReadConnection(connection.sqlite3_pointer())
    for sql in ("BEGIN", "SAVEPOINT a", "ROLLBACK", "RELEASE a"):
        with pytest.raises(StatementError):
            reader.try_rows(sql)
    assert not connection.in_transaction
    reader.close()
    assert reader.try_rows("SELECT 1") is None
    connection.close()


async def test_long_texts_are_not_kept(tmp_path: Path) -> None:
    """Neither here nor by the threads: a program that writes its values into the text would fill the memory."""
    async with opened(tmp_path) as (reader, _):
        for number in range(5):
            sql = f"SELECT name FROM item WHERE id = {number} OR id IN ({', '.join(['-1'] * 20_000)})"
            for _ in range(2):
                assert reader.query_now(sql) is None
                assert await reader.query(sql) == [(f"name {number}",)]
        assert reader.metrics().statements == 0


class Shown(str):
    """Text that is shown as another one."""

    def __str__(self) -> str:
        return "SELECT 'another one'"


async def test_a_text_is_known_by_itself(tmp_path: Path) -> None:
    """Not by what a subclass makes of it."""
    async with opened(tmp_path) as (reader, _):
        assert reader.query_now(Shown("SELECT 'itself'")) == [("itself",)]
        assert reader.query_now("SELECT 'another one'") == [("another one",)]
