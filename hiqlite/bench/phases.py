"""The phases of the bench: what is run against an open node, and what is measured.

Uses the public client only, so that it measures what a user gets. Rates are operations per second of the whole phase;
latencies are those of single awaited calls, in microseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from hiqlite.client.base import Client

TABLE = "_bench"
CREATE = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (id INTEGER NOT NULL CONSTRAINT test_pk PRIMARY KEY, "
    "ts INTEGER NOT NULL, name TEXT NOT NULL)"
)
INSERT = f"INSERT INTO {TABLE} (id, ts, name) VALUES ($1, $2, $3)"
SELECT = f"SELECT * FROM {TABLE} WHERE id = $1"
SCAN = f"SELECT * FROM {TABLE}"
RETURNING = f"{INSERT} RETURNING id"
INDEX = f"{TABLE}_name"
UPDATE = f"UPDATE {TABLE} SET ts = ts + 1 WHERE name = $1"
ANALYSIS = f"SELECT sum(length(a.name || b.name || c.name)) FROM {TABLE} a, {TABLE} b, {TABLE} c"
ANALYSIS_S = 0.2  # until it is well under way
TIMESTAMP = 1_700_000_000
LONG_S = 600.0
FILLED_AT_ONCE = 25_000
BURST = 20_000  # reads
BURSTS = 10  # beside a query, one a second


@dataclass(slots=True)
class Measured:
    """One run of one phase: `n` operations took `seconds`."""

    n: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float

    def wire(self) -> dict[str, Any]:
        return {**asdict(self), "ops_per_s": round(self.n / self.seconds, 1)}


def measured(n: int, seconds: float, latencies_ns: list[int]) -> Measured:
    latencies_ns.sort()

    def at(share: float) -> float:
        return round(latencies_ns[min(len(latencies_ns) - 1, int(len(latencies_ns) * share))] / 1e3, 1)

    return Measured(n, seconds, at(0.5), at(0.99), at(0.999), at(1.0))


def row(key: int) -> tuple[int, int, str]:
    return (key, TIMESTAMP, f"Name {key}")


async def run_tasks(tasks: int, work: Callable[[int], Coroutine[Any, Any, None]]) -> float:
    """Seconds that `tasks` closed-loop tasks took together."""
    start = time.perf_counter()
    await asyncio.gather(*(asyncio.ensure_future(work(number)) for number in range(tasks)))
    return time.perf_counter() - start


async def prepare(db: Client) -> None:
    """An empty table, on this client's view at least."""
    await db.execute(CREATE)
    await db.execute(f"DELETE FROM {TABLE}", timeout=LONG_S)


async def writes(call: Callable[[int], Awaitable[Any]], tasks: int, rows: int, first: int = 0) -> Measured:
    """Single writes by `tasks` closed-loop tasks, each in a key range of its own; the keys begin at `first`."""
    share = rows // tasks
    latencies: list[int] = []
    clock = time.perf_counter_ns

    async def work(number: int) -> None:
        note = latencies.append
        for key in range(first + number * share, first + (number + 1) * share):
            start = clock()
            await call(key)
            note(clock() - start)

    seconds = await run_tasks(tasks, work)
    return measured(share * tasks, seconds, latencies)


async def insert(db: Client, tasks: int, rows: int, first: int = 0) -> Measured:
    return await writes(lambda key: db.execute(INSERT, row(key)), tasks, rows, first)


async def fill(db: Client, start: int, end: int) -> None:
    """Rows of these keys, in transactions."""
    for first in range(start, end, FILLED_AT_ONCE):
        keys = range(first, min(first + FILLED_AT_ONCE, end))
        await db.txn([(INSERT, row(key)) for key in keys], timeout=LONG_S)


async def insert_returning(db: Client, tasks: int, rows: int) -> Measured:
    """INSERTs that give back their key."""
    return await writes(lambda key: db.execute_returning(RETURNING, row(key)), tasks, rows)


