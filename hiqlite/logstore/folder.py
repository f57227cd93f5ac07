"""The data folder: who owns it, and where in it things stand.

Must not know what the files mean. Invariant: while a DataFolder is open, no other process has it open; the lock is the
kernel's, so it goes with the process however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from hiqlite._accel import forks
from hiqlite.errors import DataFolderInUse, StorageError

GROUP_NAMES = ("db", "cache")
DB, CACHE = 0, 1  # numbers of the groups


class DataFolder:
    """A locked data folder, created with mode 0700 where it is missing.

    Raises:
        DataFolderInUse: another process (named by its pid when it can be read) or this one has it open.
        StorageError: it cannot be made or is no folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"cannot use data folder {self.path}: {error.strerror}", hint="check data_dir and its permissions"
            ) from error
        try:
            self._take_lock()
        except BaseException:
            os.close(self._lock_fd)
            raise
        forks.watch(self)

    @property
    def meta(self) -> Path:
        return self.path / "meta"

    @property
    def log_folder(self) -> Path:
        """Holds one folder per group."""
        return self.path / "log"

    def log(self, group: int) -> Path:
        return self.log_folder / GROUP_NAMES[group]

    @property
    def databases(self) -> Path:
        """Holds one folder per generation."""
        return self.path / "db"

    @property
    def cache(self) -> Path:
        """Holds the cache group's state."""
        return self.path / "cache"

    @property
    def images(self) -> Path:
        """Images of the database on their way out and in; on the file system of the databases, to be moved there."""
        return self.databases / "images"

    def close(self) -> None:
        """Gives the folder up. May be called again."""
        if self._lock_fd >= 0:
            forks.forget(self)
            os.close(self._lock_fd)
            self._lock_fd = -1

    def left_to_parent(self) -> None:
        """In a forked child, which must not keep the folder locked when the parent is gone."""
        os.close(self._lock_fd)
        self._lock_fd = -1

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StorageError(f"cannot lock data folder {self.path}: {error.strerror}") from error
            pid = os.pread(self._lock_fd, 20, 0).decode("ascii", "replace").strip()
            holder = f"process {pid}" if pid.isdigit() else "another process"
            raise DataFolderInUse(
                f"data folder {self.path} is in use by {holder}",
                hint="one node per data folder: stop the other one or give another data_dir",
            ) from error
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)
