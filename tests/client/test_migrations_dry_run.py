"""`migrate(dry_run=True)`: what would be applied, or the error that would be raised, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.testing import cluster
from tests.cluster.traces import Traces

FIRST = {"1_first.sql": "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent (id))"}
MORE = {
    **FIRST,
    "2_rows.sql": "INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1)",
    "3_anew.sql": "-- hiqlite: foreign_keys=off\nCREATE TABLE anew (id INTEGER PRIMARY KEY, name TEXT);"
    " INSERT INTO anew SELECT id, 'x' FROM parent; DROP TABLE parent; ALTER TABLE anew RENAME TO parent",
    "4_index.sql": "CREATE INDEX parent_name ON parent (name)",
}
NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
ENDLESS = {**MORE, "5_endless.sql": f"CREATE TABLE numbers AS {NUMBERS} SELECT i FROM n"}


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LocalClient]:
    async with hiqlite.open(tmp_path / "data") as opened:
        yield opened


def copies(db: LocalClient) -> list[Path]:
    return list(db._services.node.storage.db.images.folder.iterdir())


async def rehearsing(db: LocalClient) -> None:
    """Until a copy is there."""
    while not copies(db):
        await asyncio.sleep(0)


async def test_it_tells_what_would_be_applied_and_changes_nothing(db: LocalClient) -> None:
    """Each file on what those before it leave, also with foreign keys off; then the same is done for real."""
    await db.migrate(FIRST)
    before = await db.content_hash()
    for _ in range(2):
        report = await db.migrate(MORE, dry_run=True)
        assert (report.applied, report.already_applied) == ([2, 3, 4], [1])
    assert await db.content_hash() == before and copies(db) == []
    assert (await db.migrate(MORE)).applied == [2, 3, 4]
    report = await db.migrate(MORE, dry_run=True)
    assert (report.applied, report.already_applied) == ([], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("files", "kind", "text"),
    [
        ({"2_wrong.sql": "INSERT INTO nowhere VALUES (1)"}, hiqlite.MigrationError, "2_wrong.sql"),
        ({"2_no_parent.sql": "INSERT INTO child VALUES (7)"}, hiqlite.MigrationError, "2_no_parent.sql"),
        ({"3_gap.sql": "SELECT 1"}, hiqlite.MigrationError, "2 is missing"),
        ({"1_first.sql": "CREATE TABLE other (x)"}, hiqlite.MigrationError, "its text is not the one"),
    ],
    ids=["sql", "foreign keys", "gap", "edited"],
)
async def test_it_raises_what_would_be_raised(
    db: LocalClient, files: dict[str, str], kind: type[Exception], text: str
) -> None:
    """The same error as without `dry_run`, word for word; nothing of any file is there, and no copy is left."""
    await db.migrate(FIRST)
    before = await db.content_hash()
    told = []
    for dry_run in (True, False):
        with pytest.raises(kind, match=text) as caught:
            await db.migrate({**FIRST, **files}, dry_run=dry_run)
        told.append((str(caught.value), caught.value.hint))
    assert told[0] == told[1]
    assert await db.content_hash() == before and copies(db) == []


async def test_what_does_not_end_is_refused_in_time(db: LocalClient) -> None:
    """StatementTimeout, and the node goes on writing meanwhile."""
    await db.execute("CREATE TABLE t (x)")
    trying = asyncio.create_task(db.migrate(ENDLESS, dry_run=True, timeout=1.0))
    await rehearsing(db)
    writes = 0
    while not trying.done():
        writes += (await db.execute("INSERT INTO t VALUES (1)")).rows_affected
    with pytest.raises(hiqlite.StatementTimeout) as caught:
        await trying
    assert caught.value.outcome == "not_applied" and writes > 0
    assert copies(db) == [] and await db.query_value("SELECT count(*) FROM t") == writes


async def test_two_at_once_come_one_after_the_other(db: LocalClient) -> None:
    """Each on a copy of its own; one that is cancelled while it waits or runs leaves nothing."""
    tasks = [asyncio.create_task(db.migrate(MORE, dry_run=True)) for _ in range(6)]
    await rehearsing(db)
    for task in tasks[::2]:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends[::2])
    assert [end.applied for end in ends[1::2]] == [[1, 2, 3, 4]] * 3  # type: ignore[union-attr]
    assert copies(db) == []


@pytest.mark.parametrize("moment", ["copying", "applying"])
async def test_a_node_that_stops_ends_it(tmp_path: Path, moment: str) -> None:
    """ShuttingDown; no thread, descriptor or copy stays behind."""
    before = Traces()
    db = await hiqlite.open(tmp_path / "data")
    folder = db._services.node.storage.db.images.folder
    trying = asyncio.create_task(db.migrate(ENDLESS, dry_run=True))
    await rehearsing(db)
    if moment == "applying":
        (copy,) = copies(db)
        while not (copy / "hiqlite.db-wal").exists():
            await asyncio.sleep(0)
    await db.shutdown()
    with pytest.raises(hiqlite.ShuttingDown) as caught:
        await trying
    assert caught.value.outcome == "not_applied" and list(folder.iterdir()) == []
    await before.gone()


async def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path) -> None:
    """It may be as large as the database."""
    async with hiqlite.open(tmp_path / "data") as db:
        folder = db._services.node.storage.db.images.folder
    (folder / "rehearsal-1").mkdir()
    (folder / "rehearsal-1" / "hiqlite.db").write_bytes(bytes(1000))
    async with hiqlite.open(tmp_path / "data") as db:
        assert copies(db) == []
        assert (await db.migrate(MORE, dry_run=True)).applied == [1, 2, 3, 4]


async def test_any_node_of_a_cluster_may_be_asked() -> None:
    """While the others write; the nodes stay equal and nothing of it is in their logs."""
    async with cluster(3, cache=False) as three:
        await three.client.execute("CREATE TABLE t (x)")
        for db in three.nodes.values():
            beside = [three.client.execute("INSERT INTO t VALUES (1)") for _ in range(20)]
            assert (await db.migrate(MORE, dry_run=True)).applied == [1, 2, 3, 4]
            await asyncio.gather(*beside)
        assert (await three.client.migrate(MORE)).applied == [1, 2, 3, 4]
