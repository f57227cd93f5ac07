"""`migrate(dry_run=True)`: what would be applied, or the error that would be raised, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite._accel.commands import encode_migration
from hiqlite.client.local import LocalClient
from hiqlite.testing import cluster
from tests.cluster.interrupting import Interrupted, InterruptedTask, awaited, cancel_it
from tests.cluster.traces import Traces

FIRST = {"1_first.sql": "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent (id))"}
MORE = {
    **FIRST,
    "2_rows.sql": "INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1)",
    "3_anew.sql": "-- hiqlite: foreign_keys=off\nCREATE TABLE anew (id INTEGER PRIMARY KEY, name TEXT);"
    " INSERT INTO anew SELECT id, 'x' FROM parent; DROP TABLE parent; ALTER TABLE anew RENAME TO parent",
    "4_index.sql": "CREATE INDEX parent_name ON parent (name)",
}
RECORD = encode_migration("CREATE TABLE t (x)", "1_t.sql", "ab" * 32)
NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
ENDLESS = {**MORE, "5_endless.sql": f"CREATE TABLE numbers AS {NUMBERS} SELECT i FROM n"}


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LocalClient]:
    async with hiqlite.open(tmp_path / "data") as opened:
        yield opened


def copies(db: LocalClient) -> list[Path]:
    return list(db._services.node.storage.db.images.folder.iterdir())


async def rehearsing(db: LocalClient, trying: asyncio.Future[Any], file: str = "") -> None:
    """Until a copy is there, and a file of it."""
    while not any((copy / file).exists() for copy in copies(db)):
        assert not trying.done()
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
    """StatementTimeout, or RequestTimeout where undoing takes long; the node goes on writing meanwhile."""
    await db.execute("CREATE TABLE t (x)")
    trying = asyncio.create_task(db.migrate(ENDLESS, dry_run=True, timeout=1.0))
    await rehearsing(db, trying)
    writes = 0
    while not trying.done():
        writes += (await db.execute("INSERT INTO t VALUES (1)")).rows_affected
    with pytest.raises((hiqlite.StatementTimeout, hiqlite.RequestTimeout)) as caught:
        await trying
    assert caught.value.outcome == "not_applied" and writes > 0
    assert copies(db) == [] and await db.query_value("SELECT count(*) FROM t") == writes


async def test_two_at_once_come_one_after_the_other(db: LocalClient) -> None:
    """Each on a copy of its own; one that is cancelled while it waits or runs leaves nothing."""
    tasks = [asyncio.create_task(db.migrate(MORE, dry_run=True)) for _ in range(6)]
    await rehearsing(db, tasks[0])
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
    await rehearsing(db, trying, "hiqlite.db-wal" if moment == "applying" else "")
    await db.shutdown()
    with pytest.raises(hiqlite.ShuttingDown) as caught:
        await trying
    assert caught.value.outcome == "not_applied" and list(folder.iterdir()) == []
    await before.gone()


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("name", ["Rehearsals._run", "Rehearsals.run"])
async def test_whoever_gives_up_leaves_nothing(tmp_path: Path, name: str, twice: bool) -> None:
    """At each await, of the work and of who waits for it; also if the clean-up is cancelled again."""
    before = Traces()
    loop = asyncio.get_running_loop()
    async with hiqlite.open(tmp_path / "data") as db:
        rehearsals = db._services.node.storage.db.rehearsals

        async def run() -> None:
            await rehearsals.run([RECORD], 10, lambda _number, answer: answer)

        for at in range(1, 50):
            if name == "Rehearsals.run":
                interrupted = Interrupted(run(), at, cancel_twice if twice else cancel_it)
                task = asyncio.create_task(awaited(interrupted))
            else:
                factory = InterruptedTask(name, at, cancel_twice if twice else cancel_it)
                loop.set_task_factory(factory)
                task = asyncio.create_task(run())
            (end,) = await asyncio.gather(task, return_exceptions=True)
            loop.set_task_factory(None)
            assert end is None or isinstance(end, asyncio.CancelledError | hiqlite.ShuttingDown), end
            assert copies(db) == []
            if name != "Rehearsals.run":
                assert factory.work is not None
                interrupted = factory.work
            if not interrupted.reached:
                break
        else:
            pytest.fail("it has no end")
        assert at > (4 if name == "Rehearsals._run" else 1)
        await db.execute("CREATE TABLE t (x)")
    await before.gone()


def cancel_twice(task: asyncio.Task[Any]) -> None:
    task.cancel()
    task.get_loop().call_soon(task.cancel)


async def test_a_disk_that_stops_writes_without_a_copy_makes_none(db: LocalClient) -> None:
    """DiskFull: the room that this node needs to go on is not a copy's."""
    rehearsals = db._services.node.storage.db.rehearsals
    rehearsals._settings = replace(rehearsals._settings, kept_bytes=1 << 62)
    with pytest.raises(hiqlite.DiskFull) as caught:
        await db.migrate(MORE, dry_run=True)
    assert caught.value.outcome == "not_applied" and copies(db) == []
    await db.migrate(MORE)
    assert (await db.migrate(MORE, dry_run=True)).applied == []  # there is nothing to copy for


async def test_what_another_call_applied_meanwhile_is_not_told_as_left_to_do(db: LocalClient) -> None:
    """Between the look at what is there and the copy."""
    rehearsals = db._services.node.storage.db.rehearsals
    async with rehearsals._turn:
        trying = asyncio.create_task(db.migrate(MORE, dry_run=True))
        while not rehearsals._turn._waiters:
            await asyncio.sleep(0)
        await db.migrate(FIRST)
    assert (await trying).applied == [2, 3, 4]


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
