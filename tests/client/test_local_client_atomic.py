"""Transactions as one entry: `txn` with references, the `atomic` builder, expectations."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import hiqlite
from hiqlite import ref
from hiqlite.client.local import LocalClient

SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE posts (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users (id), title TEXT);
CREATE TABLE acc (id INTEGER PRIMARY KEY, bal INTEGER NOT NULL);
INSERT INTO acc VALUES (1, 10), (2, 0);
"""


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LocalClient]:
    async with hiqlite.open(tmp_path / "data") as client:
        (await client.batch(SCHEMA)).raise_for_error()
        yield client


async def test_a_txn_is_one_entry_and_tells_each_result(db: LocalClient):
    """All statements share the log index."""
    results = await db.txn(
        [
            ("INSERT INTO users (name) VALUES (?)", ["a"]),
            ("UPDATE acc SET bal = bal + 1", ()),
            ("DELETE FROM posts", ()),
        ]
    )
    assert [result.rows_affected for result in results] == [1, 2, 0]
    assert len({result.log_index for result in results}) == 1


async def test_references_carry_values_of_an_earlier_returning(db: LocalClient):
    """By name or by number, in the list form and in the builder."""
    await db.txn(
        [
            ("INSERT INTO users (id, name) VALUES (7, 'eve') RETURNING id, name", ()),
            ("INSERT INTO posts (user_id, title) VALUES (?, ?)", [ref(0, "id"), ref(0, 1)]),
            ("INSERT INTO posts (user_id, title) VALUES (:u, :t)", {"u": ref(0, 0), "t": "second"}),
        ]
    )
    async with db.atomic() as t:
        user = t.execute("INSERT INTO users (name) VALUES (?) RETURNING id", ["bob"])
        t.execute("INSERT INTO posts (user_id, title) VALUES (?, ?)", [user["id"], "third"])
    assert user.rows == [(8,)] and user.result.rows_affected == 1
    assert await db.query("SELECT user_id, title FROM posts") == [(7, "eve"), (7, "second"), (8, "third")]


async def test_a_reference_to_several_rows_means_the_first(db: LocalClient):
    """As the contract says."""
    await db.txn(
        [
            ("INSERT INTO users (id, name) VALUES (3, 'x'), (4, 'y') RETURNING id", ()),
            ("INSERT INTO posts (user_id) VALUES (?)", [ref(0, "id")]),
        ]
    )
    assert await db.query_value("SELECT user_id FROM posts") == 3


async def test_a_reference_to_no_row_rolls_everything_back(db: LocalClient):
    """ExpectationFailed of the statement that refers, nothing of the entry remains."""
    with pytest.raises(hiqlite.ExpectationFailed) as caught:
        await db.txn(
            [
                ("INSERT INTO users (name) VALUES ('a')", ()),
                ("DELETE FROM users WHERE id = 99 RETURNING id", ()),
                ("INSERT INTO posts (user_id) VALUES (?)", [ref(1, "id")]),
            ]
        )
    assert caught.value.statement_index == 2 and caught.value.outcome == "not_applied"
    assert await db.query("SELECT * FROM users") == []


@pytest.mark.parametrize("reference", [ref(1, "id"), ref(2, "id"), ref(0, "nothing"), ref(0, 5)])
async def test_a_reference_to_nowhere_is_an_error_and_leaves_nothing(db: LocalClient, reference: object):
    """To itself, to a later statement, to a column that is not there."""
    with pytest.raises(hiqlite.HiqliteError) as caught:
        await db.txn(
            [
                ("INSERT INTO users (name) VALUES ('a') RETURNING id", ()),
                ("INSERT INTO posts (user_id) VALUES (?)", [reference]),
            ]
        )
    assert caught.value.outcome == "not_applied"
    assert await db.query("SELECT * FROM users") == []


async def test_a_reference_outside_of_a_transaction_is_refused(db: LocalClient):
    """There is no earlier statement to refer to."""
    with pytest.raises(hiqlite.UsageError):
        await db.execute("INSERT INTO users (name) VALUES (?)", [ref(0, "id")])
    assert await db.query("SELECT * FROM users") == []


