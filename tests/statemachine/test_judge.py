"""What the leader proposes without a trial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest
from apply_harness import batch, execute, execute_many, migration, txn

from hiqlite._accel.apply import TRIAL_WRITES_MAX
from hiqlite._accel.records import header
from hiqlite.engine.ports import Cost, Verdict
from hiqlite.errors import (
    DiskFull,
    HiqliteError,
    Overloaded,
    RequestTimeout,
    ShuttingDown,
    StatementTimeout,
    StorageError,
)
from hiqlite.statemachine.connection import open_inspector, open_writer
from hiqlite.statemachine.inspector import Inspector
from hiqlite.statemachine.judge import DATA_BYTES_MAX, QUICK_NS, QUICK_RUNS, STATEMENTS_MAX, Judge

SECOND = 10**9
WALL_NS = 1_700_000_000 * SECOND
CHEAP, CHANGES_SCHEMA, UNKNOWN = Cost.CHEAP, Cost.CHANGES_SCHEMA, Cost.UNKNOWN
BY_INDEX = "UPDATE t SET c = c + 1 WHERE b = ?"


@dataclass
class Ended:
    spent_ns: list[int]
    changes_schema: bool = False
    late: bool = False
    given_up: bool = False
    out_of_disk: bool = False
    out_of_memory: bool = False
    failure: tuple[int, str] | None = None


@dataclass
class Run:
    changed_schema: bool = False
    slow_texts: tuple[str, ...] = ()


class World:
    """A judge over a real database; trials are as the test says."""

    def __init__(self, path: Path) -> None:
        self.writer = open_writer(path)
        self.writer.execute(
            "CREATE TABLE t (a INTEGER PRIMARY KEY, b, c); CREATE INDEX t_b ON t (b);"
            "CREATE VIRTUAL TABLE ft USING fts5 (x);"
            "CREATE TABLE watched (x);"
            "CREATE TRIGGER w AFTER INSERT ON watched BEGIN DELETE FROM t WHERE c = new.x; END"
        ).fetchall()
        self.inspecting = open_inspector(path)
        self.ended = Ended([0])
        self.tried: list[list[bytes]] = []
        self.limits: list[int] = []
        self.now_ns = 100 * SECOND
        self.judge = Judge(
            Inspector(self.inspecting), self.try_out, lambda: self.now_ns, lambda: WALL_NS,
            statement_timeout_s=5, migration_timeout_s=600, request_timeout_s=10,
        )  # fmt: skip

    async def try_out(self, records: list[bytes], limits_ns: list[int]) -> Any:
        self.tried.append(records)
        self.limits += limits_ns
        return self.ended

    async def quick(self, record: bytes, times: int = QUICK_RUNS, spent_ns: int = 0) -> None:
        self.ended = Ended([spent_ns])
        for _ in range(times):
            assert len((await self.judge.try_out([record], [0])).passed) == 1


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "db")
    yield made
    made.inspecting.close()
    made.writer.close()


@pytest.mark.parametrize(
    ("record", "cost"),
    [
        (execute("INSERT INTO t VALUES (?, ?, ?)", [1, 2, 3]), CHEAP),
        (execute("INSERT INTO t VALUES (?, ?, ?) RETURNING a", [1, 2, 3], rows=True), CHEAP),
        (execute("INSERT INTO t (b) VALUES (?)", [b"x" * (2 << 20)]), UNKNOWN),
        (execute_many("INSERT INTO t (b) VALUES (?)", [[b"x" * 1000] for _ in range(2000)]), CHEAP),
        (execute_many("INSERT INTO t (b) VALUES (?)", [[b"x" * (2 << 20)], *[[b"x"]] * 99]), UNKNOWN),
        (execute_many("DELETE FROM t WHERE a = ?", [[n] for n in range(STATEMENTS_MAX + 1)]), UNKNOWN),
        (execute_many("DELETE FROM t WHERE a = ?", [[1], [2]]), CHEAP),
        (txn("INSERT INTO t (b) VALUES (1)", "SELECT c FROM t WHERE a = 1"), CHEAP),
        (txn("INSERT INTO t (b) VALUES (1)", "SELECT count(*) FROM t"), UNKNOWN),
        (execute(BY_INDEX, [1]), UNKNOWN),
        (execute("DELETE FROM t"), UNKNOWN),
        (execute("INSERT INTO ft VALUES (?)", ["a"]), UNKNOWN),
        (execute("CREATE TABLE n (x)"), UNKNOWN),
        (execute("CREATE UNIQUE INDEX i ON t (c)"), CHANGES_SCHEMA),
        (execute("CREATE INDEX i ON t (c, b DESC) WHERE c > 5"), CHANGES_SCHEMA),
        (execute("CREATE INDEX i ON t (length(c))"), UNKNOWN),
        (execute("CREATE INDEX i ON t (c || b)"), UNKNOWN),
        (execute("CREATE INDEX i ON t (c) WHERE abs(b) > 1"), UNKNOWN),
        (execute("UPDATE t SET c = json_array(b, b) WHERE a = 1"), UNKNOWN),
        (execute("UPDATE t SET c = concat(b, b) WHERE a = 1"), CHEAP),
        (txn("CREATE INDEX i ON t (c)", "INSERT INTO t (b) VALUES (1)"), UNKNOWN),
        (txn("CREATE TABLE n (x)", "INSERT INTO n VALUES (1)"), UNKNOWN),
        (batch("INSERT INTO t (b) VALUES (1)"), UNKNOWN),
        (migration(1, "CREATE TABLE n (x)"), UNKNOWN),
        (execute("INSERT INTO missing VALUES (1)"), CHEAP),
        (execute("INSERT INTO"), CHEAP),
    ],
)
def test_what_is_cheap_by_its_text(world: World, record: bytes, cost: Cost) -> None:
    """Wrong SQL costs an error message, wherever it is applied."""
    assert world.judge.cost(record) is cost


@pytest.mark.parametrize(
    ("sql", "cost"),
    [
        ("DELETE FROM t WHERE b = ?", CHEAP),
        ("UPDATE t SET c = upper(c) WHERE ? AND b > 3", CHEAP),
        ("INSERT INTO t (b) SELECT c FROM t WHERE b = ?", CHEAP),
        ("INSERT INTO t (b) SELECT x.c FROM t x, t y, t z WHERE ? AND x.a + y.a + z.a > 0", UNKNOWN),
        ("DELETE FROM t WHERE ? AND EXISTS (SELECT 1 FROM t x WHERE x.c = t.c)", UNKNOWN),
        ("UPDATE t SET c = (SELECT max(c) FROM t x WHERE x.b > t.b) WHERE b = ?", UNKNOWN),
        ("UPDATE t SET c = c LIKE ? WHERE b = 1", UNKNOWN),
        ("INSERT INTO t (b) SELECT t.a FROM t CROSS JOIN t u WHERE (t.a = ?1 OR t.b = 2) AND u.c + 0 = t.a", UNKNOWN),
        ("INSERT INTO t (b) SELECT (SELECT count(*) FROM t u WHERE u.c = t.c) FROM t WHERE b < ? GROUP BY c", UNKNOWN),
        ("UPDATE t SET c = json_array(c, c) WHERE b = ?", UNKNOWN),
        ("INSERT INTO watched VALUES (?)", UNKNOWN),
    ],
)
async def test_quick_runs_say_nothing_of_loops_within_loops(world: World, sql: str, cost: Cost) -> None:
    """Nor of functions that take long by their arguments: the next parameters may be others."""
    record = execute(sql, [0])
    await world.quick(record, 2 * QUICK_RUNS)
    assert world.judge.cost(record) is cost


async def test_eight_quick_runs_make_a_text_cheap_and_a_slow_one_ends_that(world: World) -> None:
    """Found out by a trial, or by applying it."""
    record = execute(BY_INDEX, [1])
    await world.quick(record, QUICK_RUNS - 1)
    assert world.judge.cost(record) is UNKNOWN
    await world.quick(record, 1)
    assert world.judge.cost(record) is CHEAP
    assert world.judge.cost(execute(BY_INDEX, [b"x" * DATA_BYTES_MAX])) is UNKNOWN
    assert set(world.judge.cheap) == {BY_INDEX}
    world.judge.applied(Run(slow_texts=(BY_INDEX,)))
    assert world.judge.cost(record) is UNKNOWN
    await world.quick(record, QUICK_RUNS - 1)
    await world.quick(record, 1, spent_ns=2 * QUICK_NS)
    await world.quick(record, QUICK_RUNS - 1)
    assert world.judge.cost(record) is UNKNOWN


async def test_more_statements_may_take_longer_but_not_hide_a_slow_one(world: World) -> None:
    record = execute_many(BY_INDEX, [[n] for n in range(1000)])
    await world.quick(record, QUICK_RUNS, spent_ns=5 * QUICK_NS)
    assert world.judge.cost(record) is CHEAP
    await world.quick(record, 1, spent_ns=90 * QUICK_NS)
    assert world.judge.cost(record) is UNKNOWN


@pytest.mark.parametrize("behind", ["", ";", " ;\n", ";\n-- a remark\n"])
async def test_a_slow_text_is_known_by_whatever_stands_behind_it(world: World, behind: str) -> None:
    """SQLite tells the statement; the caller's text may go on."""
    record = execute(BY_INDEX + behind, [1])
    await world.quick(record)
    assert world.judge.cost(record) is CHEAP and BY_INDEX + behind in world.judge.cheap
    world.judge.applied(Run(slow_texts=(BY_INDEX + behind.partition("\n")[0],)))
    assert world.judge.cost(record) is UNKNOWN and world.judge.cheap == {}


