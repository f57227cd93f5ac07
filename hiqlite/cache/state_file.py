"""The file that keeps the cache group's state: whole or as it was before, whatever happens while it is written.

Must not know Raft. Blocks; belongs on a thread. Invariant: once `write` has returned, a loss of power takes nothing.
"""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from typing import Final

from hiqlite import durable
from hiqlite._accel.records import crc32c
from hiqlite.engine.model import Identity
from hiqlite.errors import DiskFull, SnapshotCorruption, StorageError

from .state import MAGIC, CacheState

_OWNER: Final = struct.Struct("<QQI")  # node id, incarnation, CRC of all before it


def read(path: Path, owner: Identity) -> CacheState:
    """The state in `path`; the empty one where there is no file.

    Raises:
        StorageError: the disk refuses, or another version wrote it. SnapshotCorruption: the file is damaged, is no
        file, or is not `owner`'s.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return CacheState()
    except IsADirectoryError as error:
        raise SnapshotCorruption(f"{path} is no file") from error
    except OSError as error:
        hint = "check the disk and the permissions"
        raise StorageError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    body, end = data[: -_OWNER.size], data[-_OWNER.size :]
    try:
        if len(end) != _OWNER.size or crc32c(data[:-4]) != _OWNER.unpack(end)[2]:
            raise SnapshotCorruption("the checksum of the cache group's state is wrong")
        if body[:7] == MAGIC[:7] and body[:8] != MAGIC:
            raise StorageError(f"{path} has another format", hint="start it with the version that wrote it")
        if _OWNER.unpack(end)[:2] != (owner.id, owner.incarnation):
            raise SnapshotCorruption("this is the state of another node, or of another incarnation")
        return CacheState.decode(body)
    except SnapshotCorruption as error:
        raise SnapshotCorruption(f"{path}: {error.message}") from error


def write(path: Path, state: CacheState, owner: Identity) -> None:
    """Raises DiskFull or StorageError; then the file is as it was, or this one and perhaps not durable."""
    body = state.encode() + _OWNER.pack(owner.id, owner.incarnation, 0)[:-4]
    try:
        durable.write_file(path, body + crc32c(body).to_bytes(4, "little"))
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"cannot write {path}: {error.strerror}", hint="check the disk") from error