async def test_an_unmet_expectation_rolls_everything_back(db: LocalClient):
    """Named by its statement; the transfer has not happened at all."""
    async with db.atomic() as t:
        t.execute("UPDATE acc SET bal = bal - 5 WHERE id = 1 AND bal >= 5").expect(rows=1)
        t.execute("UPDATE acc SET bal = bal + 5 WHERE id = 2").expect(rows=1)
    with pytest.raises(hiqlite.ExpectationFailed) as caught:
        async with db.atomic() as t:
            t.execute("UPDATE acc SET bal = bal + 6 WHERE id = 2")
            t.execute("UPDATE acc SET bal = bal - 6 WHERE id = 1 AND bal >= 6").expect(rows=1)
    assert caught.value.statement_index == 1 and caught.value.outcome == "not_applied"
    assert await db.query("SELECT bal FROM acc ORDER BY id") == [(5,), (5,)]


async def test_an_expectation_of_no_rows_is_an_expectation(db: LocalClient):
    """Zero is a number."""
    async with db.atomic() as t:
        t.execute("DELETE FROM acc WHERE id = 99").expect(rows=0)
    with pytest.raises(hiqlite.ExpectationFailed):
        async with db.atomic() as t:
            t.execute("DELETE FROM acc WHERE id = 1").expect(rows=0)
    assert await db.query_value("SELECT count(*) FROM acc") == 2


async def test_a_failing_statement_takes_the_others_with_it(db: LocalClient):
    """The error names its place; nothing of the transaction is there."""
    with pytest.raises(hiqlite.ConstraintError) as caught:
        await db.txn(
            [
                ("INSERT INTO users (name) VALUES ('a')", ()),
                ("INSERT INTO users (name) VALUES ('b')", ()),
                ("INSERT INTO users (name) VALUES ('a')", ()),
            ]
        )
    assert caught.value.statement_index == 2 and caught.value.extended_code == 2067
    assert await db.query("SELECT * FROM users") == []


async def test_a_deferred_foreign_key_is_checked_at_the_end_of_the_entry(db: LocalClient):
    """Met at the end it goes through; unmet, nothing remains."""
    await db.execute("CREATE TABLE late (u INTEGER REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED)")
    await db.txn([("INSERT INTO late VALUES (5)", ()), ("INSERT INTO users VALUES (5, 'five')", ())])
    with pytest.raises(hiqlite.ConstraintError):
        await db.txn([("INSERT INTO late VALUES (6)", ()), ("INSERT INTO users VALUES (7, 'seven')", ())])
    assert await db.query("SELECT u FROM late") == [(5,)]
    assert await db.query("SELECT id FROM users") == [(5,)]


