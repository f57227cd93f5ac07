"""Whether a database that lies on the disk may be trusted, looked at before it is opened.

SQLite's checks are not enough. Its log carries checksums, and where one is wrong it is cut: if a checkpoint had moved
pages from behind that place, older pages are read over newer ones, and nothing looks wrong. So the checkpoint mark
beside the database (native/apply_mark.c, docs/formats.md section 9) is compared with where the database stands.
Must not know the node's log, Raft or images. Invariant: what `examine` lets pass is the state behind one run, whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import apsw

from hiqlite import durable, observe
from hiqlite._accel import guard
from hiqlite._accel.records import crc32c
from hiqlite.errors import DataFolderInUse, SnapshotCorruption, StorageError

from .connection import VFS_EXCLUSIVE, VFS_SHARED, ConnectionSettings
from .image import fault_in, position_of

MAGIC: Final = b"HQCHKPT3"
MAGIC_BEFORE: Final = b"HQCHKPT1"  # of 0.2.0, which noted the salt at a checkpoint only
_BODY: Final = struct.Struct("<8sQQ4sQ")
_BODY_BEFORE: Final = struct.Struct("<8sQQ4s")
_CRC: Final = struct.Struct("<I")
# SQLite's own check reads the whole file: at each start only of one that is read in no time.
LOG_HEAD_BYTES: Final = 32  # of SQLite's log; the salt at 16
NO_SALT: Final = bytes(4)
# SQLite adds 1 to the salt when it begins its log anew: at most twice behind one mark, which each checkpoint writes.
TURNS_MAX: Final = 4
CHECKED_BYTES_MAX: Final = 16 << 20
log = observe.logger("statemachine")


@dataclass(frozen=True, slots=True)
class CheckpointMark:
    """`begun`: entries up to here may have been moved into the database file; `done`: all up to here have; `salt`: of
    SQLite's log when that began, or when the log was made; zero: there was none, or it is not known; `file`: the number
    that the database file says once a checkpoint has completed it; 0: not known."""

    begun: int = 0
    done: int = 0
    salt: bytes = NO_SALT
    file: int = 0

    def encode(self) -> bytes:
        body = _BODY.pack(MAGIC, self.begun, self.done, self.salt, self.file)
        return body + _CRC.pack(crc32c(body))

    @classmethod
    def decode(cls, data: bytes) -> CheckpointMark | None:
        """None for bytes that are no mark."""
        body = data[: -_CRC.size]
        if len(body) not in (_BODY.size, _BODY_BEFORE.size) or data[len(body) :] != _CRC.pack(crc32c(body)):
            return None
        if len(body) == _BODY.size:
            magic, begun, done, salt, file = _BODY.unpack(body)
            return cls(begun, done, salt, file) if magic == MAGIC else None
        magic, begun, done, salt = _BODY_BEFORE.unpack(body)
        # What it says of a log is needed where the file is not complete, and else may be of one that is gone.
        return cls(begun, done, salt if begun != done else NO_SALT) if magic == MAGIC_BEFORE else None


def mark_path(database: Path) -> Path:
    return database.with_name(database.name + "-mark")


def log_path(database: Path) -> Path:
    """SQLite's own log."""
    return database.with_name(database.name + "-wal")


def _mark_at(database: Path) -> CheckpointMark | None:
    """None: there is none, or what lies there is none."""
    path = mark_path(database)
    return CheckpointMark.decode(path.read_bytes()) if durable.is_file(path) else None


def open_mark(database: Path) -> CheckpointMark:
    """The mark beside `database`; where there is none, or what lies there is none, an empty one is made, durably.

    Only one file is taken to be damaged at a time: without its mark a database is trusted as SQLite finds it.
    """
    path, known = mark_path(database), _mark_at(database)
    if known is not None and path.stat().st_size == len(known.encode()):
        return known
    if known is None and durable.exists(path):
        log.warning("%s is damaged, and begins anew", path)
        if durable.is_folder(path):
            durable.move_aside(path)
    mark = known or CheckpointMark()  # of an earlier release: from now on as this one writes it
    durable.write_file(path, mark.encode())
    return mark