async def test_whether_the_schema_changes_is_not_a_matter_of_the_trial(world: World) -> None:
    """What failed when it was tried may succeed when it is applied: nothing behind it is judged before."""
    may = txn("INSERT INTO t VALUES (1, 2, 3)", "CREATE TABLE n (x)")
    other = execute(BY_INDEX, [1])
    world.ended = Ended([0, 0])
    verdict = await world.judge.try_out([other, may, other], [0] * 3)
    assert verdict == Verdict(world.tried[0], changes_schema=True) and len(verdict.passed) == 2
    world.ended = Ended([0])
    verdict = await world.judge.try_out([batch("DELETE FROM t"), other], [0] * 2)
    assert verdict == Verdict(world.tried[1], changes_schema=True) and len(verdict.passed) == 1


@pytest.mark.parametrize(
    "record",
    [execute("INSERT INTO ft VALUES ('a')"), batch("DELETE FROM t WHERE a = 1"), execute("CREATE TABLE n (x)")],
)
async def test_some_writes_are_tried_each_time(world: World, record: bytes) -> None:
    await world.quick(record, 3 * QUICK_RUNS)
    assert world.judge.cost(record) is UNKNOWN


async def test_another_schema_ends_all_judgements(world: World) -> None:
    """Of texts that are cheap by their runs, and of those that an execute may propose at once."""
    insert = "INSERT INTO t (b) VALUES (?)"
    await world.quick(execute(BY_INDEX, [1]))
    assert world.judge.cost(execute(insert, [1])) is CHEAP and set(world.judge.cheap) == {insert, BY_INDEX}
    world.writer.execute("CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM t WHERE c > 1; END").fetchall()
    world.judge.applied(Run(changed_schema=True))
    assert world.judge.cheap == {}
    assert world.judge.cost(execute(BY_INDEX, [1])) is UNKNOWN
    assert world.judge.cost(execute(insert, [1])) is UNKNOWN


