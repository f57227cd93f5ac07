"""What `log_statements` puts into the log, and what it keeps out of it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import hiqlite


async def every_call(db: hiqlite.Client) -> None:
    await db.migrate({"1_first.sql": "CREATE TABLE t (x)"})
    await db.execute("INSERT INTO t VALUES (?)", ("hunter2",))
    await db.execute_many("INSERT INTO t VALUES (?1)", ((name,) for name in ("hunter2", "other")))
    await db.execute_returning("INSERT INTO t VALUES (:x) RETURNING x", {"x": "hunter2"})
    await db.txn([("DELETE FROM t WHERE x = ?", ("hunter2",))])
    await db.batch("DELETE FROM t;")
    await db.query_value("SELECT count(*) FROM t WHERE x = ?", ("hunter2",))
    assert [row async for row in db.query_iter("SELECT x FROM t WHERE x = ?", ("hunter2",))] == []


CALLS = ["migrate", "execute", "execute_many", "execute_returning", "transaction", "batch", "query", "query_iter"]


@pytest.mark.parametrize("setting", [False, True, "params"])
async def test_statements_are_logged_as_the_setting_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: bool | str
) -> None:
    """Nothing without it; with it one line per statement; parameters only with `params`, and that is warned of."""
    with caplog.at_level(logging.INFO, "hiqlite"):
        async with hiqlite.open(tmp_path / "data", cache=False, log_statements=setting) as db:
            await every_call(db)
    lines = [record.getMessage() for record in caplog.records if record.name == "hiqlite.statements"]
    assert [line.partition(":")[0] for line in lines] == (CALLS if setting else [])
    told = "\n".join(lines)
    assert ("DELETE FROM t WHERE x = ?" in told) == bool(setting)
    assert told.count("hunter2") == (6 if setting == "params" else 0)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line for line in warned if "log_statements" in line] == (
        ["log_statements = params: the log will hold what the parameters of statements hold"]
        if setting == "params"
        else []
    )


async def test_a_line_of_the_statement_log_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a long text nor a long parameter fills the log; what is no SQL fails as it does without it."""
    with caplog.at_level(logging.INFO, "hiqlite"):
        async with hiqlite.open(tmp_path / "data", cache=False, log_statements="params") as db:
            await db.query(f"SELECT ?, '{'x' * 10_000}'", ("y" * 10_000,))
            with pytest.raises(hiqlite.UsageError):
                await db.execute(5)  # type: ignore[arg-type]  # that it fails is the point
            with pytest.raises(hiqlite.UsageError):
                await db.execute_many("SELECT ?", 5)  # type: ignore[arg-type]  # as above
    lines = [record.getMessage() for record in caplog.records if record.name == "hiqlite.statements"]
    assert len(lines) == 3 and max(map(len, lines)) < 2_500 and "xxx" in lines[0] and "yyy" in lines[0]
