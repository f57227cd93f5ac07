"""`migrate` of an embedded client: how long it may take, what is known when it is stopped, and how files are named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import hiqlite
import hiqlite.testing

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000)"
SLOW = {"1_big.sql": f"CREATE TABLE big AS {NUMBERS} SELECT i FROM n"}


async def test_a_migration_that_would_outlast_its_timeout_is_not_applied(tmp_path: Path):
    """It is tried before; with more time it is made. Who undoes the trial too slowly to say why says what he knows."""
    async with hiqlite.open(tmp_path / "data") as db:
        with pytest.raises((hiqlite.StatementTimeout, hiqlite.RequestTimeout)) as late:
            await db.migrate(SLOW, timeout=0.3)
        assert late.value.outcome == "not_applied"
        assert (await db.migrate(SLOW, timeout=60)).applied == [1]


async def test_a_migration_whose_leader_is_cut_off_says_that_it_may_have_happened(tmp_path: Path):
    """Once a file is in the log its outcome is unknown; a leader that falls before knows that it is not applied."""
    async with hiqlite.testing.cluster(3, base_dir=tmp_path, cache=False) as three:
        leader = three.leader
        db = three.nodes[leader]
        migrating = asyncio.ensure_future(db.migrate(SLOW, timeout=3))
        await three.wait_until(lambda: len(three._running[leader].group.proposals.gate) > 0)
        await three.partition([leader], three.followers)
        with pytest.raises(hiqlite.HiqliteError) as late:
            await migrating
        await three.heal()
        await three.wait_for_leader()
        report = await db.migrate(SLOW, timeout=60)
        assert report.applied + report.already_applied == [1]
        assert late.value.outcome == "unknown" or (late.value.outcome == "not_applied" and report.applied == [1])


async def test_the_number_of_a_migration_may_be_padded_with_zeros(tmp_path: Path):
    """A common way to name them, so that they sort: what is accepted as a name is applied under it."""
    given = {"001_first.sql": "CREATE TABLE one (x)", "0002_second.sql": "CREATE TABLE two (x)"}
    async with hiqlite.open(tmp_path / "data") as db:
        assert (await db.migrate(given)).applied == [1, 2]
        assert (await db.migrate(given)).already_applied == [1, 2]
        assert await db.query("SELECT id, name FROM _migrations ORDER BY id") == [
            (1, "001_first.sql"),
            (2, "0002_second.sql"),
        ]
