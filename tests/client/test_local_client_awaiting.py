"""Every way of awaiting a write and a read, on the standard loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

import hiqlite
from hiqlite.client.local import LocalClient
from tests.cluster.traces import Traces

INSERT = "INSERT INTO t (id) VALUES (?)"
Work = Callable[[LocalClient], Coroutine[Any, Any, None]]
Run = Callable[[Work], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs work with a node on each kind of loop; whatever the loop itself complains about fails the test."""

    def go(work: Work) -> None:
        complaints: list[dict[str, Any]] = []

        async def around() -> None:
            async with hiqlite.open(tmp_path / "warm"):
                pass
            before = Traces()
            async with hiqlite.open(tmp_path / "data") as db:
                await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
                await work(db)
            del db
            await before.gone()

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            runner.run(around())
            gc.collect()  # a future whose error nobody took complains only when it is collected
        assert complaints == []

    return go


async def ids(db: LocalClient) -> list[int]:
    """What is there, after everything that was issued before."""
    return [row[0] for row in await db.query("SELECT id FROM t ORDER BY id", consistency="linearizable")]


async def settled(db: LocalClient) -> list[int]:
    """What is there once a later write has been applied: earlier ones of this client are applied by then."""
    await db.execute("DELETE FROM t WHERE id = -1")
    return await ids(db)


def test_writes_can_be_awaited_in_every_way(run: Run) -> None:
    """await, gather, create_task, ensure_future, TaskGroup, wait_for, shield, wait, as_completed, asyncio.timeout."""

    async def work(db: LocalClient) -> None:
        assert (await db.execute(INSERT, [1])).last_insert_rowid == 1
        results = await asyncio.gather(db.execute(INSERT, [2]), db.execute(INSERT, [3]), db.batch("SELECT 1"))
        assert [result.last_insert_rowid for result in results[:2]] == [2, 3]
        assert (await asyncio.create_task(db.execute(INSERT, [4]))).last_insert_rowid == 4
        assert (await asyncio.ensure_future(db.execute(INSERT, [5]))).last_insert_rowid == 5
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(db.execute(INSERT, [n])) for n in (6, 7)]
        assert [task.result().last_insert_rowid for task in tasks] == [6, 7]
        assert (await asyncio.wait_for(db.execute(INSERT, [8]), 10)).last_insert_rowid == 8
        assert (await asyncio.shield(db.execute(INSERT, [9]))).last_insert_rowid == 9
        done, pending = await asyncio.wait([asyncio.create_task(db.execute(INSERT, [10]))])
        assert len(done) == 1 and not pending
        for next_one in asyncio.as_completed([db.execute(INSERT, [11]), db.execute(INSERT, [12])]):
            await next_one
        async with asyncio.timeout(10):
            await db.execute(INSERT, [13])
        assert await ids(db) == list(range(1, 14))

    run(work)


def test_errors_arrive_in_every_way(run: Run) -> None:
    """The exception of the statement itself, never one about its future."""

    async def work(db: LocalClient) -> None:
        await db.execute(INSERT, [1])
        with pytest.raises(hiqlite.ConstraintError):
            await db.execute(INSERT, [1])
        for wrapped in (asyncio.create_task, asyncio.ensure_future, asyncio.shield):
            with pytest.raises(hiqlite.ConstraintError):
                await wrapped(db.execute(INSERT, [1]))  # type: ignore[operator]
        with pytest.raises(hiqlite.ConstraintError):
            await asyncio.wait_for(db.execute(INSERT, [1]), 10)
        ends = await asyncio.gather(db.execute(INSERT, [1]), db.execute(INSERT, [2]), return_exceptions=True)
        assert isinstance(ends[0], hiqlite.ConstraintError) and ends[1].last_insert_rowid == 2  # type: ignore[union-attr]
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(db.execute(INSERT, [1]))
        assert isinstance(caught.value.exceptions[0], hiqlite.ConstraintError)

    run(work)


def test_a_write_can_be_awaited_twice_and_late(run: Run) -> None:
    """Like a future: the same result, or the same error, each time."""

    async def work(db: LocalClient) -> None:
        good, bad = db.execute(INSERT, [1]), db.execute("INSERT INTO nowhere VALUES (1)")
        await settled(db)
        assert await good == await good
        for _ in range(2):
            with pytest.raises(hiqlite.SchemaError):
                await bad

    run(work)


def test_a_write_that_nobody_awaits_happens(run: Run) -> None:
    """Fire and forget is allowed, in order, without a complaint from the loop."""

    async def work(db: LocalClient) -> None:
        for number in range(50):
            db.execute(INSERT, [number])
        assert await settled(db) == list(range(50))

    run(work)


def test_many_tasks_write_in_their_order(run: Run) -> None:
    """Closed loops: each task's indexes ascend, every result belongs to its own statement."""

    async def work(db: LocalClient) -> None:
        async def one(task: int) -> None:
            last = 0
            for step in range(50):
                result = await db.execute(INSERT, [task * 1000 + step])
                assert result.last_insert_rowid == task * 1000 + step and result.log_index > last
                last = result.log_index

        await asyncio.gather(*(one(task) for task in range(20)))
        assert len(await ids(db)) == 1000

    run(work)


