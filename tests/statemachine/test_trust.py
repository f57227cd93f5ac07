"""Databases that SQLite takes for sound and that are not: what the checkpoint mark tells of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import apsw
import pytest
from apply_harness import execute
from writer_driver import Driver, eventually, opened

from hiqlite._accel.records import crc32c
from hiqlite.errors import DataFolderInUse, SnapshotCorruption, StorageError
from hiqlite.statemachine import trust
from hiqlite.statemachine.connection import ConnectionSettings, open_reader
from hiqlite.statemachine.trust import CheckpointMark, log_path, mark_path
from hiqlite.statemachine.writer import WriterSettings

SETTINGS = ConnectionSettings()
FRAME_BYTES = 24 + 4096
ROWS = 12
NEWEST = ["second"] * ROWS


async def checkpointed(folder: Path) -> tuple[Path, int]:
    """As a crash leaves it: all of SQLite's log is in the database file, and that log is still there.

    Each row has a page of its own, and a run that changes it.
    """
    folder.mkdir()
    path, left = folder / "a.db", folder.with_name(f"{folder.name}-left")
    trust.open_mark(path)
    async with opened(path, WriterSettings(apply_thread="always")) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a, filler)"))
        for number in range(ROWS):
            driver.submit(execute("INSERT INTO t VALUES (?, 'first', ?)", [number, b"x" * 3500]))
        await in_the_file(driver)
        for number in range(ROWS):
            driver.submit(execute("UPDATE t SET a = 'second' WHERE id = ?", [number]))
            await driver.applied()
        index = await in_the_file(driver)
        mark = CheckpointMark.decode(mark_path(path).read_bytes())
        assert mark is not None and (mark.begun, mark.done) == (index, index)
        assert log_path(path).read_bytes()[16:20] == mark.salt
        shutil.copytree(folder, left)
    return left / "a.db", index


async def in_the_file(driver: Driver) -> int:
    """Once a checkpoint has moved all that was submitted."""
    await driver.applied()
    index = driver.writer.applied_index
    driver.writer.set_synced_index(index)
    driver.writer.make_durable()
    await eventually(lambda: driver.writer.durable_index == index)
    return index


def read(path: Path) -> tuple[int, list[str]]:
    """(last entry, the rows) as SQLite sees them, which finds nothing wrong."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs="unix-excl")
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        assert connection.pragma("integrity_check") == "ok"
        rows = [text for (text,) in connection.execute("SELECT a FROM t ORDER BY id")]
        return connection.execute("SELECT max(last_index) FROM _hiqlite_run").fetchone()[0], rows
    finally:
        connection.close(True)