@pytest.mark.parametrize("sql", ["INSERT INTO t (b) VALUES (1) RETURNING a", "SELECT 1", BY_INDEX, "INSERT INTO"])
def test_an_execute_proposes_at_once_only_what_it_may_take(world: World, sql: str) -> None:
    """Rows that nobody would see, reads and errors are for the longer way."""
    world.judge.cost(txn(sql))
    assert world.judge.cheap == {}


@pytest.mark.parametrize(
    ("record", "left_s", "limit_s"),
    [
        (execute(BY_INDEX, [1]), 10, 5),
        (execute(BY_INDEX, [1]), 3, 2.8),
        (execute(BY_INDEX, [1]), 1, 0.9),
        (execute(BY_INDEX, [1]), 30, 29.8),
        (execute(BY_INDEX, [1]), 0, 5),
        (migration(1, "CREATE TABLE n (x)"), 600, 599.8),
        (migration(1, "CREATE TABLE n (x)"), 2, 1.8),
        (migration(1, "CREATE TABLE n (x)"), 0, 600),
    ],
)
async def test_a_trial_is_limited_by_the_statement_timeout_and_by_who_waits(
    world: World, record: bytes, left_s: int, limit_s: float
) -> None:
    """Who waits for longer than usual allows more; some of his time is for telling him. 0: not known."""
    await world.judge.try_out([record], [world.now_ns + left_s * SECOND if left_s else 0])
    assert world.limits == [round(limit_s * SECOND)]


