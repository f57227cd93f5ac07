"""The file of the node's metadata: made, reserved, looked at, and opened by LMDB.

Must not know what is in it. Before LMDB maps the file its length is checked against both meta pages, and its pages are
looked at: a file cut short, or a damaged page, is no error to LMDB but a signal that ends the process. The file is kept
longer than all of it will ever need, its blocks reserved: so that check has no false alarms (LMDB may leave pages at
its end unwritten), and a full disk never keeps a vote from being recorded. Invariant: what is damaged is told from a
disk that refuses.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import lmdb

from hiqlite import durable
from hiqlite.errors import StorageError

from . import meta_pages

MAP_BYTES = 64 << 20
RESERVED_BYTES = 1 << 20
_META_BYTES = 152
_META_MAGIC = 0xBEEFC0DE
_META_FLAG = 0x08
DAMAGE = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.VersionMismatchError)


class MetaDamaged(StorageError):
    """What is there cannot be trusted. An error of the disk is none of these: it says nothing about what is on it."""


def open_folder(folder: Path) -> Any:
    """Opens or makes the environment in `folder`.

    Raises:
        MetaDamaged: the file is damaged or cut short, or something else lies in its place.
        StorageError: the disk refuses.
    """
    environment = None
    for path, is_right in ((folder, durable.is_folder), (folder / "data.mdb", durable.is_file)):
        if durable.exists(path) and not is_right(path):
            raise damaged(folder, f"something else lies in the place of {path}")
    try:
        durable.make_folder(folder)
        _remove_lock_file(folder / "lock.mdb")
        if not durable.exists(folder / "data.mdb"):
            make(folder)
        check_length(folder / "data.mdb")
        check_pages(folder / "data.mdb")
        environment = open_environment(folder)
        reserve(folder / "data.mdb")
    except (lmdb.Error, OSError) as error:
        if environment is not None:
            environment.close()
        if isinstance(error, DAMAGE):
            raise damaged(folder, str(error)) from error
        # A disk that refuses says nothing about what is on it: nobody must be told to throw that away.
        raise StorageError(f"cannot open the metadata in {folder}: {error}", hint="check the disk") from error
    return environment


def _remove_lock_file(path: Path) -> None:
    """LMDB's lock file is of no use to a folder that has one owner, and whatever stands in it may be wrong."""
    durable.drop(path)


def open_environment(path: Path, *, alone: bool = False) -> Any:
    """Opens or makes the environment in a folder, or `alone` in a file."""
    return lmdb.open(str(path), map_size=MAP_BYTES, max_spare_txns=2, mode=0o600, lib_version=0, subdir=not alone)


def make(folder: Path) -> None:
    """An empty environment in `folder`, all of it or nothing.

    LMDB writes its first pages without a thought for a crash in between: what that leaves cannot be told from metadata
    that were damaged later, and the node would never start. So the file gets its name when all of it is on disk.
    """
    making = folder / "making.tmp"
    for leftover in (making, making.with_name("making.tmp-lock")):
        durable.drop(leftover)
    open_environment(making, alone=True).close()
    reserve(making)
    making.rename(folder / "data.mdb")
    making.with_name("making.tmp-lock").unlink(missing_ok=True)
    durable.sync_folder(folder)


def reserve(path: Path) -> None:
    """Reserves the blocks of the file, durably."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, RESERVED_BYTES)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_length(path: Path) -> None:
    """Raises StorageError when the file is shorter than one of its two meta pages says, or they are none.

    Meta page of LMDB 0.9: header of 16 bytes (flags at 10), magic, version, ..., page size at 40, last page at 136.
    """
    if not durable.exists(path):
        return
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_META_BYTES)
        page_bytes = struct.unpack_from("<I", first, 40)[0] if len(first) == _META_BYTES else 0
        if page_bytes not in (4096, 8192, 16384, 32768, 65536):
            raise damaged(path.parent, "its first page is damaged")
        file.seek(page_bytes)
        second = file.read(_META_BYTES)
    for name, page in (("first", first), ("second", second)):
        if len(page) < _META_BYTES:
            raise damaged(path.parent, "the file was cut short")
        magic = struct.unpack_from("<I", page, 16)[0]
        if magic != _META_MAGIC or not struct.unpack_from("<H", page, 10)[0] & _META_FLAG:
            raise damaged(path.parent, f"its {name} meta page is damaged")
        if (struct.unpack_from("<Q", page, 136)[0] + 1) * page_bytes > size_bytes:
            raise damaged(path.parent, "the file was cut short")


def check_pages(path: Path) -> None:
    """Raises MetaDamaged when a page that is in use is not what LMDB takes it for. Its length is right."""
    content = path.read_bytes()
    try:
        meta_pages.check(content, struct.unpack_from("<I", content, 40)[0])
    except meta_pages.PagesDamaged as error:
        raise damaged(path.parent, str(error)) from error


def damaged(folder: Path, reason: str) -> MetaDamaged:
    return MetaDamaged(f"the metadata in {folder} cannot be trusted: {reason}")
