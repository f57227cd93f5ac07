"""What a caller is told of a mistake, or of a statement that cannot be: the same through the leader and a follower."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

import hiqlite
from hiqlite import errors, ref
from hiqlite.client.local import LocalClient
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, same_index

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
CREATE TABLE one (id INTEGER PRIMARY KEY, k UNIQUE);
CREATE TABLE many (x);
INSERT INTO one VALUES (1, 'there');
INSERT INTO many VALUES (1), (2);
CREATE TRIGGER raises AFTER INSERT ON one WHEN new.k = 'raise' BEGIN SELECT RAISE(ABORT, 'not that one'); END;
"""
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
INSERT = "INSERT INTO one (k) VALUES (?)"
SECONDS = re.compile(r"\b[0-9.]+ s\b")  # what was left of a timeout
MIGRATION = f"CREATE TABLE two AS {ENDLESS} SELECT i FROM n"
NOTHING = "DELETE FROM one WHERE id = 77 RETURNING id"
ALL = "UPDATE many SET x = x + 0 RETURNING x"
LARGE = "INSERT INTO many VALUES (zeroblob(100000)) RETURNING x"


@dataclass
class Other:
    """A class that no row of `one` fits."""

    nowhere: int


@dataclass(frozen=True, slots=True)
class Case:
    kind: type[errors.HiqliteError]
    call: Callable[[LocalClient], Awaitable[Any]]
    outcome: errors.Outcome | None = "not_applied"
    remains: bool = False  # whether the content is another one afterwards


async def twice(db: LocalClient) -> None:
    """Its answer was too large to be kept for whoever asks a second time."""
    for _ in range(2):
        await db.execute_returning(LARGE, request_id="large")


async def unmet(db: LocalClient) -> None:
    async with db.atomic() as block:
        block.execute(INSERT, ("new",))
        block.execute("UPDATE one SET k = 'y' WHERE id = 77").expect(rows=1)


async def drained(db: LocalClient, sql: str) -> None:
    async for _ in db.query_iter(sql):
        pass


def writes(kind: type[errors.HiqliteError], sql: str, *params: Any) -> list[Case]:
    """The same mistake in every kind of write; `batch` tells it as a result (see `test_a_batch_tells...`)."""
    return [
        Case(kind, lambda db: db.execute(sql, params)),
        Case(kind, lambda db: db.execute_many(sql, [params])),
        Case(kind, lambda db: db.execute_returning(f"{sql} RETURNING *", params)),
        Case(kind, lambda db: db.txn([(INSERT, ("first",)), (sql, params)])),
    ]


def reads(kind: type[errors.HiqliteError], sql: str, *params: Any, **options: Any) -> list[Case]:
    return [
        Case(kind, lambda db: db.query(sql, params, **options), outcome=None),
        Case(kind, lambda db: db.query(sql, params, consistency="linearizable", **options), outcome=None),
    ]