def stamp(database: Path, settings: ConnectionSettings, cluster_id: bytes) -> None:
    """From now on the database says of which cluster it is; of one that nobody else writes to. Blocks.

    Raises:
        StorageError: the disk refuses.
    """
    with _opened(database, settings) as connection:
        _put_stamp(connection, cluster_id)


def unstamp(database: Path, settings: ConnectionSettings) -> None:
    """The database says of no cluster that it is its own; of one that nobody else writes to. Blocks."""
    if durable.exists(database) and database.stat().st_size > 0:
        _look(database, settings, None)
        _expect_new_log(database)
        with _opened(database, settings) as connection:
            _put_stamp(connection, None)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a database stands: its last entry's index and term, and the id in hex of its cluster; "": it says none."""

    index: int = 0
    term: int = 0
    cluster: str = ""


def stand_of(database: Path, settings: ConnectionSettings) -> Stand:
    """Looked at, and not touched. Raises as `examine` does; what is not there stands nowhere."""
    if not durable.is_file(database) or database.stat().st_size == 0:
        return Stand()
    found, _ = _look(database, settings, None)
    if found == 0:
        return Stand()
    with _opened(database, settings) as connection:
        position = position_of(connection)
        return Stand(position.applied_index, position.applied_term, _cluster_in(connection))


def stamp_in(database: Path, settings: ConnectionSettings) -> str | None:
    """What the database says of its cluster; "": it holds nothing yet; None: it cannot be told. Changes nothing."""
    if not durable.is_file(database) or database.stat().st_size == 0:
        return None
    try:
        with _opened(database, settings) as connection:
            if not _has_runs(connection):
                return ""
            return _cluster_in(connection) or (None if position_of(connection).applied_index else "")
    except StorageError:
        return None


def examine(database: Path, settings: ConnectionSettings, cluster_id: bytes | None = None) -> int:
    """Where the database at `database` stands: the last entry in it, 0 for one that is still to be made.

    SQLite's log is moved aside where it is damaged and not needed: when all that it may have given to the database file
    is there. The entries behind that are then missing, and come from the node's log.

    Raises:
        SnapshotCorruption: it is damaged. DataFolderInUse: another process has it open. StorageError: the disk or the
        system refuses.
    """
    try:
        _bring_to_disk(database)
        found = _examine(database, settings, cluster_id)
        if found > 0 and cluster_id is not None:  # last: what writes to SQLite's log changes what can be judged by it
            _expect_new_log(database)
            stamp(database, settings, cluster_id)
        return found
    except OSError as error:
        raise StorageError(
            f"{error.filename or database}: {error.strerror}", hint="check the disk and the permissions"
        ) from error


def _bring_to_disk(database: Path) -> None:
    """What a process that was killed had written; of SQLite's log what is there then, and not what is in memory only.
    Before SQLite opens them: closing a descriptor later would drop its locks."""
    for file, bring in ((database, durable.sync_file), (log_path(database), durable.reread)):
        if durable.is_file(file):
            bring(file)


def _examine(database: Path, settings: ConnectionSettings, cluster_id: bytes | None) -> int:
    mark = open_mark(database)
    _drop_if_no_file(log_path(database), mark)
    for path in (database.with_name(database.name + "-shm"), database.with_name(database.name + "-journal")):
        if durable.exists(path) and not durable.is_file(path):
            durable.move_aside(path)
    if durable.exists(database) and not durable.is_file(database):
        raise SnapshotCorruption(f"{database} is no file")
    if not durable.exists(database) or database.stat().st_size == 0:
        # SQLite would remove its log, as that of another database, and begin an empty one.
        log_bytes = log_path(database).stat().st_size if durable.exists(log_path(database)) else 0
        if mark.begun > 0 or log_bytes > 0:
            raise SnapshotCorruption(f"{database} is missing or empty")
        return 0
    for path in (database, log_path(database), mark_path(database)):
        if durable.exists(path):
            path.open("r+b").close()  # it may be written; SQLite would go on as a reader
    if not settings.shared_access:  # others may move pages beside this one, and be cut short
        mark = _check_file(database, mark)
    if _is_foreign(log_path(database), mark):
        _drop_log(database, mark, f"{log_path(database)} is not the log of this database")
    found, frames = _look(database, settings, cluster_id)
    if found >= mark.begun and (frames > 0 or mark.done == mark.begun or _is_begun_anew(log_path(database), mark)):
        return found
    _drop_log(database, mark, f"{log_path(database)} is damaged: the database goes back to entry {found}")
    found, _ = _look(database, settings, cluster_id)
    if found < mark.done:
        raise SnapshotCorruption(f"{database} ends at entry {found}, it held all up to {mark.done}")
    return found