async def update(db: Client, tasks: int, rows: int) -> Measured:
    """UPDATEs of single rows that an index finds: the text does not say how many they are."""
    await db.txn([(INSERT, row(key)) for key in range(rows // tasks * tasks)], timeout=LONG_S)
    await db.execute(f"CREATE INDEX {INDEX} ON {TABLE} (name)", timeout=LONG_S)
    result = await writes(lambda key: db.execute(UPDATE, (f"Name {key}",)), tasks, rows)
    await db.execute(f"DROP INDEX {INDEX}", timeout=LONG_S)
    return result


async def txn(db: Client, tasks: int, rows: int) -> Measured:
    """`rows` INSERTs in `tasks` giant transactions; the rate counts rows."""
    share = rows // tasks
    latencies: list[int] = []

    async def work(number: int) -> None:
        statements = [(INSERT, row(key)) for key in range(number * share, (number + 1) * share)]
        start = time.perf_counter_ns()
        results = await db.txn(statements, timeout=LONG_S)
        latencies.append(time.perf_counter_ns() - start)
        if len(results) != share:
            raise AssertionError("a transaction lost statements")

    seconds = await run_tasks(tasks, work)
    return measured(share * tasks, seconds, latencies)


async def burst(
    call: Callable[[int], Awaitable[Any]], tasks: int, rows: int, count: int
) -> tuple[float, list[int]]:
    """`count` single-row SELECTs by random keys, `tasks` at a time: seconds, and what each took."""
    latencies: list[int] = []
    clock = time.perf_counter_ns

    async def work(number: int) -> None:
        keys = random.Random(number)
        for _ in range(count // tasks):
            key = keys.randrange(rows // tasks * tasks)  # what the write phases leave
            start = clock()
            found = await call(key)
            latencies.append(clock() - start)
            if found[0][0] != key:
                raise AssertionError("a read returned another row")

    return await run_tasks(tasks, work), latencies


async def reads(call: Callable[[int], Awaitable[Any]], tasks: int, rows: int, count: int) -> Measured:
    seconds, latencies = await burst(call, tasks, rows, count)
    return measured(len(latencies), seconds, latencies)


async def select(db: Client, tasks: int, rows: int) -> Measured:
    return await reads(lambda key: db.query(SELECT, (key,)), tasks, rows, min(rows, BURST))


async def select_cold(db: Client, tasks: int, rows: int) -> Measured:
    """Of a text that was never seen: it is looked at, prepared, and forgotten."""
    numbers = itertools.count(time.monotonic_ns())  # of later rounds, too
    return await reads(lambda key: db.query(f"{SELECT} -- {next(numbers)}", (key,)), tasks, rows, min(rows, BURST))


async def select_linearizable(db: Client, tasks: int, rows: int) -> Measured:
    return await reads(
        lambda key: db.query(SELECT, (key,), consistency="linearizable"), tasks, rows, min(rows, 50 * 64 * tasks)
    )


async def select_during_insert(db: Client, tasks: int, rows: int) -> Measured:
    """Single-row SELECTs of one reader while `tasks` tasks insert; latencies are those of the reads."""
    writing = asyncio.ensure_future(insert(db, tasks, rows))
    latencies: list[int] = []
    clock, begin = time.perf_counter_ns, time.perf_counter()
    key = 0
    while not writing.done():
        start = clock()
        await db.query(SELECT, (key,))
        latencies.append(clock() - start)
        key = (key + 1) % (rows // tasks)
        await asyncio.sleep(0.0005)
    await writing
    return measured(len(latencies), time.perf_counter() - begin, latencies)


async def loop_gaps(reading: Coroutine[Any, Any, Any]) -> Measured:
    """What a read does to the loop: latencies are the gaps between two turns of it until the read is done."""
    gaps: list[int] = []
    task = asyncio.ensure_future(reading)
    clock, begin = time.perf_counter_ns, time.perf_counter()
    last = clock()
    while not task.done():
        await asyncio.sleep(0)
        now = clock()
        gaps.append(now - last)
        last = now
    await task
    return measured(1, time.perf_counter() - begin, gaps)


async def long_select(db: Client, tasks: int, rows: int) -> Measured:
    """A SELECT that takes long and gives one row."""
    return await loop_gaps(
        db.query(f"SELECT count(*) FROM {TABLE} a, (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3) b "
                 "WHERE a.name LIKE '%99%'", timeout=LONG_S)
    )  # fmt: skip


async def long_rows(db: Client, tasks: int, rows: int) -> Measured:
    """A SELECT whose many rows are made into objects."""
    return await loop_gaps(db.query(SCAN, timeout=LONG_S))


@asynccontextmanager
async def analysis(db: Client) -> AsyncIterator[None]:
    """A query over triples of rows that outlasts whatever is measured beside it; a core is busy with it."""
    analysing = asyncio.ensure_future(db.query(ANALYSIS, timeout=LONG_S))
    await asyncio.sleep(ANALYSIS_S)
    try:
        yield
        if analysing.done():
            raise AssertionError("the analysis ended before what was measured beside it")
    finally:
        analysing.cancel()
        await asyncio.gather(analysing, return_exceptions=True)


async def select_beside_analysis(db: Client, tasks: int, rows: int) -> Measured:
    """A burst in each of the ten seconds (of fewer, below 100 000 rows) that the query is at work."""
    seconds, latencies = 0.0, []
    async with analysis(db):
        for number in range(max(1, min(BURSTS, rows // 10_000))):
            await asyncio.sleep(min(number, 1))
            taken, found = await burst(lambda key: db.query(SELECT, (key,)), tasks, rows, min(rows, BURST))
            seconds += taken
            latencies += found
    return measured(len(latencies), seconds, latencies)


async def insert_beside_analysis(db: Client, tasks: int, rows: int) -> Measured:
    """The query reads what was there before."""
    await db.txn([(INSERT, row(key)) for key in range(rows, 2 * rows)], timeout=LONG_S)
    async with analysis(db):
        return await insert(db, tasks, rows)


async def scan(db: Client, tasks: int, rows: int) -> Measured:
    """The whole table; the rate counts rows."""
    start = time.perf_counter_ns()
    found = await db.query(SCAN, timeout=LONG_S)
    taken = time.perf_counter_ns() - start
    return measured(len(found), taken / 1e9, [taken])


WRITES: dict[str, Callable[[Client, int, int], Coroutine[Any, Any, Measured]]] = {"insert": insert, "txn": txn}
READS: dict[str, Callable[[Client, int, int], Coroutine[Any, Any, Measured]]] = {
    "select_cold": select_cold,
    "select": select,
    "scan": scan,
    "select_linearizable": select_linearizable,
    "select_linearizable_follower": select_linearizable,
    "long_select": long_select,
    "long_rows": long_rows,
    "select_beside_analysis": select_beside_analysis,
}
# Phases that begin with an empty table and end with equal nodes.
WRITES |= {
    "insert_follower": insert,
    "insert_returning": insert_returning,
    "update": update,
    "select_during_insert": select_during_insert,
    "insert_beside_analysis": insert_beside_analysis,
}
PHASES = {**WRITES, **READS}
ON_FOLLOWER = "_follower"  # what the names of phases end with that run there
