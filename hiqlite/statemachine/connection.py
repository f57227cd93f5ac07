"""Opening SQLite connections: one way for the writer, the readers and the inspector, the same on every node.

Must not know Raft, entries or threads: whoever asked owns the connection and closes it. Invariant: a connection leaves
here with every setting of the tables below read back and found right, its guard attached, and nothing else allowed.

Why these settings: nodes must give the same answers, so everything that changes what a statement means is set and
never left to a build's default; a checkpoint may not pass what the log has synced, so SQLite never makes one by
itself, neither while writing (`wal_autocheckpoint`) nor at close (NO_CKPT_ON_CLOSE); plans of the writer may not depend
on values that were bound earlier (QPSG); shadow tables of virtual tables are read-only to SQL, else a user could damage
an index (DEFENSIVE).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from hiqlite._accel import guard
from hiqlite._accel.guard import Guard
from hiqlite.errors import DataFolderInUse, DiskFull, StorageError

from .authorizer import Role

SQLITE_VERSION_MIN: Final = (3, 51, 3)  # the first without the WAL-reset bug that can corrupt a database
# No text or blob in SQL is longer. A constant: a limit that a node's own settings moved would decide what an entry does
# there, now or when the log is applied again under other settings.
VALUE_BYTES_MAX: Final = 256 << 20
VFS_EXCLUSIVE: Final = "hiqlite"
VFS_SHARED: Final = "hiqlite-shared"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What may differ between nodes, because it matters for speed only."""

    shared_access: bool = False  # other processes may open the file; costs speed
    statement_cache: int = 1000  # prepared statements that apsw keeps
    cache_kib: int = 16 * 1024  # page cache of one connection
    busy_timeout_ms: int = 5000


Pragma = int | str


def open_writer(path: Path | str, settings: ConnectionSettings | None = None) -> apsw.Connection:
    """The connection that applies entries; makes the database when there is none.

    Raises:
        DataFolderInUse: another process has the file open. StorageError: it cannot be opened, is no database, or a
        setting does not hold.
    """
    return _open(Path(path), settings or ConnectionSettings(), Role.WRITER)


def open_reader(path: Path | str, settings: ConnectionSettings | None = None) -> apsw.Connection:
    """A connection for local reads of an existing database; its guard refuses everything that writes."""
    return _open(Path(path), settings or ConnectionSettings(), Role.READER)


def open_inspector(path: Path | str, settings: ConnectionSettings | None = None) -> apsw.Connection:
    """A connection that prepares under the writer's rules and never steps a user's statement."""
    return _open(Path(path), settings or ConnectionSettings(), Role.INSPECTOR)


def require_sqlite(version: str) -> None:
    """StorageError when the SQLite that apsw carries is older than what this product was proven with."""
    numbers = tuple(int(part) for part in version.split(".")[:3])
    if numbers < SQLITE_VERSION_MIN:
        wanted = ".".join(map(str, SQLITE_VERSION_MIN))
        raise StorageError(f"apsw carries SQLite {version}, at least {wanted} is needed", hint="upgrade apsw")


def _open(path: Path, settings: ConnectionSettings, role: Role) -> apsw.Connection:
    require_sqlite(apsw.sqlite_lib_version())
    guard.register_vfs()
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if role is Role.WRITER else 0)
    vfs = VFS_SHARED if settings.shared_access else VFS_EXCLUSIVE
    with translated(path):
        connection = apsw.Connection(str(path), flags=flags, vfs=vfs, statementcachesize=settings.statement_cache)
        try:
            _set_up(connection, settings, role, path)
        except BaseException:
            connection.close(True)
            raise
    return connection


def _set_up(connection: apsw.Connection, settings: ConnectionSettings, role: Role, path: Path) -> None:
    guard.load(connection)
    connection.set_busy_timeout(settings.busy_timeout_ms)
    for option, wanted in db_configs(role).items():
        _hold(path, f"db_config {option}", connection.config(option, wanted), wanted)
    for limit, wanted in LIMITS.items():
        connection.limit(limit, wanted)
        _hold(path, f"limit {limit}", connection.limit(limit, -1), wanted)
    if role is Role.WRITER:
        connection.execute("PRAGMA encoding = 'UTF-8'").fetchall()  # counts for a new file only
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    for name, value in pragmas(settings, role).items():
        connection.execute(f"PRAGMA {name} = {value}").fetchall()
    for name, value in {**REQUIRED, **pragmas(settings, role)}.items():
        _hold(path, f"PRAGMA {name}", connection.pragma(name), value)
    Guard(connection, role)