def damaged_copies(path: Path, folder: Path) -> list[Path]:
    """One for each page of SQLite's log: a bit of it flipped, and the log cut off there.

    Behind its end may stand pages of what the file held before the log was begun anew; they have another salt.
    """
    found = []
    whole = log_path(path).read_bytes()
    for number in range(len(whole) // FRAME_BYTES):
        at = 32 + number * FRAME_BYTES
        if whole[at + 8 : at + 16] != whole[16:24]:
            break
        flipped = bytearray(whole)
        flipped[at + 24 + 99] ^= 4
        for name, content in (("flipped", bytes(flipped)), ("cut", whole[:at])):
            copy = folder / f"{name}{number}" / "a.db"
            shutil.copytree(path.parent, copy.parent)
            log_path(copy).write_bytes(content)
            found.append(copy)
    return found


async def test_a_log_of_sqlite_that_was_damaged_never_brings_old_rows_back(tmp_path: Path) -> None:
    """SQLite alone would read older pages over newer ones, and find nothing wrong. The log is not needed: it goes."""
    path, index = await checkpointed(tmp_path / "db")
    copies = damaged_copies(path, tmp_path)
    assert len(copies) >= 4 * ROWS
    believed = []
    for copy in copies:
        bare = copy.with_name("bare.db")
        shutil.copy(copy, bare)
        shutil.copy(log_path(copy), log_path(bare))
        believed.append(read(bare))
        assert trust.examine(copy, SETTINGS) == index
        assert read(copy) == (index, NEWEST)
    # Rows of later runs, in a database that says to end before them: these runs would be applied a second time.
    assert sum(at < index and rows == NEWEST for at, rows in believed) > ROWS


async def test_a_checkpoint_cut_short_needs_sqlites_log(tmp_path: Path) -> None:
    """Parts of later runs may stand in the file: without the pages that make them whole nobody can use it."""
    path, index = await checkpointed(tmp_path / "db")
    salt = log_path(path).read_bytes()[16:20]
    mark_path(path).write_bytes(CheckpointMark(index, index - 1, salt).encode())
    whole = tmp_path / "whole" / "a.db"
    shutil.copytree(path.parent, whole.parent)
    assert trust.examine(whole, SETTINGS) == index
    copies = damaged_copies(path, tmp_path)
    for copy in copies:
        before = {one.name: one.read_bytes() for one in copy.parent.iterdir() if one.suffix != ".db-shm"}
        with pytest.raises(SnapshotCorruption, match="holds parts of entries"):
            trust.examine(copy, SETTINGS)
        assert {one.name: one.read_bytes() for one in copy.parent.iterdir() if one.suffix != ".db-shm"} == before


async def test_a_log_that_sqlite_has_begun_anew_is_not_needed(tmp_path: Path) -> None:
    """A crash right behind a checkpoint, before it was marked as done: all was in the file by then, or SQLite would not
    have begun its log anew. A head that is damaged is none."""
    path, index = await checkpointed(tmp_path / "db")
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs="unix-excl")
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    before = log_path(path).read_bytes()[:32]
    connection.execute("SELECT * FROM t").fetchall()  # else it does not know of a log
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
    whole = tmp_path / "whole" / "a.db"
    shutil.copytree(path.parent, whole.parent)
    connection.execute("PRAGMA application_id = 7").fetchall()
    connection.close(True)
    head = log_path(path).read_bytes()[:32]
    assert head != before
    mark_path(whole).write_bytes(CheckpointMark(index, index - 1, before[16:20]).encode())
    log_path(whole).write_bytes(head)
    assert trust.examine(whole, SETTINGS) == index
    for at in (16, 20, 31):
        log_path(whole).write_bytes(head[:at] + bytes([head[at] ^ 1]) + head[at + 1 :])
        with pytest.raises(SnapshotCorruption, match="holds parts of entries"):
            trust.examine(whole, SETTINGS)


def aside(path: Path) -> Path:
    """Where SQLite's log is moved to."""
    return log_path(path).with_name(log_path(path).name + ".aside")


async def test_the_log_of_another_database_is_not_read(tmp_path: Path) -> None:
    """SQLite would: nothing in it says beside which file it was made, and its pages are sound."""
    path, index = await checkpointed(tmp_path / "db")
    other, _ = await checkpointed(tmp_path / "other")
    shutil.copy(log_path(other), log_path(path))
    half = tmp_path / "half" / "a.db"
    shutil.copytree(path.parent, half.parent)
    assert trust.examine(path, SETTINGS) == index
    assert aside(path).read_bytes() == log_path(other).read_bytes()
    assert read(path) == (index, NEWEST)
    mark = trust.open_mark(half)
    mark_path(half).write_bytes(CheckpointMark(index, index - 1, mark.salt).encode())
    with pytest.raises(SnapshotCorruption, match="not the log of this database, and holds parts of entries"):
        trust.examine(half, SETTINGS)
    assert log_path(half).exists()


@pytest.mark.parametrize("mode", ["always", "inline"])
async def test_every_log_that_the_database_had_is_known_as_its_own(tmp_path: Path, mode: str) -> None:
    """Whenever a crash comes: before and behind the first commit of a life, each checkpoint, and each that SQLite
    begins its log anew with; and another's is known as such from the first commit on."""
    other, _ = await checkpointed(tmp_path / "other")
    path = tmp_path / "db" / "a.db"
    path.parent.mkdir()
    trust.open_mark(path)
    salts = set()
    for life in range(3):
        async with opened(path, WriterSettings(apply_thread=mode)) as driver:
            for turn in range(4):
                crashed = tmp_path / f"{life}.{turn}" / "a.db"
                shutil.copytree(path.parent, crashed.parent)
                index = driver.writer.applied_index
                assert trust.examine(crashed, SETTINGS) == index
                assert not aside(crashed).exists()
                driver.submit(execute(f"CREATE TABLE t{life}{turn}(a)"))
                if turn % 2:
                    await in_the_file(driver)
                await driver.applied()
                salts.add(log_path(path).read_bytes()[16:20])
                swapped = tmp_path / f"{life}.{turn}.swapped" / "a.db"
                shutil.copytree(path.parent, swapped.parent)
                shutil.copy(log_path(other), log_path(swapped))
                if trust.open_mark(swapped).done > 0:  # else nothing is in its file
                    trust.examine(swapped, SETTINGS)
                    assert aside(swapped).exists()
            driver.writer.set_synced_index(driver.writer.applied_index)
        assert log_path(path).stat().st_size == 0  # the next life's log is made from nothing
    assert len(salts) > 3