CASES = [
    *writes(errors.ConstraintError, INSERT, "there"),
    *writes(errors.ConstraintError, INSERT, "raise"),
    *writes(errors.StatementError, "INSERT INTO many SELECT abs(-9223372036854775807 - 1)"),
    *writes(errors.SchemaError, "INSERT INTO nowhere VALUES (1)"),
    *writes(errors.ParameterError, "INSERT INTO one (k) VALUES (?)"),
    *writes(errors.DeterminismError, "INSERT INTO many VALUES (datetime('now', 'localtime'))"),
    *writes(errors.StatementTimeout, f"INSERT INTO many {ENDLESS} SELECT i FROM n"),
    *writes(errors.StatementError, "BEGIN"),
    Case(errors.UsageError, lambda db: db.execute(INSERT, ("new",), request_id="")),
    Case(errors.ParameterError, lambda db: db.txn([(INSERT, (ref(3, "id"),))])),
    Case(errors.RowNotFound, lambda db: db.execute_returning_one(NOTHING), "applied"),
    Case(errors.TooManyRows, lambda db: db.execute_returning_one(ALL), "applied"),
    Case(errors.RowMappingError, lambda db: db.execute_returning(ALL, into=Other), "applied"),
    Case(errors.ExpectationFailed, unmet),
    Case(errors.MigrationError, lambda db: db.migrate({"1_wrong.sql": "CREATE TABLE two (x); DELETE FROM nowhere"})),
    Case(errors.StatementTimeout, lambda db: db.migrate({"1_endless.sql": MIGRATION}, timeout=0.5)),
    Case(errors.AnswerNotKept, twice, "applied", remains=True),
    *reads(errors.SchemaError, "SELECT * FROM nowhere"),
    *reads(errors.StatementError, "SELECT abs(-9223372036854775807 - 1)"),
    *reads(errors.ParameterError, "SELECT ?"),
    *reads(errors.RowMappingError, "SELECT k FROM one", into=Other),
    *reads(errors.RequestTimeout, f"{ENDLESS} SELECT count(*) FROM n", timeout=0.2),
    *reads(errors.UsageError, "DELETE FROM one"),
    *reads(errors.UsageError, "SELECT 1", timeout="soon"),
    Case(errors.UsageError, lambda db: db.query("SELECT 1", consistency="soon"), None),  # type: ignore[arg-type]
    Case(errors.RowNotFound, lambda db: db.query_one("SELECT k FROM one WHERE id = 77"), None),
    Case(errors.TooManyRows, lambda db: db.query_one("SELECT x FROM many"), None),
    Case(errors.SchemaError, lambda db: drained(db, "SELECT * FROM nowhere"), None),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster(3, cache=False, statement_timeout=0.2, wal_size="8 MiB") as running:
        (await running.client.batch(SCHEMA)).raise_for_error()
        await same_index(list(running.nodes.values()))  # a follower's own reads know the schema, too
        yield running
        await check_equal(running)  # nobody was harmed by whichever of these were run


async def told(db: LocalClient, case: Case) -> dict[str, Any]:
    with pytest.raises(errors.HiqliteError) as caught:
        await case.call(db)
    assert type(caught.value) is case.kind, repr(caught.value)
    assert caught.value.outcome == case.outcome
    told = caught.value.to_wire()
    return {**told, "message": SECONDS.sub("? s", told["message"])}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind.__name__)
async def test_leader_and_follower_tell_the_same(three: Cluster, case: Case) -> None:
    """Type, outcome, message, hint and details; what was said to be not applied left nothing."""
    await three.wait_until(three.settled)
    before = await three.client.content_hash()
    by_leader = await told(three.client, case)
    by_follower = await told(three.nodes[three.followers[0]], case)
    assert by_follower == by_leader
    assert case.remains or await three.client.content_hash() == before


async def test_a_batch_tells_the_same_as_a_result(three: Cluster) -> None:
    """Of each statement, through leader and follower; the ones before stay."""
    text = "SELECT 1; INSERT INTO one (k) VALUES ('there'); INSERT INTO nowhere VALUES (1)"
    results = [await db.batch(text) for db in (three.client, three.nodes[three.followers[0]])]
    kinds = [[type(one) for one in result if isinstance(one, Exception)] for result in results]
    assert kinds[0] == kinds[1] and errors.ConstraintError in kinds[0]


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_closed_node_says_so(role: str) -> None:
    """ShuttingDown, for what was under way and for what comes later; a write under way tells what is known of it."""
    async with cluster(3, cache=False, wal_size="8 MiB") as three:
        await three.client.execute("CREATE TABLE t (x)")
        number = three.leader if role == "leader" else three.followers[0]
        db = three.nodes[number]
        under_way = [db.execute("INSERT INTO t VALUES (?)", (n,)) for n in range(100)]
        await three.stop(number)
        for one in under_way:
            try:
                assert (await one).rows_affected == 1
            except hiqlite.ShuttingDown as error:
                assert error.outcome in ("not_applied", "unknown")
        for call in (lambda: db.execute("INSERT INTO t VALUES (0)"), lambda: db.query("SELECT 1")):
            with pytest.raises(hiqlite.ShuttingDown):
                await call()
        await three.start(number)
        await check_equal(three)
