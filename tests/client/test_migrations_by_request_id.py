"""`migrate(request_id=...)`: whoever asks again is told what was told first, and it is made once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite._accel.batch import Op
from hiqlite.client.local import LocalClient
from hiqlite.client.migrating import Migrating
from hiqlite.runtime.group import Group
from hiqlite.statemachine.migrations import load

FIRST = {"1_first.sql": "CREATE TABLE t (x)"}
FILES = {**FIRST, "2_rows.sql": "INSERT INTO t VALUES (1), (2)", "3_more.sql": "INSERT INTO t VALUES (3)"}
WRONG = {**FIRST, "2_wrong.sql": "INSERT INTO t VALUES (1); INSERT INTO other VALUES (1)"}
INSERT = "INSERT INTO t VALUES (7)"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LocalClient]:
    async with hiqlite.open(tmp_path / "data", cache=False, log_statements=True) as opened:
        yield opened


async def rows(db: LocalClient) -> list[int]:
    return [row[0] for row in await db.query("SELECT x FROM t ORDER BY x")]


async def test_whoever_asks_again_gets_the_first_report(db: LocalClient) -> None:
    """Also where some of it was there before, and after others went on; without an id it is told what is so now."""
    await db.migrate(FIRST)
    for _ in range(2):
        assert await db.migrate(FILES, request_id="once") == hiqlite.MigrationReport([2, 3], [1])
    await db.migrate({**FILES, "4_index.sql": "CREATE INDEX t_x ON t (x)"})
    assert await db.migrate(FILES, request_id="once") == hiqlite.MigrationReport([2, 3], [1])
    assert await db.migrate(FILES) == hiqlite.MigrationReport([], [1, 2, 3])
    assert await db.migrate(FILES, request_id="another") == hiqlite.MigrationReport([], [1, 2, 3])
    assert await rows(db) == [1, 2, 3]


async def test_a_call_that_was_stopped_is_gone_on_with(db: LocalClient) -> None:
    """Whoever asks again is told of all that both have applied."""
    stopped = asyncio.create_task(db.migrate(FILES, request_id="stopped"))
    while not await db.query("SELECT 1 FROM _migrations"):
        await asyncio.sleep(0)
    stopped.cancel()
    await asyncio.wait([stopped])
    assert await db.migrate(FILES, request_id="stopped") == hiqlite.MigrationReport([1, 2, 3], [])
    assert await rows(db) == [1, 2, 3]


async def test_what_failed_is_told_again_though_it_would_not_fail_now(db: LocalClient) -> None:
    """As of every write with a request id; a call of another id, or of none, tries anew."""
    told = []
    for _ in range(2):
        with pytest.raises(hiqlite.MigrationError, match="no such table: other") as caught:
            await db.migrate(WRONG, request_id="wrong")
        told.append(caught.value.to_wire())
        await db.execute("CREATE TABLE IF NOT EXISTS other (x)")
    assert await db.migrate(WRONG, request_id="right") == hiqlite.MigrationReport([2], [1])
    with pytest.raises(hiqlite.MigrationError) as caught:
        await db.migrate(WRONG, request_id="wrong")
    assert [*told, caught.value.to_wire()] == [told[0]] * 3 and caught.value.outcome == "not_applied"
    assert await rows(db) == [1]


async def test_an_id_stands_for_one_write(db: LocalClient) -> None:
    """UsageError where it was given to other files, be it with more of them, or to a call of another kind."""
    await db.migrate(FIRST, request_id="files")
    await db.execute(INSERT, request_id="a row")
    for call in (
        lambda: db.migrate(FILES, request_id="files"),
        lambda: db.migrate(FILES, request_id="a row"),
        lambda: db.execute(INSERT, request_id="files"),
    ):
        with pytest.raises(hiqlite.UsageError, match=r"request id '(files|a row)' was given to") as caught:
            await call()
        assert caught.value.outcome == "not_applied"
    assert await rows(db) == [7] and (await db.migrate(FILES)).applied == [2, 3]


class Losing:
    """A group that passes so many writes on; what becomes of those behind them nobody knows."""

    def __init__(self, group: Group, passed: int) -> None:
        self._group = group
        self._passed = passed

    def write(self, record: bytes, op: Op) -> None:
        if self._passed == 0:
            op.set_exception(hiqlite.LeadershipLost("the leader was lost", outcome="unknown"))
        else:
            self._passed -= 1
            self._group.write(record, op)


@pytest.mark.parametrize("passed, outcome", [(0, "not_applied"), (1, "unknown"), (2, "unknown")])
async def test_until_a_file_is_sent_none_can_be_applied(db: LocalClient, passed: int, outcome: str) -> None:
    """Whatever became of the entry by which the id stands for these files."""
    services: Any = replace(db._services, group=Losing(db._group, passed))  # type: ignore[arg-type]  # all that it uses
    end_ns = db._now_ns() + 10**10
    with pytest.raises(hiqlite.LeadershipLost) as caught:
        await Migrating(services, load(FILES), end_ns, db._barrier, db._sized, "lost").run()
    assert caught.value.outcome == outcome
    applied = max(0, passed - 1)
    assert (await db.migrate(FILES)).already_applied == list(range(1, applied + 1))


async def test_a_dry_run_is_not_remembered(db: LocalClient) -> None:
    """It writes nothing: the id is still free."""
    assert (await db.migrate(FIRST, dry_run=True, request_id="tried")).applied == [1]
    assert (await db.migrate(FILES, request_id="tried")).applied == [1, 2, 3]