def _drop_log(database: Path, mark: CheckpointMark, what: str) -> None:
    """SQLite's log is moved aside; raises SnapshotCorruption if the database needs the one that it had."""
    if mark.done != mark.begun:
        raise SnapshotCorruption(f"{what}, and holds parts of entries up to {mark.begun}")
    log.warning("%s; it is moved aside, the database holds all up to %d without it", what, mark.done)
    durable.move_aside(log_path(database))


def _head_of(log_file: Path) -> bytes:
    """Of SQLite's log; empty: there is none, or what stands there is no head."""
    if not durable.is_file(log_file):
        return b""
    with log_file.open("rb") as file:
        head = file.read(LOG_HEAD_BYTES)
    return head if len(head) == LOG_HEAD_BYTES and _is_log_head(head) else b""


def _check_file(database: Path, mark: CheckpointMark) -> CheckpointMark:
    """The mark, if it is this file's; else a new one. SQLite would read its log over any file: what a checkpoint has
    completed can be looked at without it.

    Raises SnapshotCorruption for a file of another node, or of earlier days.
    """
    if mark.done == 0 or mark.done != mark.begun:
        return mark
    try:
        uri = f"file:{quote(str(database))}?immutable=1"
        with closing(apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)) as connection:
            numbers = _numbers_in(connection) if mark.file else []
            found = position_of(connection).applied_index if _has_runs(connection) else 0
    except apsw.Error:
        return mark  # whether that is damage is judged with the log
    if numbers and numbers != [mark.file]:
        if _head_of(log_path(database)) and not _is_foreign(log_path(database), mark):
            raise SnapshotCorruption(f"{database} is not the file that lay here: it is another database's")
        log.warning("%s is another database's, and begins anew", mark_path(database))
        durable.write_file(mark_path(database), CheckpointMark().encode())
        return CheckpointMark()
    if found < mark.done:
        raise SnapshotCorruption(f"{database} ends at entry {found}, it held all up to {mark.done}")
    return mark


def _numbers_in(connection: apsw.Connection) -> list[int]:
    """What the database says of its file; nothing where none was written yet."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = '_hiqlite_file'").fetchall():
        return []
    return [number for (number,) in connection.execute("SELECT id FROM _hiqlite_file")]


def _is_foreign(log_file: Path, mark: CheckpointMark) -> bool:
    """Whether it is a log that SQLite made beside another database, of this or of another node."""
    head = _head_of(log_file)
    turns = int.from_bytes(head[16:20], "big") - int.from_bytes(mark.salt, "big")
    return head != b"" and mark.salt != NO_SALT and turns % (1 << 32) > TURNS_MAX


def _is_begun_anew(log_file: Path, mark: CheckpointMark) -> bool:
    """SQLite begins its log anew only once all of it is in the database file."""
    head = _head_of(log_file)
    return head != b"" and head[16:20] != mark.salt


def _expect_new_log(database: Path) -> None:
    """Before something is written where SQLite has no log yet: it draws a new salt. In place, as the apply thread does,
    which does the same when it begins: beside it there is nothing left to do."""
    known = _mark_at(database)
    if known is None or known.salt == NO_SALT or _head_of(log_path(database)):
        return
    with mark_path(database).open("r+b") as file:
        file.write(replace(known, salt=NO_SALT).encode())
        file.flush()
        os.fdatasync(file.fileno())


def _is_log_head(head: bytes) -> bool:
    """Whether SQLite's checksum of the head of its log is right (fileformat2.html, section 4.2)."""
    order = ">" if head[3] & 1 else "<"
    first = second = 0
    for left, right in struct.iter_unpack(order + "II", head[:24]):
        first = (first + left + second) & 0xFFFFFFFF
        second = (second + right + first) & 0xFFFFFFFF
    return struct.unpack(">II", head[24:]) == (first, second)