def test_writes_of_one_client_keep_their_order(run: Run) -> None:
    """Issued without awaiting, of different kinds: the log has them in the order of the calls."""

    async def work(db: LocalClient) -> None:
        writes = [
            db.execute(INSERT, [1]),
            db.execute_many(INSERT, [[2], [3]]),
            db.execute_returning("UPDATE t SET id = id + 10 RETURNING id"),
            db.execute(INSERT, [1]),
            db.batch("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (99)"),
            asyncio.ensure_future(db.txn([(INSERT, [100])])),
        ]
        results = await asyncio.gather(*writes)
        assert [row[0] for row in results[2]] == [11, 12, 13]
        assert await ids(db) == [11, 12, 13, 99, 100]

    run(work)


def test_cancelling_an_await_leaves_the_client_whole(run: Run) -> None:
    """The caller stops waiting, the write goes its way, and everybody else is served."""

    async def work(db: LocalClient) -> None:
        tasks = [asyncio.create_task(db.execute(INSERT, [number])) for number in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends[::2])
        assert all(end.last_insert_rowid == number for number, end in enumerate(ends) if number % 2)  # type: ignore[union-attr]
        there = await settled(db)
        assert set(range(1, 100, 2)) <= set(there) <= set(range(100))

    run(work)


@pytest.mark.parametrize("turns", range(6))
def test_every_call_may_be_cancelled_after_any_number_of_turns(run: Run, turns: int) -> None:
    """What was cancelled has happened as a whole or not at all; the next call works."""

    async def work(db: LocalClient) -> None:
        async def atomic() -> None:
            async with db.atomic() as t:
                t.execute(INSERT, [10])
                t.execute(INSERT, [11])

        async def stream() -> None:
            async for _ in db.query_iter("SELECT * FROM t", consistency="linearizable"):
                pass

        calls: list[Callable[[], Any]] = [
            lambda: db.execute(INSERT, [1]),
            lambda: db.execute_many(INSERT, [[2], [3]]),
            lambda: db.execute_returning(INSERT + " RETURNING id", [4]),
            lambda: db.execute_returning_one(INSERT + " RETURNING id", [5]),
            lambda: db.txn([(INSERT, [6]), (INSERT, [7])]),
            lambda: db.batch("INSERT INTO t VALUES (8); INSERT INTO t VALUES (9)"),
            atomic,
            lambda: db.migrate({"1_m.sql": "CREATE TABLE m (x); INSERT INTO m VALUES (1)"}),
            lambda: db.query("SELECT * FROM t", consistency="linearizable"),
            lambda: db.query("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"),
            lambda: db.query_value("SELECT count(*) FROM t"),
            stream,
        ]
        for call in calls:
            task = asyncio.create_task(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            end = (await asyncio.gather(task, return_exceptions=True))[0]
            assert isinstance(end, asyncio.CancelledError) or not isinstance(end, BaseException), end
        there = set(await settled(db))
        for whole in ({1}, {2, 3}, {4}, {5}, {6, 7}, {8, 9}, {10, 11}):
            assert there & whole in (set(), whole)
        report = await db.migrate({"1_m.sql": "CREATE TABLE m (x); INSERT INTO m VALUES (1)"})
        assert report.applied + report.already_applied == [1]
        assert await db.query_value("SELECT count(*) FROM m") == 1

    run(work)


def test_waiting_no_longer_than_asked(run: Run) -> None:
    """`wait_for` and `asyncio.timeout` end the waiting, not the write; the client goes on."""

    async def work(db: LocalClient) -> None:
        answered = []
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(db.execute("INSERT INTO t DEFAULT VALUES"), 0)
            with contextlib.suppress(TimeoutError):  # its timer is for the next turn: an answer may come first
                async with asyncio.timeout(0):
                    answered.append((await db.execute("INSERT INTO t DEFAULT VALUES")).rows_affected)
        assert answered == [1] * len(answered)
        assert len(answered) < 20
        assert await settled(db) == list(range(1, 41))

    run(work)


@pytest.mark.parametrize("timeout", ["1", float("nan"), -1, float("inf"), [], 1e30])
def test_a_timeout_that_is_none_is_a_usage_error(run: Run, timeout: Any) -> None:
    """For writes and reads alike; nothing is written."""

    async def work(db: LocalClient) -> None:
        for call in (
            lambda: db.execute(INSERT, [1], timeout=timeout),
            lambda: db.execute_many(INSERT, [[1]], timeout=timeout),
            lambda: db.batch("INSERT INTO t VALUES (1)", timeout=timeout),
            lambda: db.txn([(INSERT, [1])], timeout=timeout),
            lambda: db.migrate({"1_m.sql": "CREATE TABLE m (x)"}, timeout=timeout),
            lambda: db.query("SELECT 1", consistency="linearizable", timeout=timeout),
            lambda: db.query("SELECT count(*) FROM t, t AS u, t AS v, t AS w", timeout=timeout),
        ):
            with pytest.raises(hiqlite.UsageError, match="timeout"):
                await call()  # type: ignore[no-untyped-call]
        assert await settled(db) == []

    run(work)


def test_a_timeout_of_zero_is_over_at_once_or_not_needed(run: Run) -> None:
    """The write ends with its result or with RequestTimeout, never anything else."""

    async def work(db: LocalClient) -> None:
        ends = await asyncio.gather(*(db.execute(INSERT, [n], timeout=0) for n in range(10)), return_exceptions=True)
        assert all(not isinstance(end, BaseException) or isinstance(end, hiqlite.RequestTimeout) for end in ends)

    run(work)
