"""The state machine goes on with an image: writer, readers and inspector change the file, and nothing else changes."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest
from apply_harness import execute, machine
from writer_driver import Driver, opened

from hiqlite.errors import SchemaError, StorageError
from hiqlite.statemachine.connection import open_inspector
from hiqlite.statemachine.image import copy_out
from hiqlite.statemachine.inspector import Inspector
from hiqlite.statemachine.reader import Reader, ReaderSettings
from hiqlite.statemachine.writer import Writer, WriterSettings

CREATE = execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
SLOW = (
    "INSERT INTO t WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c LIMIT 500000000)"
    " SELECT max(n), 'slow' FROM c"
)


def insert(number: int) -> bytes:
    return execute("INSERT INTO t VALUES (?, 'row')", (number,))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A database at index 101 with rows 1 to 100, in a folder of its own."""
    folder = tmp_path / "new"
    folder.mkdir()
    with machine(tmp_path / "leader.db") as made:
        made.one(CREATE)
        made.apply([insert(number) for number in range(1, 101)])
        copy_out(made.path, folder / "a.db", threading.Event())
    return folder / "a.db"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    return folder / "a.db"


@pytest.mark.parametrize("mode", ["always", "inline", "auto"])
async def test_a_writer_goes_on_where_the_image_stands(old: Path, image: Path, mode: str) -> None:
    """Index, term and hash are the image's; the next entry follows it; the old database is left as it was."""
    async with opened(old, WriterSettings(apply_thread=mode)) as driver:
        driver.submit(CREATE, insert(1))
        await driver.applied()
        before = driver.writer.equality_hash
        await driver.writer.switch(image)
        assert (driver.writer.applied_index, driver.writer.applied_term) == (101, 1)
        assert driver.writer.equality_hash != before
        driver.next = 102
        driver.submit(insert(101))
        await driver.applied()
        driver.writer.set_synced_index(102)
    for path, rows in ((image, 101), (old, 1)):
        with machine(path) as made:
            assert made.rows("SELECT count(*) FROM t") == [(rows,)]
            assert made.applier.applied_index == rows + 1


async def test_what_is_under_way_on_the_old_database_is_given_up(old: Path, image: Path) -> None:
    """A statement that would take minutes is interrupted and leaves nothing; what waited behind it is not applied."""
    async with opened(old, WriterSettings(apply_thread="always")) as driver:
        driver.submit(CREATE)
        await driver.applied()
        driver.submit(execute(SLOW))
        driver.submit(insert(7))
        await asyncio.wait_for(driver.writer.switch(image), 20)
        assert driver.writer.failure is None and driver.writer.queued_bytes == 0
        assert driver.writer.applied_index == 101
        assert [run.last for run in driver.runs] == [1]
        driver.next = 102
        driver.submit(insert(101))
        await driver.applied()
    with machine(old) as made:
        assert made.rows("SELECT count(*) FROM t") == [(0,)]
        assert made.applier.applied_index == 1


async def test_a_writer_whose_new_database_cannot_be_opened_is_closed(old: Path, tmp_path: Path) -> None:
    """A typed error; closing it again is nothing, and the old database is whole."""
    writer = Writer.open(old)
    driver = Driver(writer)
    driver.submit(CREATE, insert(1))
    await driver.applied()
    (tmp_path / "garbage.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError):
        await writer.switch(tmp_path / "garbage.db")
    assert writer.applied_index == 2 and writer.take() == []
    await writer.close()
    with machine(old) as made:
        assert made.rows("SELECT count(*) FROM t") == [(1,)]


async def test_reads_under_way_end_on_the_database_that_they_began_on(old: Path, image: Path) -> None:
    """An iteration goes on over the removal of its files; whatever is asked afterwards sees the image."""
    with machine(old) as made:
        made.one(CREATE)
        made.apply([insert(number) for number in range(1, 20_001)])
    loop = asyncio.get_running_loop()
    reader = Reader.open(old, ReaderSettings(), loop)
    writer = Writer.open(old)
    seen: list[int] = []
    iterating = reader.iterate("SELECT id FROM t ORDER BY id")
    seen += [row[0] for row in await anext(iterating)]
    assert 0 < len(seen) < 20_000
    await writer.switch(image)
    reader.reopen(image)
    shutil.rmtree(old.parent)
    assert await reader.query("SELECT count(*) FROM t") == [(100,)]
    newest = "SELECT max(id) FROM t"  # on this thread, unless the machine stops for 2 ms in the middle of it
    assert (reader.query_now(newest) or await reader.query(newest)) == [(100,)]
    async for rows in iterating:
        seen += [row[0] for row in rows]
    assert seen == list(range(1, 20_001))
    await reader.close()
    await writer.close()
    assert not old.parent.exists()


async def test_an_inspector_judges_by_the_new_schema(old: Path, image: Path) -> None:
    """What it had learnt of texts is forgotten."""
    with machine(old) as made:
        made.one(execute("CREATE TABLE only_here (a)"))
    first, second = open_inspector(old), open_inspector(image)
    inspector = Inspector(first)
    inspector.inspect("INSERT INTO only_here VALUES (1)")
    epoch = inspector.schema_epoch
    inspector.reopen(second)
    first.close()
    with pytest.raises(SchemaError):
        inspector.inspect("INSERT INTO only_here VALUES (1)")
    assert inspector.inspect("INSERT INTO t VALUES (1, 'x')").schema_epoch > epoch
    second.close()
