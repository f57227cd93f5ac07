"""The files of a data folder, by kind, and what can happen to each of them."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lmdb
import msgpack

from hiqlite._accel.wal import crc32c
from hiqlite.cache.state import MAGIC as CACHE_MAGIC
from hiqlite.logstore.aside import EVIDENCE
from hiqlite.logstore.segments import CRC, HEADER
from hiqlite.statemachine.trust import MAGIC as MARK_MAGIC

NEEDLE = "stands once in each file that holds what was written last"


UNUSED = ("making", "prepared", "spare0", "spare1")  # files beside the segments of a group's log
CACHE_NEEDLE = 7_654_321  # in the cache group's log, in the same way
FORMAT_OF_SEGMENT = (HEADER.size, HEADER.size)


def segment(which: int, group: str = "db") -> Callable[[Path], Path]:
    """Of a group's log, by age: 0 the oldest, -1 the newest."""
    return lambda folder: sorted((folder / "log" / group).glob("*.wal"))[which]


def unused(group: str, name: str) -> Kind:
    """A file beside the segments of a group's log."""
    return Kind(f"log/{group}/{name}.tmp", lambda folder: folder / "log" / group / f"{name}.tmp")


def image(pattern: str) -> Kind:
    """A file that belongs to an image of the database."""
    return Kind(f"db/images/{pattern}", lambda folder: next((folder / "db" / "images").glob(pattern)))


def generation(folder: Path) -> Path:
    return next(one for one in (folder / "db").iterdir() if re.fullmatch(r"[0-9a-f]{16}", one.name))


def beside_database(ending: str) -> Callable[[Path], Path]:
    return lambda folder: generation(folder) / f"hiqlite.db{ending}"


@dataclass(frozen=True)
class Kind:
    """A file or folder of a data folder.

    Attributes:
        name: as docs/operations.md names it.
        at: where it is in a data folder.
        flip_at: which byte a flipped bit hits, given the bytes; None: the middle.
        version_at: which byte says the format, if any does.
        crc: (beginning, end, place) of a checksum that a change of the format brings along.
    """

    name: str
    at: Callable[[Path], Path]
    is_folder: bool = False
    flip_at: Callable[[bytes], int] | None = None
    version_at: int | None = None
    crc: tuple[int, int] | None = None  # end of what it is over, and where it stands


def needle(data: bytes) -> int:
    return data.rindex(NEEDLE.encode())


def cache_needle(data: bytes) -> int:
    return data.rindex(msgpack.packb(CACHE_NEEDLE)) + 1


FILES = (
    Kind("lock", lambda folder: folder / "lock"),
    Kind("meta/data.mdb", lambda folder: folder / "meta" / "data.mdb", flip_at=lambda data: 16),
    Kind("meta/lock.mdb", lambda folder: folder / "meta" / "lock.mdb", flip_at=lambda data: 0),
    Kind("meta/making.tmp", lambda folder: folder / "meta" / "making.tmp"),
    Kind("log/db/*.wal, newest", segment(-1), flip_at=lambda data: 33, version_at=8, crc=FORMAT_OF_SEGMENT),
    Kind("log/db/*.wal, older", segment(-2), flip_at=lambda data: 33, version_at=8, crc=FORMAT_OF_SEGMENT),
    Kind("log/db/*.wal, an entry", segment(-1), flip_at=needle),
    *(unused("db", name) for name in UNUSED),
    Kind("log/cache/*.wal, newest", segment(-1, "cache"), flip_at=lambda data: 33, version_at=8,
         crc=FORMAT_OF_SEGMENT),
    Kind("log/cache/*.wal, older", segment(-2, "cache"), flip_at=lambda data: 33, version_at=8,
         crc=FORMAT_OF_SEGMENT),
    Kind("log/cache/*.wal, an entry", segment(-1, "cache"), flip_at=cache_needle),
    *(unused("cache", name) for name in UNUSED),
    Kind("db/*/hiqlite.db", beside_database(""), flip_at=lambda data: 20 * 4096),
    Kind("db/*/hiqlite.db-wal", beside_database("-wal"), flip_at=lambda data: 32 + 24 + 2000),
    Kind("db/*/hiqlite.db-mark", beside_database("-mark"), version_at=7, crc=(36, 36)),
    Kind("db/*/hiqlite.db-mark.tmp", beside_database("-mark.tmp")),
    Kind("db/*/hiqlite.db-shm", beside_database("-shm")),
    *(image(pattern) for pattern in ("in-*.db", "in-*.manifest", "in-*.half", "out-*.db")),
    Kind("cache/state", lambda folder: folder / "cache" / "state", version_at=7),
    Kind("cache/state.tmp", lambda folder: folder / "cache" / "state.tmp"),
    Kind("aside/clusters", lambda folder: folder / "aside" / "clusters"),
    Kind("aside/*/diverged.txt", lambda folder: folder / "aside" / "2-moved-db" / EVIDENCE),
)  # fmt: skip
FOLDERS = (
    Kind("meta", lambda folder: folder / "meta", is_folder=True),
    Kind("log", lambda folder: folder / "log", is_folder=True),
    Kind("log/db", lambda folder: folder / "log" / "db", is_folder=True),
    Kind("log/cache", lambda folder: folder / "log" / "cache", is_folder=True),
    Kind("db", lambda folder: folder / "db", is_folder=True),
    Kind("db/*", generation, is_folder=True),
    Kind("db/images", lambda folder: folder / "db" / "images", is_folder=True),
    Kind("db/images/rehearsal-*", lambda folder: folder / "db" / "images" / "rehearsal-1", is_folder=True),
    Kind("cache", lambda folder: folder / "cache", is_folder=True),
    Kind("aside", lambda folder: folder / "aside", is_folder=True),
    Kind("kept", lambda folder: folder / "kept", is_folder=True),
    Kind("evidence", lambda folder: folder / "evidence", is_folder=True),
    Kind("the data folder", lambda folder: folder, is_folder=True),
)
KINDS = {kind.name: kind for kind in (*FILES, *FOLDERS)}


