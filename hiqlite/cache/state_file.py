"""The file that keeps the cache group's state: whole or as it was before, whatever happens while it is written.

Must not know Raft. Blocks; belongs on a thread. Invariant: once `write` has returned, a loss of power takes nothing.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hiqlite.errors import DiskFull, SnapshotCorruption, StorageError

from .state import CacheState


def read(path: Path) -> CacheState:
    """The state in `path`; the empty one where there is no file.

    Raises:
        StorageError: the disk refuses. SnapshotCorruption: the file is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return CacheState()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}", hint="check the disk") from error
    try:
        return CacheState.decode(data)
    except SnapshotCorruption as error:
        hint = "restore this node's folder, or remove it to start this node empty"
        raise SnapshotCorruption(f"{path}: {error.message}", hint=hint) from error


def write(path: Path, state: CacheState) -> None:
    """Raises DiskFull or StorageError; then the file is as it was, or this one and perhaps not durable."""
    half = path.with_suffix(".tmp")
    try:
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            data = memoryview(state.encode())
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        half.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"cannot write {path}: {error.strerror}", hint="check the disk") from error
