"""Opening connections: settings held and verified, clear errors, WAL and wal-index untouched by our VFS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from hiqlite.errors import DataFolderInUse, StorageError
from hiqlite.statemachine.authorizer import Role
from hiqlite.statemachine.connection import (
    LIMITS,
    VALUE_BYTES_MAX,
    ConnectionSettings,
    db_configs,
    open_inspector,
    open_reader,
    open_writer,
    pragmas,
    require_sqlite,
)

OPENERS = {Role.WRITER: open_writer, Role.READER: open_reader, Role.INSPECTOR: open_inspector}


@pytest.mark.parametrize("role", list(OPENERS))
@pytest.mark.parametrize("shared", [False, True])
def test_every_setting_of_the_tables_holds(tmp_path: Path, role: Role, shared: bool) -> None:
    """Read back from the connection itself, for each role and both kinds of access."""
    settings = ConnectionSettings(shared_access=shared, cache_kib=512)
    open_writer(tmp_path / "db", settings).close()
    connection = OPENERS[role](tmp_path / "db", settings)
    assert {name: connection.config(name, -1) for name in db_configs(role)} == db_configs(role)
    assert {name: connection.limit(name, -1) for name in LIMITS} == LIMITS
    assert pragmas(settings, role)["query_only"] == (role is not Role.WRITER)
    assert connection.open_vfs == ("hiqlite-shared" if shared else "hiqlite")
    with pytest.raises(apsw.Error, match=r"no such column|unrecognized|should this be a string"):
        connection.execute('SELECT "no such thing"').fetchall()
    connection.close()


def test_exclusive_access_keeps_the_wal_index_in_memory(tmp_path: Path) -> None:
    """unix-excl stays unix-excl below our VFS: no -shm file; readers see what the writer commits."""
    writer, reader = open_writer(tmp_path / "db"), open_reader(tmp_path / "db")
    writer.execute("CREATE TABLE t(a); INSERT INTO t VALUES(1)").fetchall()
    assert reader.execute("SELECT a FROM t").fetchall() == [(1,)]
    assert {path.name for path in tmp_path.iterdir()} == {"db", "db-wal"}
    writer.close()
    reader.close()


def test_shared_access_uses_a_shared_wal_index(tmp_path: Path) -> None:
    """Other processes may open the file then."""
    settings = ConnectionSettings(shared_access=True)
    writer, reader = open_writer(tmp_path / "db", settings), open_reader(tmp_path / "db", settings)
    writer.execute("CREATE TABLE t(a); INSERT INTO t VALUES(1)").fetchall()
    assert reader.execute("SELECT a FROM t").fetchall() == [(1,)]
    assert {path.name for path in tmp_path.iterdir()} == {"db", "db-wal", "db-shm"}
    writer.close()
    reader.close()


def test_closing_makes_no_checkpoint(tmp_path: Path) -> None:
    """A checkpoint may not pass what the log has synced, so only the apply thread makes one; the WAL is found again."""
    writer = open_writer(tmp_path / "db")
    writer.execute("CREATE TABLE t(a); INSERT INTO t VALUES(1)").fetchall()
    size = (tmp_path / "db").stat().st_size
    writer.close()
    assert (tmp_path / "db").stat().st_size == size
    assert (tmp_path / "db-wal").stat().st_size > 0
    again = open_writer(tmp_path / "db")
    assert again.execute("SELECT a FROM t").fetchall() == [(1,)]
    again.close()


OTHER = """
import sys, apsw
from hiqlite.statemachine.connection import open_writer, ConnectionSettings
connection = open_writer(sys.argv[1], ConnectionSettings(busy_timeout_ms=0))
connection.execute("CREATE TABLE IF NOT EXISTS t(a)").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


def test_a_database_that_another_process_has_open_is_data_folder_in_use(tmp_path: Path) -> None:
    """With exclusive access the second process gets one clear error."""
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path / "db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdin is not None
    assert other.stdout.readline() == "open\n"
    with pytest.raises(DataFolderInUse, match="another process"):
        open_writer(tmp_path / "db", ConnectionSettings(busy_timeout_ms=0))
    other.communicate()
    open_writer(tmp_path / "db").close()


def test_a_reader_makes_no_database(tmp_path: Path) -> None:
    """Only the writer may create the file."""
    with pytest.raises(StorageError, match="cannot be opened"):
        open_reader(tmp_path / "db")
    assert not (tmp_path / "db").exists()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    """One typed error that names the file."""
    (tmp_path / "db").write_bytes(b"this is no database, but long enough to have a header" * 40)
    with pytest.raises(StorageError, match="db: not a SQLite database"):
        open_writer(tmp_path / "db")


def test_a_database_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """Text must be UTF-8 on all nodes; an encoding cannot be changed afterwards."""
    plain = apsw.Connection(str(tmp_path / "db"))
    plain.execute("PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(a)").fetchall()
    plain.close()
    with pytest.raises(StorageError, match="PRAGMA encoding is 'UTF-16le', it must be 'UTF-8'"):
        open_writer(tmp_path / "db")


def test_an_old_sqlite_is_refused_with_both_versions() -> None:
    """The error names what is linked and what is needed."""
    with pytest.raises(StorageError, match=r"3\.51\.2, at least 3\.51\.3"):
        require_sqlite("3.51.2")
    require_sqlite("3.51.3")
    require_sqlite("3.100.0")


def test_values_that_are_too_long_are_refused_in_sql(tmp_path: Path) -> None:
    """zeroblob and concatenation have one limit on all nodes; LIKE patterns stay short."""
    connection = open_writer(tmp_path / "db")
    with pytest.raises(apsw.TooBigError):
        connection.execute(f"SELECT zeroblob({VALUE_BYTES_MAX + 1})").fetchall()
    with pytest.raises(apsw.SQLError, match="LIKE or GLOB pattern too complex"):
        connection.execute("SELECT 'a' LIKE ?", ("%a" * 600,)).fetchall()
    connection.close()