@dataclass(frozen=True)
class Others:
    """Where foreign files come from: another node of the same cluster, the same node of another one."""

    node: Path
    cluster: Path


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def missing(kind: Kind, folder: Path, others: Others) -> None:
    remove(kind.at(folder))


def empty(kind: Kind, folder: Path, others: Others) -> None:
    path = kind.at(folder)
    if kind.is_folder:
        remove(path)
        path.mkdir()
    else:
        os.truncate(path, 0)


def truncated(kind: Kind, folder: Path, others: Others) -> None:
    """To half; LMDB's file to half of what is used of it."""
    path = kind.at(folder)
    size = path.stat().st_size
    os.truncate(path, 6000 if path.name == "data.mdb" else size // 2)


def flipped(kind: Kind, folder: Path, others: Others) -> None:
    path = kind.at(folder)
    data = bytearray(path.read_bytes())
    data[kind.flip_at(bytes(data)) if kind.flip_at else len(data) // 2] ^= 0x10
    path.write_bytes(data)


def of_another_node(kind: Kind, folder: Path, others: Others) -> None:
    put_in_place(kind.at(others.node), kind.at(folder))


def of_another_cluster(kind: Kind, folder: Path, others: Others) -> None:
    put_in_place(kind.at(others.cluster), kind.at(folder))


def put_in_place(source: Path, target: Path) -> None:
    remove(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def older(kind: Kind, folder: Path, others: Others) -> None:
    change_format(kind, folder, -1)


def newer(kind: Kind, folder: Path, others: Others) -> None:
    change_format(kind, folder, 1)


def change_format(kind: Kind, folder: Path, by: int) -> None:
    path = kind.at(folder)
    if path.name == "data.mdb":
        with lmdb.open(str(path.parent), map_size=64 << 20, lib_version=0) as environment, environment.begin(
            write=True
        ) as transaction:
            packed = msgpack.packb(msgpack.unpackb(transaction.get(b"format")[:-4]) + by)
            transaction.put(b"format", packed + struct.pack("<I", crc32c(b"format" + packed)))
        return
    data = bytearray(path.read_bytes())
    assert kind.version_at is not None
    data[kind.version_at] += by
    if kind.crc is not None:
        end, at = kind.crc
        CRC.pack_into(data, at, crc32c(bytes(data[:end])))
    elif data[: len(CACHE_MAGIC) - 1] == CACHE_MAGIC[:-1] or data[: len(MARK_MAGIC) - 1] == MARK_MAGIC[:-1]:
        CRC.pack_into(data, len(data) - 4, crc32c(bytes(data[:-4])))
    path.write_bytes(data)


def unreadable(kind: Kind, folder: Path, others: Others) -> None:
    kind.at(folder).chmod(0)


def read_only(kind: Kind, folder: Path, others: Others) -> None:
    kind.at(folder).chmod(0o555 if kind.is_folder else 0o444)


def something_else(kind: Kind, folder: Path, others: Others) -> None:
    """A folder in a file's place, a file in a folder's."""
    path = kind.at(folder)
    remove(path)
    if kind.is_folder:
        path.write_text("no folder")
    else:
        path.mkdir()
        (path / "what is this").write_text("no idea")


Damage = Callable[[Kind, Path, Others], None]
DAMAGES: dict[str, Damage] = {
    "missing": missing,
    "empty": empty,
    "truncated": truncated,
    "a flipped bit": flipped,
    "of another node": of_another_node,
    "of another cluster": of_another_cluster,
    "of an older format": older,
    "of a newer format": newer,
    "unreadable": unreadable,
    "read-only": read_only,
    "something else in its place": something_else,
}
# What cannot be: a folder has no bits, and only some files say their format.
NOT_OF_FOLDERS = ("truncated", "a flipped bit", "of an older format", "of a newer format")


def can_be(kind: Kind, damage: str) -> bool:
    if kind.name.endswith(".wal, an entry"):  # otherwise it is the newest segment
        return damage == "a flipped bit"
    if kind.is_folder:
        return damage not in NOT_OF_FOLDERS and not (kind.name == "the data folder" and damage.startswith("of another"))
    if damage in ("of an older format", "of a newer format"):
        return kind.version_at is not None or kind.name == "meta/data.mdb"
    return True


CASES = tuple((kind.name, damage) for kind in KINDS.values() for damage in DAMAGES if can_be(kind, damage))