async def test_nothing_is_tried_for_who_has_left(world: World) -> None:
    verdict = await world.judge.try_out([execute(BY_INDEX, [1])], [world.now_ns])
    assert isinstance(verdict.refusal, RequestTimeout) and verdict.refusal.outcome == "not_applied"
    assert verdict.passed == () and world.tried == []


async def test_a_few_are_tried_together_and_each_is_learnt_from(world: World) -> None:
    """As many as are taken at once."""
    by_index, other = execute(BY_INDEX, [1]), execute("DELETE FROM t WHERE b = ?", [1])
    world.ended = Ended([0] * QUICK_RUNS)
    verdict = await world.judge.try_out([by_index] * QUICK_RUNS, [0] * QUICK_RUNS)
    assert verdict == Verdict(world.tried[0]) and world.judge.cost(by_index) is CHEAP
    found = [header(record) for record in verdict.passed]
    assert {one.wall_time_ns for one in found} == {WALL_NS} and len({one.seed for one in found} - {0}) == QUICK_RUNS
    many = [other] * (TRIAL_WRITES_MAX + 5)
    world.ended = Ended([0] * TRIAL_WRITES_MAX)
    verdict = await world.judge.try_out(many, [0] * len(many))
    assert verdict == Verdict(world.tried[-1]) and len(verdict.passed) == TRIAL_WRITES_MAX


@pytest.mark.parametrize(
    ("ended", "kind"),
    [
        (Ended([0], late=True), StatementTimeout),
        (Ended([0], given_up=True), ShuttingDown),
        (Ended([0], out_of_disk=True), DiskFull),
        (Ended([0], out_of_memory=True), Overloaded),
        (Ended([0], failure=(apsw.SQLITE_FULL, "full")), DiskFull),
        (Ended([0], failure=(apsw.SQLITE_NOMEM, "no memory")), Overloaded),
        (Ended([0], failure=(apsw.SQLITE_IOERR | 1 << 8, "i/o")), StorageError),
        (Ended([0], failure=(apsw.SQLITE_INTERRUPT, "interrupted")), ShuttingDown),
    ],
)
async def test_the_one_that_did_not_end_is_refused_and_the_others_are_not(
    world: World, ended: Ended, kind: type[HiqliteError]
) -> None:
    world.ended = ended
    verdict = await world.judge.try_out([execute(BY_INDEX, [n]) for n in range(3)], [0] * 3)
    assert len(verdict.passed) == 1 and type(verdict.refusal) is kind
    assert verdict.refusal.outcome == "not_applied"