def mark_before(begun: int, done: int, salt: bytes) -> bytes:
    """As 0.2.0 wrote it, at checkpoints alone."""
    body = b"HQCHKPT1" + begun.to_bytes(8, "little") + done.to_bytes(8, "little") + salt
    return body + crc32c(body).to_bytes(4, "little")


async def test_a_mark_of_the_release_before_says_nothing_of_a_log_that_was_made_since(tmp_path: Path) -> None:
    """It was written by checkpoints alone: what it says may be of a log that is gone. With the next start it does."""
    path, index = await checkpointed(tmp_path / "db")
    mark_path(path).write_bytes(mark_before(index, index, b"gone"))
    assert trust.examine(path, SETTINGS) == index and not aside(path).exists()
    async with opened(path, WriterSettings(apply_thread="always")):
        mark = CheckpointMark.decode(mark_path(path).read_bytes())
        assert mark is not None and mark.file > 0
        assert mark == CheckpointMark(index, index, log_path(path).read_bytes()[16:20], mark.file)
    salt = log_path(path).read_bytes()[16:20]
    mark_path(path).write_bytes(mark_before(index, index - 1, salt))
    assert trust.examine(path, SETTINGS) == index
    assert CheckpointMark.decode(mark_path(path).read_bytes()) == CheckpointMark(index, index - 1, salt)


async def test_the_file_of_another_database_is_not_read_under_this_ones_log(tmp_path: Path) -> None:
    """SQLite would, and its check says ok: rows of both. Neither one that is at the same entry is taken, nor what this
    one was in earlier days."""
    path, index = await checkpointed(tmp_path / "db")
    other, same_index = await checkpointed(tmp_path / "other")
    assert same_index == index
    early = await checkpointed(tmp_path / "early")
    assert early[1] == index
    log_path(path).replace(kept := tmp_path / "kept")
    for file in (other, early[0]):
        swapped = tmp_path / f"{file.parent.name}-swapped" / "a.db"
        shutil.copytree(path.parent, swapped.parent)
        shutil.copy(kept, log_path(swapped))
        shutil.copy(file, swapped)
        with pytest.raises(SnapshotCorruption, match="not the file that lay here"):
            trust.examine(swapped, SETTINGS)
    shutil.copy(kept, log_path(path))
    assert trust.examine(path, SETTINGS) == index


async def test_the_mark_of_another_database_is_no_evidence_against_this_one(tmp_path: Path) -> None:
    """Where its salt is not that of the log that lies here, the mark is what does not belong: it begins anew."""
    path, index = await checkpointed(tmp_path / "db")
    other, _ = await checkpointed(tmp_path / "other")
    closed = tmp_path / "closed" / "a.db"
    shutil.copytree(path.parent, closed.parent)
    log_path(closed).unlink()  # as a clean end leaves it
    for file in (path, closed):
        shutil.copy(mark_path(other), mark_path(file))
        assert trust.examine(file, SETTINGS) == index and not aside(file).exists()
        assert read(file) == (index, NEWEST)
        assert trust.open_mark(file) == CheckpointMark()
        async with opened(file, WriterSettings(apply_thread="always")):
            assert trust.open_mark(file).file not in (0, trust.open_mark(other).file)


