"""The write calls of an embedded client, on a single node opened from a path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite import BatchResult, ExecuteResult
from hiqlite.client.local import LocalClient

CONSTRAINT, UNIQUE_PRIMARY_KEY, CHECK = 19, 1555, 275


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LocalClient]:
    async with hiqlite.open(tmp_path / "data") as client:
        await client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, n INTEGER CHECK (n < 1000))")
        yield client


async def count(db: LocalClient) -> int:
    found: int = await db.query_value("SELECT count(*) FROM t")
    return found


# --------------------------------------------------------------------------- execute


async def test_execute_tells_rows_rowid_and_index(db: LocalClient):
    """An ExecuteResult of three fields, whose log index grows by one per call."""
    first = await db.execute("INSERT INTO t (text) VALUES (?)", ["a"])
    second = await db.execute("INSERT INTO t (text) VALUES (?), (?)", ("b", "c"))
    assert isinstance(first, ExecuteResult)
    assert (first.rows_affected, first.last_insert_rowid) == (1, 1)
    assert (second.rows_affected, second.last_insert_rowid) == (2, 3)
    assert second.log_index == first.log_index + 1
    updated = await db.execute("UPDATE t SET n = 1 WHERE id > 1")
    assert updated.rows_affected == 2
    assert (await db.execute("DELETE FROM t WHERE id = 99")).rows_affected == 0
    assert (await db.execute("CREATE TABLE other (x)")).rows_affected == 0


@pytest.mark.parametrize(
    "sql, params",
    [
        ("INSERT INTO t (id, text) VALUES (?, ?)", [5, "x"]),
        ("INSERT INTO t (id, text) VALUES (?2, ?1)", ["x", 5]),
        ("INSERT INTO t (id, text) VALUES ($1, $2)", (5, "x")),
        ("INSERT INTO t (id, text) VALUES (:id, :text)", {"id": 5, "text": "x"}),
        ("INSERT INTO t (id, text) VALUES (@id, $text)", {"text": "x", "id": 5}),
        ("INSERT INTO t (id, text) VALUES (5, 'x')", ()),
        ("INSERT INTO t (id, text) VALUES (5, 'x') -- the end;", []),
        ("INSERT INTO t (id, text) VALUES (5, 'x');  /* nothing more */ ;", []),
    ],
)
async def test_parameters_of_every_form_are_bound(db: LocalClient, sql: str, params: object):
    """Sequences for numbered places, mappings for names; a trailing comment is no second statement."""
    if "$1" in sql:
        params = {"1": 5, "2": "x"}  # SQLite knows `$1` as a name
    await db.execute(sql, params)
    assert await db.query("SELECT id, text FROM t") == [(5, "x")]


@pytest.mark.parametrize(
    "sql, params",
    [
        ("INSERT INTO t (text) VALUES (?)", []),
        ("INSERT INTO t (text) VALUES (?)", ["a", "b"]),
        ("INSERT INTO t (text) VALUES ('a')", ["b"]),
        ("INSERT INTO t (text) VALUES (:name)", {}),
        ("INSERT INTO t (text) VALUES (:name)", {"name": "a", "other": "b"}),
        ("INSERT INTO t (text) VALUES (?)", {"name": "a"}),
        ("INSERT INTO t (text) VALUES (?)", "a"),
        ("INSERT INTO t (text) VALUES (?)", b"a"),
        ("INSERT INTO t (text) VALUES (?)", 5),
        ("INSERT INTO t (text) VALUES (?)", {"a"}),
        ("INSERT INTO t (text) VALUES (?)", [float("nan")]),
        ("INSERT INTO t (text) VALUES (?)", [2**63]),
        ("INSERT INTO t (text) VALUES (?)", [-(2**63) - 1]),
        ("INSERT INTO t (text) VALUES (?)", ["\ud800"]),
        ("INSERT INTO t (text) VALUES (?)", [object()]),
        ("INSERT INTO t (text) VALUES (?)", [[1]]),
        ("INSERT INTO t (text) VALUES (:a)", {"a": float("nan")}),
    ],
)
async def test_parameters_that_do_not_fit_are_refused_before_anything_is_replicated(
    db: LocalClient, sql: str, params: object
):
    """ParameterError, not applied; the log does not grow."""
    before = (await db.metrics()).db.last_log_index
    with pytest.raises(hiqlite.ParameterError) as caught:
        await db.execute(sql, params)
    assert caught.value.outcome == "not_applied" and caught.value.code == "parameter"
    assert isinstance(caught.value, ValueError)
    assert (await db.metrics()).db.last_log_index == before


async def test_more_parameters_than_sqlite_takes_are_refused(db: LocalClient):
    """32 766 go through, one more does not."""
    await db.execute("CREATE TABLE wide (x)")
    sql = "INSERT INTO wide VALUES " + ",".join(["(?)"] * 32766)
    assert (await db.execute(sql, [1] * 32766)).rows_affected == 32766
    for places in ("(?)", "(?32767)"):
        with pytest.raises((hiqlite.ParameterError, hiqlite.StatementError)) as caught:
            await db.execute(f"{sql},{places}", [1] * 32767)
        assert caught.value.outcome == "not_applied"
    assert await db.query_value("SELECT count(*) FROM wide") == 32766


@pytest.mark.parametrize(
    "sql, hint",
    [
        ("SELECT 1", "query"),
        ("SELECT * FROM t", "query"),
        ("VALUES (1)", "query"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "query"),
        ("INSERT INTO t (text) VALUES ('a'); INSERT INTO t (text) VALUES ('b')", "batch"),
        ("INSERT INTO t (text) VALUES ('a'); SELECT 1", "batch"),
        ("INSERT INTO t (text) VALUES ('a') RETURNING id", "execute_returning"),
        ("", ""),
        ("  -- nothing\n", ""),
        ("INSERT INTO t (text) VALUES ('a')\0", ""),
        ("INSERT INTO t (text) VALUES ('\ud800')", ""),
    ],
)
async def test_the_wrong_call_is_a_usage_error_that_names_the_right_one(db: LocalClient, sql: str, hint: str):
    """Reads, several statements, RETURNING without its call, and no statement at all."""
    with pytest.raises(hiqlite.UsageError) as caught:
        await db.execute(sql)
    assert hint in caught.value.hint and caught.value.outcome == "not_applied"
    assert await count(db) == 0


@pytest.mark.parametrize("sql", [5, None, b"INSERT INTO t (text) VALUES ('a')", ["x"]])
async def test_sql_that_is_no_text_is_a_usage_error(db: LocalClient, sql: object):
    """For every call that takes SQL."""
    for call in (db.execute, db.execute_returning, db.batch, db.query):
        with pytest.raises(hiqlite.UsageError):
            await call(sql)  # type: ignore[operator,arg-type]  # wrong on purpose
    with pytest.raises(hiqlite.UsageError):
        await db.txn([(sql, ())])  # type: ignore[list-item]  # wrong on purpose


@pytest.mark.parametrize(
    "sql, kind",
    [
        ("INSERT INTO nowhere VALUES (1)", hiqlite.SchemaError),
        ("INSERT INTO t (nothing) VALUES (1)", hiqlite.SchemaError),
        ("INSERT INTO", hiqlite.StatementError),
        ("this is no SQL", hiqlite.StatementError),
        ("CREATE TABLE t (x)", hiqlite.SchemaError),
        ("INSERT INTO t (text) VALUES (nofunction())", hiqlite.SchemaError),
    ],
)
async def test_wrong_sql_is_one_clear_error(db: LocalClient, sql: str, kind: type[hiqlite.HiqliteError]):
    """With SQLite's code, the statement and its place; nothing happened."""
    with pytest.raises(hiqlite.StatementError) as caught:
        await db.execute(sql)
    error = caught.value
    assert error.outcome == "not_applied" and error.statement_index == 0
    assert error.sqlite_code == 1 and error.sql == sql
    assert isinstance(error, kind) or "syntax" in str(error)