def _drop_if_no_file(log_file: Path, mark: CheckpointMark) -> None:
    """What lies in the place of SQLite's log and is no file: the same as no log."""
    if durable.exists(log_file) and not durable.is_file(log_file):
        if mark.done != mark.begun:
            raise SnapshotCorruption(f"{log_file} is no file")
        durable.move_aside(log_file)


def _has_runs(connection: apsw.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = '_hiqlite_run'").fetchall())


def _look(database: Path, settings: ConnectionSettings, cluster_id: bytes | None) -> tuple[int, int]:
    """(last entry in the database, pages of SQLite's log that count). What says no cluster yet is of this one."""
    with _opened(database, settings) as connection:
        if not _has_runs(connection):
            return 0, 0
        if cluster_id is not None and _cluster_in(connection) not in ("", cluster_id.hex()):
            raise SnapshotCorruption(f"{database} is the database of another cluster")
        found = position_of(connection).applied_index
        frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        if database.stat().st_size <= CHECKED_BYTES_MAX and (fault := fault_in(connection)):
            raise SnapshotCorruption(f"{database} is damaged: {fault}")
        return found, frames


@contextmanager
def _opened(database: Path, settings: ConnectionSettings) -> Iterator[apsw.Connection]:
    """For a look. Raises SnapshotCorruption, DataFolderInUse, StorageError, from inside too."""
    guard.register_vfs()
    vfs = VFS_SHARED if settings.shared_access else VFS_EXCLUSIVE
    try:
        connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
        with closing(connection):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # else this very look would move pages
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1)  # as the writer: else what it accepts is damage
            connection.set_busy_timeout(settings.busy_timeout_ms)
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            connection.execute("PRAGMA cell_size_check = 1").fetchall()
            yield connection
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise SnapshotCorruption(f"{database} is damaged: {error}") from error
    except apsw.SQLError as error:  # a table of ours without a column of ours
        raise StorageError(
            f"{database} has another format: {error}", hint="start it with the version that wrote it"
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        # Nothing is known of it then; what is not known to be damaged must not be thrown away.
        raise DataFolderInUse(f"{database}: another process has the database open", hint="stop it first") from error
    except apsw.Error as error:
        raise StorageError(
            f"{database}: the database cannot be opened: {error}", hint="check the disk and the permissions"
        ) from error


# Where it says of which cluster it is; the writer makes it, too. Before this table it was in `application_id`, which
# users may set: what stands there is no evidence.
STAMPS: Final = "CREATE TABLE IF NOT EXISTS _hiqlite_cluster(id BLOB NOT NULL)"


def _cluster_in(connection: apsw.Connection) -> str:
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = '_hiqlite_cluster'").fetchall():
        return ""
    found: list[Any] = connection.execute("SELECT hex(id) FROM _hiqlite_cluster").fetchall()
    return str(found[0][0]).lower() if found else ""


def _old_stamp(cluster_id: bytes) -> int:
    """What `application_id` said in a database of that cluster."""
    return int.from_bytes(cluster_id[:4], "big") >> 1 or 1


def _put_stamp(connection: apsw.Connection, cluster_id: bytes | None) -> None:
    """None: it is of no cluster from now on."""
    if cluster_id is not None and _cluster_in(connection) == cluster_id.hex():
        return
    with connection:
        if cluster_id is not None and connection.pragma("application_id") == _old_stamp(cluster_id):
            connection.execute("PRAGMA application_id = 0").fetchall()
        connection.execute(STAMPS).fetchall()
        connection.execute("DELETE FROM _hiqlite_cluster").fetchall()
        if cluster_id is not None:
            connection.execute("INSERT INTO _hiqlite_cluster VALUES (?)", (cluster_id,)).fetchall()