async def test_a_checkpoint_before_the_first_commit_of_a_life_counts_what_an_earlier_one_left(tmp_path: Path) -> None:
    """A reader in its snapshot holds it up: what was not moved is not called durable."""
    path = tmp_path / "a.db"
    trust.open_mark(path)
    settings = WriterSettings(connection=ConnectionSettings(shared_access=True), apply_thread="always")
    async with opened(path, settings) as driver:
        driver.submit(execute("CREATE TABLE t(a)"), execute("INSERT INTO t VALUES (1)"))
        index = await in_the_file(driver)
        reader = apsw.Connection(str(path))
        rows = reader.execute("SELECT a FROM t UNION ALL SELECT 2")
        next(rows)  # it stays in its snapshot
        driver.submit(execute("INSERT INTO t VALUES (2)"))
        await driver.applied()
        driver.writer.set_synced_index(0)  # so nothing is moved at the end
    async with opened(path, settings) as driver:
        driver.writer.set_synced_index(index + 1)
        driver.writer.make_durable()
        await eventually(lambda: trust.open_mark(path).begun == index + 1)
        made = driver.writer._applier.stats()["checkpoints"]
        driver.writer.make_durable()
        await eventually(lambda: driver.writer._applier.stats()["checkpoints"] > made + 1)
        assert driver.writer.durable_index == index and trust.open_mark(path).done == index
        rows.close()
        reader.close()
        driver.writer.make_durable()
        await eventually(lambda: driver.writer.durable_index == index + 1)


async def test_a_database_file_of_earlier_days_is_not_read_under_the_log_of_now(tmp_path: Path) -> None:
    """Whoever puts a copy back takes its log and its mark along, or is told."""
    path = tmp_path / "db" / "a.db"
    path.parent.mkdir()
    trust.open_mark(path)
    copies = []
    async with opened(path, WriterSettings(apply_thread="always")) as driver:
        for turn in range(3):
            driver.submit(execute(f"CREATE TABLE t{turn}(a)"))
            index = await in_the_file(driver)
            copies.append(tmp_path / f"{turn}" / "a.db")
            shutil.copytree(path.parent, copies[-1].parent)
            assert trust.examine(copies[-1], SETTINGS) == index
    shutil.copy(copies[0], copies[2])
    with pytest.raises(SnapshotCorruption, match=rf"ends at entry 1, it held all up to {index}"):
        trust.examine(copies[2], SETTINGS)


@pytest.mark.parametrize("mode", ["always", "inline"])
async def test_the_number_of_a_file_outlives_whatever_is_lost(tmp_path: Path, mode: str) -> None:
    """What stands in SQLite's log alone is lost with the power; a mark that was lost, and a copy of an image, get a
    number of their own. None of them is ever taken for another's."""
    path, index = await checkpointed(tmp_path / "db")
    number = trust.open_mark(path).file
    assert number > 0
    image = tmp_path / "image" / "a.db"
    image.parent.mkdir()
    shutil.copy(path, image)
    trust.open_mark(image)
    empty = log_path(image)
    numbers = set()
    for turn in range(3):
        async with opened(image, WriterSettings(apply_thread=mode)) as driver:
            crashed = tmp_path / f"crashed{turn}" / "a.db"
            shutil.copytree(image.parent, crashed.parent)
            numbers.add(trust.open_mark(image).file)
            driver.submit(execute(f"CREATE TABLE x{turn}(a)"))
            await driver.applied()
            driver.writer.set_synced_index(0)  # so nothing is moved when it closes
        log_path(crashed).unlink(missing_ok=True)  # the power went before any of it was synced
        assert trust.examine(crashed, SETTINGS) == index
        shutil.rmtree(image.parent)
        shutil.copytree(crashed.parent, image.parent)
        empty.unlink(missing_ok=True)
    assert len(numbers) == 1 and number not in numbers
    async with opened(image, WriterSettings(apply_thread=mode)) as driver:
        driver.submit(execute("CREATE TABLE last(a)"))
        index = await in_the_file(driver)
    assert trust.open_mark(image).file in numbers and trust.examine(image, SETTINGS) == index
    mark_path(image).unlink()
    assert trust.examine(image, SETTINGS) == index
    async with opened(image, WriterSettings(apply_thread=mode)) as driver:
        driver.submit(execute("CREATE TABLE behind(a)"))
        await in_the_file(driver)
    assert trust.open_mark(image).file not in {0, *numbers}