async def test_a_constraint_error_carries_sqlites_codes(db: LocalClient):
    """Extended code of the very constraint; the row that was there stays."""
    await db.execute("INSERT INTO t VALUES (1, 'a', 1)")
    with pytest.raises(hiqlite.ConstraintError) as caught:
        await db.execute("INSERT INTO t VALUES (?, 'b', 2)", [1])
    assert (caught.value.sqlite_code, caught.value.extended_code) == (CONSTRAINT, UNIQUE_PRIMARY_KEY)
    assert caught.value.outcome == "not_applied" and not caught.value.retryable
    with pytest.raises(hiqlite.ConstraintError) as caught:
        await db.execute("INSERT INTO t VALUES (2, 'b', 2000)")
    assert caught.value.extended_code == CHECK
    assert await db.query("SELECT * FROM t") == [(1, "a", 1)]


async def test_a_write_larger_than_an_entry_may_be_is_refused(tmp_path: Path):
    """UsageError before anything is sent, whichever call it came by; a smaller one goes through."""
    async with hiqlite.open(tmp_path / "small", max_entry_size="64 KiB") as db:
        await db.execute("CREATE TABLE t (x BLOB)")
        insert, large = "INSERT INTO t VALUES (?)", bytes(65 << 10)
        for write in (
            db.execute(insert, [large]),
            db.execute_many(insert, [[large]]),
            db.execute_returning(insert + " RETURNING 1", [large]),
            db.txn([(insert, [large])]),
            db.batch(f"INSERT INTO t VALUES (x'{large.hex()}')"),
        ):
            with pytest.raises(hiqlite.UsageError, match="limit") as caught:
                await write
            assert caught.value.outcome == "not_applied"
        await db.execute(insert, [bytes(32 << 10)])
        assert await db.query_value("SELECT count(*) FROM t") == 1


