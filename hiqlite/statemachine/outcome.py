"""Which of SQLite's codes are results, equal on all nodes, and which speak of this node only (semantics.md 4.4).

The rule stands in native/apply_error.c, which decides while entries are applied; here it is told in words for people:
what stopped a state machine becomes an error of this product. Must not know entries, threads or connections.
Invariant: `failure_of` makes a StorageError of every code that stopped the applier, never a result.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import apsw

from hiqlite._accel.plain.read_errors import DAMAGED_HINT
from hiqlite.errors import DiskFull, SnapshotCorruption, StorageError

PRIMARY_MASK = 0xFF

KINDS: MappingProxyType[int, type[StorageError]] = MappingProxyType(
    {
        apsw.SQLITE_FULL: DiskFull,
        apsw.SQLITE_CORRUPT: SnapshotCorruption,
        apsw.SQLITE_NOTADB: SnapshotCorruption,
    }
)

# What was written before may be lost, and nothing tells: Linux forgets what a failed sync did not write.
SYNC_FAILED: Final = (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)

# What a person can do about a primary code; every other one is a mistake of ours or of the library below.
HINTS = MappingProxyType(
    {
        apsw.SQLITE_NOMEM: "memory ran out: give this node more, or send smaller writes",
        apsw.SQLITE_IOERR: "the disk failed: look at the system's log",
        apsw.SQLITE_FULL: "free some space; applying goes on by itself",
        apsw.SQLITE_CORRUPT: DAMAGED_HINT,
        apsw.SQLITE_NOTADB: DAMAGED_HINT,
        apsw.SQLITE_BUSY: "another process holds the database locked",
        apsw.SQLITE_LOCKED: "another process holds the database locked",
        apsw.SQLITE_CANTOPEN: "a file of the database cannot be opened: look at limits and permissions",
        apsw.SQLITE_READONLY: "the database cannot be written: look at permissions and mount options",
        apsw.SQLITE_INTERRUPT: "applying was interrupted because the node stops",
    }
)


def failure_of(code: int, message: str, index: int) -> StorageError:
    """The error for an applier that stopped by itself.

    Args:
        code: extended SQLite code.
        message: SQLite's words and what was being done.
        index: log index of the entry that was being applied, 0 if none was.
    """
    primary = code & PRIMARY_MASK
    where = f"entry {index}" if index else "the run"
    kind = KINDS.get(primary, StorageError)
    name = apsw.mapping_extended_result_codes.get(code) or apsw.mapping_result_codes.get(primary) or str(code)
    hint = "check the disk, then restart" if code in SYNC_FAILED else HINTS.get(primary, "please report this")
    return kind(f"applying stopped at {where}: {message} ({name})", hint=hint)