async def test_who_writes_where_there_is_no_log_does_not_make_one_that_is_foreign(tmp_path: Path) -> None:
    """A stamp that is put there stays, and one that is taken away stays away."""
    path, index = await checkpointed(tmp_path / "db")
    for own in (b"\1" * 32, b"\2" * 32):
        for write in (partial(trust.examine, path, SETTINGS, own), partial(trust.unstamp, path, SETTINGS)):
            connection = apsw.Connection(str(path), vfs="unix-excl")
            connection.execute("SELECT * FROM t").fetchall()  # else it does not know of a log
            connection.close(True)
            assert not log_path(path).exists()
            mark_path(path).write_bytes(CheckpointMark(index, index, b"gone").encode())
            write()
            stamped = trust.stand_of(path, SETTINGS)
            assert log_path(path).stat().st_size > 0 and stamped.index == index
            assert trust.examine(path, SETTINGS) == index
            assert trust.stand_of(path, SETTINGS) == stamped and not aside(path).exists()
        assert stamped.cluster == ""


async def test_a_database_without_its_file_is_not_begun_anew(tmp_path: Path) -> None:
    """SQLite would remove what its log holds, and begin an empty one."""
    path, _ = await checkpointed(tmp_path / "db")
    size_bytes = log_path(path).stat().st_size
    for damage in (lambda: path.write_bytes(b""), path.unlink):
        damage()
        with pytest.raises(SnapshotCorruption, match="missing or empty"):
            trust.examine(path, SETTINGS)
        assert log_path(path).stat().st_size == size_bytes
    log_path(path).unlink()
    with pytest.raises(SnapshotCorruption, match="missing or empty"):
        trust.examine(path, SETTINGS)
    mark_path(path).unlink()
    assert trust.examine(path, SETTINGS) == 0  # nothing says that there ever was one


async def test_a_database_says_of_which_cluster_it_is(tmp_path: Path) -> None:
    """The first one to open it, for good: whoever puts another cluster's in its place is told."""
    path, index = await checkpointed(tmp_path / "db")
    own, other = b"\1" * 32, b"\2" * 32
    assert trust.examine(path, SETTINGS) == index
    for _ in range(2):
        assert trust.examine(path, SETTINGS, own) == index
        with pytest.raises(SnapshotCorruption, match="another cluster"):
            trust.examine(path, SETTINGS, other)
    assert read(path) == (index, NEWEST)


@pytest.mark.parametrize("header", [0, 252006675, 0x01010101 >> 1])
async def test_what_stands_in_the_header_is_no_evidence(tmp_path: Path, header: int) -> None:
    """There it stood in earlier releases, but it is a user's to set: such a database is taken over."""
    path, index = await checkpointed(tmp_path / "db")
    own, other = b"\1" * 32, b"\2" * 32
    connection = apsw.Connection(str(path), vfs="unix-excl")
    connection.execute(f"DROP TABLE _hiqlite_cluster; PRAGMA application_id = {header}").fetchall()
    connection.close(True)
    assert trust.examine(path, SETTINGS, own) == index
    with pytest.raises(SnapshotCorruption, match="another cluster"):
        trust.examine(path, SETTINGS, other)
    connection = apsw.Connection(str(path), vfs="unix-excl")
    assert connection.pragma("application_id") == (header if header == 252006675 else 0)
    connection.execute("PRAGMA application_id = 7").fetchall()
    connection.close(True)
    assert trust.examine(path, SETTINGS, own) == index
    trust.unstamp(path, SETTINGS)
    assert trust.stand_of(path, SETTINGS).cluster == ""
    assert trust.examine(path, SETTINGS, other) == index
    assert trust.stand_of(path, SETTINGS).cluster == other.hex()