# --------------------------------------------------------------------------- execute_many, execute_returning


async def test_execute_many_is_atomic_and_tells_each_result(db: LocalClient):
    """One entry; a failure in the middle leaves nothing."""
    results = await db.execute_many("INSERT INTO t (text) VALUES (?)", ([text] for text in "abc"))
    assert [result.last_insert_rowid for result in results] == [1, 2, 3]
    assert len({result.log_index for result in results}) == 1
    with pytest.raises(hiqlite.ConstraintError) as caught:
        await db.execute_many("INSERT INTO t (id) VALUES (?)", [[10], [2], [11]])
    assert caught.value.statement_index == 1
    assert await count(db) == 3


async def test_execute_many_checks_every_set_of_parameters(db: LocalClient):
    """One that does not fit stops the whole call; none at all is a mistake."""
    with pytest.raises(hiqlite.ParameterError):
        await db.execute_many("INSERT INTO t (id, text) VALUES (?, ?)", [[1, "a"], [2]])
    with pytest.raises(hiqlite.UsageError):
        await db.execute_many("INSERT INTO t (id) VALUES (?)", [])
    with pytest.raises(hiqlite.UsageError):
        await db.execute_many("SELECT ?", [[1]])
    assert await count(db) == 0


@dataclass
class Item:
    id: int
    text: str


async def test_execute_returning_gives_rows_or_objects(db: LocalClient):
    """Rows like those of a query, or the type asked for."""
    sql = "INSERT INTO t (text) VALUES (?), (?) RETURNING id, text"
    rows = await db.execute_returning(sql, ["a", "b"])
    assert rows == [(1, "a"), (2, "b")]
    assert rows[0]["text"] == "a" and rows[1].id == 2 and rows[0].keys() == ("id", "text")
    assert await db.execute_returning(sql, ["c", "d"], into=Item) == [Item(3, "c"), Item(4, "d")]
    assert await db.execute_returning("UPDATE t SET n = 1 WHERE id > 100 RETURNING id") == []