def pragmas(settings: ConnectionSettings, role: Role) -> dict[str, Pragma]:
    """Settings by PRAGMA, set and read back."""
    return {
        "synchronous": 1,  # NORMAL: durability is the log's, see the docs
        "foreign_keys": 1,
        "wal_autocheckpoint": 0,
        "journal_size_limit": 256 << 20,  # what a large write leaves of SQLite's log, or one that was only tried
        # What a reader sorts may be more than the memory holds: it goes to a file.
        "temp_store": 1 if role is Role.READER else 2,
        "cache_size": -settings.cache_kib,
        "mmap_size": 0,  # a truncated file would be SIGBUS
        "recursive_triggers": 0,
        "automatic_index": 1,
        "analysis_limit": 0,
        "threads": 0,
        "secure_delete": 0,
        "query_only": 0 if role is Role.WRITER else 1,
    }


# Settings of the file, verified on every connection.
REQUIRED: Final[dict[str, Pragma]] = {
    "journal_mode": "wal",
    "encoding": "UTF-8",
    "locking_mode": "normal",
    "read_uncommitted": 0,
    "ignore_check_constraints": 0,
    "defer_foreign_keys": 0,
}


def db_configs(role: Role) -> dict[int, int]:
    """Settings by sqlite3_db_config, set and read back."""
    writes = 0 if role is Role.READER else 1
    return {
        apsw.SQLITE_DBCONFIG_DQS_DML: 0,
        apsw.SQLITE_DBCONFIG_DQS_DDL: 0,
        apsw.SQLITE_DBCONFIG_ENABLE_FKEY: 1,
        apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER: 1,
        apsw.SQLITE_DBCONFIG_ENABLE_VIEW: 1,
        apsw.SQLITE_DBCONFIG_LEGACY_ALTER_TABLE: 0,
        apsw.SQLITE_DBCONFIG_LEGACY_FILE_FORMAT: 0,
        apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA: 0,
        apsw.SQLITE_DBCONFIG_REVERSE_SCANORDER: 0,
        apsw.SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER: 0,
        apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION: 0,
        apsw.SQLITE_DBCONFIG_ENABLE_COMMENTS: 1,
        apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE: 1,
        apsw.SQLITE_DBCONFIG_DEFENSIVE: 1,
        # On for readers, too: else a schema that the writer accepts, a CHECK with MATCH for one, is damage to them.
        # What no schema may call is refused by name (guard_rules.c).
        apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA: 1,
        apsw.SQLITE_DBCONFIG_ENABLE_QPSG: writes,
    }


# By sqlite3_limit, set and read back: a statement must pass or fail on all nodes alike.
LIMITS: Final[dict[int, int]] = {
    apsw.SQLITE_LIMIT_LENGTH: VALUE_BYTES_MAX,
    apsw.SQLITE_LIMIT_SQL_LENGTH: VALUE_BYTES_MAX,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    apsw.SQLITE_LIMIT_VARIABLE_NUMBER: 32766,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
    apsw.SQLITE_LIMIT_COLUMN: 2000,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 1000,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 500,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 1000,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 1000,
}


def _hold(path: Path, what: str, found: object, wanted: Pragma) -> None:
    if found != wanted:
        raise StorageError(f"{path}: {what} is {found!r}, it must be {wanted!r}")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """The one door of this room for apsw's exceptions while a database is opened."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise DataFolderInUse(f"{path}: another process has the database open", hint="stop it first") from error
    except apsw.FullError as error:
        raise DiskFull(f"{path}: no space left: {error}") from error
    except apsw.NotADBError as error:
        raise StorageError(f"{path}: not a SQLite database") from error
    except apsw.Error as error:
        raise StorageError(f"{path}: the database cannot be opened: {error}") from error