async def test_a_full_text_index_that_its_user_spoilt_is_no_damage(tmp_path: Path) -> None:
    """SQLite's own check asks virtual tables, too; what they keep and how they were used is the same on all nodes."""
    path, index = await checkpointed(tmp_path / "db")
    connection = apsw.Connection(str(path), vfs="unix-excl")
    connection.execute(
        "CREATE TABLE source (body); INSERT INTO source VALUES ('one two'), ('three');"
        "CREATE VIRTUAL TABLE words USING fts4 (body, content='source')"
    ).fetchall()
    assert connection.execute("PRAGMA quick_check").fetchall() != [("ok",)]
    connection.close(True)
    assert trust.examine(path, SETTINGS) == index
    damaged = bytearray(path.read_bytes())
    damaged[3 * 4096 : 3 * 4096 + 64] = bytes([255]) * 64
    path.write_bytes(damaged)
    with pytest.raises(SnapshotCorruption, match="damaged"):
        trust.examine(path, SETTINGS)


def test_a_mark_that_is_none_begins_anew(tmp_path: Path) -> None:
    """Every bit of it is guarded; the file is then made, whole."""
    path = tmp_path / "a.db"
    data = CheckpointMark(7, 5).encode()
    assert CheckpointMark.decode(data) == CheckpointMark(7, 5)
    for at in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        assert CheckpointMark.decode(bytes(damaged)) is None
    for found in (b"", data[:-1], data + b"\0"):
        mark_path(path).write_bytes(found)
        assert trust.open_mark(path) == CheckpointMark()
        assert mark_path(path).read_bytes() == CheckpointMark().encode()


def test_a_database_of_an_earlier_format_is_refused(tmp_path: Path) -> None:
    """One without the column of group times is of an unreleased version: nothing of it is touched."""
    path = tmp_path / "a.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE _hiqlite_run(first_index, last_index INTEGER PRIMARY KEY, last_term)")
    connection.close()
    with pytest.raises(StorageError, match="another format") as caught:
        trust.examine(path, SETTINGS)
    assert not isinstance(caught.value, SnapshotCorruption)


async def test_a_database_that_somebody_else_has_open_is_in_use_and_not_damaged(tmp_path: Path) -> None:
    """Nothing can be known of it then: nothing is moved aside, and afterwards it is as it was."""
    path, index = await checkpointed(tmp_path / "made")
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM t').fetchall(); "
    program += "print(flush=True); input()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DataFolderInUse):
            trust.examine(path, SETTINGS)
        assert log_path(path).exists() and not log_path(path).with_name(log_path(path).name + ".aside").exists()
    assert trust.examine(path, SETTINGS) == index


async def test_only_what_is_in_the_file_is_durable_behind_a_start(tmp_path: Path) -> None:
    """What stands in SQLite's log alone may be lost with that log: the node's own log keeps it until it was moved."""
    path, index = await checkpointed(tmp_path / "db")
    async with opened(path, WriterSettings(apply_thread="always")) as driver:
        assert driver.writer.durable_index == driver.writer.applied_index == index
        driver.submit(execute("CREATE TABLE x(a)"))
        await driver.applied()
        crashed = tmp_path / "crashed" / "a.db"
        shutil.copytree(path.parent, crashed.parent)
    async with opened(crashed, WriterSettings(apply_thread="always")) as driver:
        assert (driver.writer.durable_index, driver.writer.applied_index) == (index, index + 1)
        driver.writer.set_synced_index(index + 1)
        driver.writer.make_durable()
        await eventually(lambda: driver.writer.durable_index == index + 1)


async def test_a_reader_that_leaves_late_lets_no_log_of_sqlite_be_cut_that_is_not_marked_as_moved(
    tmp_path: Path,
) -> None:
    """The last checkpoint moves a part, and what is left stays where it is: it is no damage at the next start."""
    path = tmp_path / "a.db"
    trust.open_mark(path)
    async with opened(path, WriterSettings(apply_thread="always")) as driver:
        driver.submit(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a)"), execute("INSERT INTO t VALUES (1, 1)"))
        await driver.applied()
        reader = open_reader(path)
        rows = reader.execute("SELECT id FROM t UNION ALL SELECT 2")
        next(rows)  # it stays in its snapshot
        driver.submit(execute("INSERT INTO t VALUES (2, 2)"))
        await driver.applied()
        driver.writer.set_synced_index(driver.writer.applied_index)
        leaves = threading.Timer(0.5, lambda: (rows.close(), reader.close()))
        leaves.start()
    leaves.join()
    assert log_path(path).stat().st_size > 0
    assert trust.examine(path, SETTINGS) == 3