async def test_a_returning_that_is_known_to_be_cheap_gives_and_refuses_the_same(db: LocalClient):
    """From its second run on it is proposed without a look at it; another schema, or another call, is looked at."""
    sql = "INSERT INTO t (text) VALUES (:text) RETURNING id"
    for number in range(1, 4):
        assert await db.execute_returning(sql, {"text": "a"}) == [(number,)]
        assert db._cheap_returning.keys() == {sql}
        for params, error in (({}, hiqlite.ParameterError), ("a", hiqlite.ParameterError), ([{}], hiqlite.UsageError)):
            with pytest.raises(error):
                await db.execute_returning(sql, params)
        with pytest.raises(hiqlite.UsageError, match="rows"):
            await db.execute(sql, {"text": "b"})
    with pytest.raises(hiqlite.UsageError, match="SQL must be text"):
        await db.execute_returning(["no text"])  # type: ignore[arg-type]
    await db.execute("DROP TABLE t")
    with pytest.raises(hiqlite.SchemaError):
        await db.execute_returning(sql, {"text": "c"})


async def test_execute_returning_one_tells_that_the_write_has_happened(db: LocalClient):
    """RowNotFound and TooManyRows after the write carry the outcome `applied`."""
    assert (await db.execute_returning_one("INSERT INTO t (text) VALUES ('a') RETURNING *"))["text"] == "a"
    assert await db.execute_returning_one("INSERT INTO t (text) VALUES ('b') RETURNING *", into=Item) == Item(2, "b")
    with pytest.raises(hiqlite.RowNotFound) as none:
        await db.execute_returning_one("DELETE FROM t WHERE id = 99 RETURNING id")
    with pytest.raises(hiqlite.TooManyRows) as many:
        await db.execute_returning_one("DELETE FROM t RETURNING id")
    assert none.value.outcome == many.value.outcome == "applied"
    assert await count(db) == 0


async def test_returning_rows_that_do_not_fit_their_type_were_written(db: LocalClient):
    """The mapping fails, the write stays, and the error says so."""
    with pytest.raises(hiqlite.RowMappingError) as caught:
        await db.execute_returning("INSERT INTO t (text) VALUES (NULL) RETURNING id, text", into=Item)
    assert caught.value.outcome == "applied"
    assert await count(db) == 1


@pytest.mark.parametrize("sql", ["INSERT INTO t (text) VALUES ('a')", "SELECT 1", "CREATE TABLE u (x)"])
async def test_execute_returning_wants_rows(db: LocalClient, sql: str):
    """A statement without RETURNING, or one that only reads, is refused."""
    with pytest.raises(hiqlite.UsageError):
        await db.execute_returning(sql)
    assert await count(db) == 0


# --------------------------------------------------------------------------- batch