async def test_a_block_that_raises_sends_nothing(db: LocalClient):
    """The caller's own error comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        async with db.atomic() as t:
            t.execute("INSERT INTO users (name) VALUES ('a')")
            raise ZeroDivisionError
    assert await db.query("SELECT * FROM users") == []


async def test_an_empty_block_sends_nothing(db: LocalClient):
    """And is no mistake; an empty list of statements is one."""
    before = (await db.metrics()).db.last_log_index
    async with db.atomic():
        pass
    assert (await db.metrics()).db.last_log_index == before
    with pytest.raises(hiqlite.UsageError):
        await db.txn([])


async def test_awaiting_a_statement_of_a_block_says_what_to_do(db: LocalClient):
    """UsageError that says so, no warning about something never awaited, and nothing is written."""
    with warnings.catch_warnings(), pytest.raises(hiqlite.UsageError, match="await") as caught:
        warnings.simplefilter("error")
        async with db.atomic() as t:
            await t.execute("INSERT INTO users (name) VALUES ('a')")  # type: ignore[misc]  # wrong on purpose
    assert "await" in caught.value.hint
    assert await db.query("SELECT * FROM users") == []


async def test_results_before_the_end_of_the_block_are_a_usage_error(db: LocalClient):
    """They do not exist yet; afterwards they do."""
    async with db.atomic() as t:
        statement = t.execute("INSERT INTO users (name) VALUES ('a') RETURNING id")
        with pytest.raises(hiqlite.UsageError):
            _ = statement.rows
        with pytest.raises(hiqlite.UsageError):
            _ = statement.result
    assert statement.rows == [(1,)] and statement.result.last_insert_rowid == 1


async def test_ddl_and_its_use_may_stand_in_one_transaction(db: LocalClient):
    """A later statement sees the schema of an earlier one; a failure takes the schema back too."""
    await db.txn([("CREATE TABLE u (x)", ()), ("INSERT INTO u VALUES (?)", [1])])
    assert await db.query("SELECT x FROM u") == [(1,)]
    with pytest.raises(hiqlite.SchemaError):
        await db.txn([("CREATE TABLE v (x)", ()), ("INSERT INTO v (y) VALUES (?)", [1])])
    with pytest.raises(hiqlite.SchemaError):
        await db.query("SELECT * FROM v")


@pytest.mark.parametrize(
    "statements, kind",
    [
        ([("SELECT 1", ())], hiqlite.UsageError),
        ([("INSERT INTO users (name) VALUES (?)", [])], hiqlite.ParameterError),
        ([("INSERT INTO users (name) VALUES ('a')", ()), ("INSERT INTO users (name) VALUES (?)", [1, 2])],
         hiqlite.ParameterError),
        ([("INSERT INTO users (name) VALUES ('a'); DELETE FROM users", ())], hiqlite.UsageError),
        ([("BEGIN", ())], hiqlite.StatementError),
        (["INSERT INTO users (name) VALUES ('a')"], hiqlite.UsageError),
        ([("INSERT INTO users (name) VALUES ('a')",)], hiqlite.UsageError),
        (5, hiqlite.UsageError),
    ],
)  # fmt: skip
async def test_a_wrong_list_of_statements_is_one_clear_error(
    db: LocalClient, statements: object, kind: type[hiqlite.HiqliteError]
):
    """Refused as a whole, before anything is replicated."""
    before = (await db.metrics()).db.last_log_index
    with pytest.raises(kind) as caught:
        await db.txn(statements)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.outcome == "not_applied"
    assert (await db.metrics()).db.last_log_index == before


async def test_a_transaction_of_many_statements_goes_through(db: LocalClient):
    """2 500 statements with the same text and their own parameters."""
    results = await db.txn([("INSERT INTO users (id, name) VALUES (?, ?)", [n, f"user {n}"]) for n in range(2500)])
    assert len(results) == 2500
    assert await db.query_value("SELECT count(*) FROM users") == 2500


async def test_after_its_block_a_statement_gives_values_and_another_block_takes_no_reference_to_it(db: LocalClient):
    """A number of a statement means nothing in another block: it would name whatever stands there."""
    async with db.atomic() as first:
        eve = first.execute("INSERT INTO users (id, name) VALUES (?, ?) RETURNING id", [100, "eve"])
        leaked = eve["id"]
    assert eve["id"] == 100 and eve[0] == 100
    async with db.atomic() as second:
        second.execute("INSERT INTO users (id, name) VALUES (?, ?) RETURNING id", [200, "bob"])
        with pytest.raises(hiqlite.UsageError, match="another block"):
            second.execute("INSERT INTO posts (user_id) VALUES (?)", [leaked])
        with pytest.raises(hiqlite.UsageError, match="another block"):
            second.execute("INSERT INTO posts (user_id) VALUES (:u)", {"u": leaked})
        second.execute("INSERT INTO posts (user_id) VALUES (?)", [eve["id"]])
    assert await db.query_value("SELECT user_id FROM posts") == 100
    async with db.atomic() as third:
        nobody = third.execute("UPDATE users SET name = name WHERE id = 0 RETURNING id")
    with pytest.raises(hiqlite.UsageError, match="no row"):
        nobody["id"]


async def test_a_block_sends_parameters_as_they_were_given(db: LocalClient):
    """Lists and mappings may be used again by the caller at once."""
    row, named = ["a"], {"name": "c"}
    async with db.atomic() as t:
        t.execute("INSERT INTO users (name) VALUES (?)", row)
        row[0] = "b"
        t.execute("INSERT INTO users (name) VALUES (?)", row)
        t.execute("INSERT INTO users (name) VALUES (:name)", named)
        named["name"] = "d"
    assert await db.query("SELECT name FROM users ORDER BY id") == [("a",), ("b",), ("c",)]
