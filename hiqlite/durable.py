"""Names and whole files that a loss of power does not take back. Blocks; belongs on a thread.

Must not know what the files mean. Invariants: what a function here did is on the disk when it returns, but for `drop`
and `move_aside`, which make room for what is synced then; what the disk does not tell is an OSError, never taken for a
name that is not there, as by Path.glob and, on some versions, by Path.exists.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

ABSENT = (FileNotFoundError, NotADirectoryError)


def names(folder: Path) -> list[str]:
    """Of what lies in a folder, in order; none where there is no folder."""
    try:
        return sorted(os.listdir(folder))
    except ABSENT:
        return []


def exists(path: Path) -> bool:
    """Whether anything has that name, a link that leads nowhere too."""
    try:
        os.lstat(path)
    except ABSENT:
        return False
    return True


def is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """0 where nothing is."""
    try:
        return os.stat(path).st_mode
    except ABSENT:
        return 0


def make_folder(path: Path) -> None:
    """Makes `path` and what is missing above it."""
    missing = [path]
    while not exists(missing[-1]) and missing[-1].parent != missing[-1]:
        missing.append(missing[-1].parent)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder)


def sync_folder(path: Path) -> None:
    """The names in a folder."""
    _sync(path, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """What anybody, a process that was killed too, has written to it. Raises FileNotFoundError."""
    _sync(path, 0)


def reread(path: Path) -> None:
    """As `sync_file`; and what is read next comes from the disk, as far as the system allows. After a sync that failed
    the memory holds what the disk does not, and no sync tells."""
    _sync(path, 0, forget=True)


def _sync(path: Path, flags: int, *, forget: bool = False) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
        if forget and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def drop(path: Path) -> None:
    """A file that is of no use goes; a folder in its place, which nobody here made, is moved out of the way."""
    if is_folder(path) and not path.is_symlink():
        move_aside(path)
    else:
        path.unlink(missing_ok=True)


def move_aside(path: Path) -> None:
    """What lies at `path` gets a name with ".aside" behind it. Of files the newest one is kept, of folders each."""
    target, number = path.with_name(path.name + ".aside"), 1
    while is_folder(target) or (exists(target) and is_folder(path)):
        number += 1
        target = path.with_name(f"{path.name}.aside{number}")
    os.replace(path, target)


def write_file(path: Path, data: bytes) -> None:
    """The file is as it was until all of `data` is on the disk. Mode 0600; `path` with ".tmp" behind is used for it."""
    half = path.with_name(path.name + ".tmp")
    drop(half)  # of an earlier life; it may be one that nobody may write to
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    half.replace(path)
    sync_folder(path.parent)