async def test_a_batch_tells_the_result_of_each_statement(db: LocalClient):
    """A failed statement does not undo earlier ones, and later ones run; a SELECT affects no row."""
    result = await db.batch(
        """INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2);
        -- a comment; with a semicolon
        INSERT INTO t VALUES (1, 'again', 1);
        SELECT * FROM t;
        INSERT INTO t VALUES (3, 'x;y', 3);"""
    )
    assert isinstance(result, BatchResult) and len(result) == 4
    assert [item.rows_affected for item in result if isinstance(item, ExecuteResult)] == [2, 0, 1]
    assert isinstance(result[1], hiqlite.ConstraintError) and result[1].statement_index == 1
    assert not result.ok and result.errors == [result[1]]
    with pytest.raises(hiqlite.ConstraintError):
        result.raise_for_error()
    assert await db.query("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
    await_nothing = await db.batch("-- nothing")
    assert len(await_nothing) == 0 and await_nothing.ok


async def test_a_syntax_error_ends_a_batch(db: LocalClient):
    """What ran before it stays, and its error is the last item."""
    text = "INSERT INTO t (id) VALUES (1); INSERT INTO nonsense nonsense; INSERT INTO t (id) VALUES (2)"
    result = await db.batch(text)
    assert [type(item).__name__ for item in result][:1] == ["ExecuteResult"]
    assert isinstance(result[-1], hiqlite.StatementError) and len(result) == 2
    assert await count(db) == 1


async def test_ddl_and_its_use_may_stand_in_one_batch(db: LocalClient):
    """Each statement sees the schema that the ones before it made."""
    result = await db.batch("CREATE TABLE u (x); INSERT INTO u VALUES (1); CREATE INDEX u_x ON u (x); DROP TABLE t")
    result.raise_for_error()
    assert await db.query("SELECT * FROM u") == [(1,)]


# --------------------------------------------------------------------------- request ids


async def test_a_request_id_makes_a_write_happen_once(db: LocalClient):
    """Each write call, sent twice: the second one gets the first one's answer."""
    insert = "INSERT INTO t (text) VALUES ('a')"

    def shown(result: Any) -> Any:
        return list(result) if isinstance(result, BatchResult) else result

    async def together(request_id: str) -> object:
        async with db.atomic(request_id=request_id) as t:
            made = t.execute(insert + " RETURNING id")
        return made.rows

    calls = {
        "execute": lambda r: db.execute(insert, request_id=r),
        "many": lambda r: db.execute_many("INSERT INTO t (text) VALUES (?)", [["a"], ["b"]], request_id=r),
        "returning": lambda r: db.execute_returning(insert + " RETURNING id", request_id=r),
        "one": lambda r: db.execute_returning_one(insert + " RETURNING id", request_id=r),
        "txn": lambda r: db.txn([(insert, ()), (insert, ())], request_id=r),
        "batch": lambda r: db.batch(insert + "; " + insert, request_id=r),
        "atomic": together,
    }
    for name, call in calls.items():
        first = await call(name)
        rows = await count(db)
        assert shown(await call(name)) == shown(first), name
        assert await count(db) == rows, name
    with pytest.raises(hiqlite.UsageError, match="request id 'execute'"):
        await db.execute("INSERT INTO t (text) VALUES ('b')", request_id="execute")


@pytest.mark.parametrize("request_id", ["", 7, b"x", "\ud800", "x" * 70_000])
async def test_a_request_id_that_is_none_is_refused(db: LocalClient, request_id: Any):
    insert = "INSERT INTO t (text) VALUES ('a')"
    for call in (db.execute(insert, request_id=request_id), db.migrate({"1_a.sql": insert}, request_id=request_id)):
        with pytest.raises(hiqlite.UsageError, match="request id") as caught:
            await call
        assert caught.value.outcome == "not_applied"
    assert await count(db) == 0


async def test_returning_text_that_is_not_utf8_is_bytes_with_into_and_harms_nobody_who_asked_for_no_rows(
    db: LocalClient,
):
    """As in `query`. The write has happened either way, and the error says so."""
    await db.execute("CREATE TABLE raw (id INTEGER PRIMARY KEY, x TEXT)")
    insert = "INSERT INTO raw (x) VALUES (CAST(x'ff' AS TEXT)) RETURNING x"
    assert await db.execute_returning(insert, into=lambda row: row[0]) == [b"\xff"]
    with pytest.raises(hiqlite.RowMappingError) as refused:
        await db.execute_returning(insert)
    assert refused.value.outcome == "applied"
    assert [result.rows_affected for result in await db.txn([(insert, ()), (insert, ())])] == [1, 1]
    assert (await db.batch(f"{insert}; {insert}")).ok
    assert await db.query_value("SELECT count(*) FROM raw") == 6
