"""A database as one plain file with a manifest: copied out beside running writes, checked before it is taken in.

Copied page by page inside one read transaction, never by `VACUUM INTO`, which would give rows new rowids. What the read
transaction sees is the image, pages that stand only in SQLite's own log included; so the file needs no log beside it.
Its manifest (docs/formats.md section 13) says which state it is: index, term and running hash are read from the
bookkeeping row *inside* the finished file, so an image cannot be of another index than it says.

Knows files and SQLite; must not know nodes, peers, Raft, or what the membership's bytes mean. Everything here blocks:
it belongs on a thread, never on the loop, and gives up between two steps once `stop` is set. Invariant: `verify`
returns only for a file that is, byte for byte, what its manifest describes, and a sound database.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Self
from urllib.parse import quote

import apsw

from hiqlite._accel.records import crc32c
from hiqlite.errors import DiskFull, SnapshotCorruption, StorageError

from .connection import ConnectionSettings, open_reader, translated
from .equality import one_snapshot

CHUNK_BYTES: Final = 256 << 10  # checked, compressed and sent as one
CHUNK_BYTES_MAX: Final = 4 << 20
MANIFEST_BYTES_MAX: Final = 16 << 20
MEMBERSHIP_BYTES_MAX: Final = 1 << 20
IMAGE_ID_BYTES: Final = 16
STEP_PAGES: Final = 64  # copied between two looks at `stop`
OPCODES_PER_LOOK: Final = 100_000  # of a check, between two looks at `stop`
# Free space that a copy leaves to the log and the database: a full disk would stop writes for the sake of a reader.
RESERVE_BYTES: Final = 64 << 20

MAGIC: Final = b"HQIMAGE\0"
VERSION: Final = 1
SQLITE_MAGIC: Final = b"SQLite format 3\0"
SQLITE_HEADER_BYTES: Final = 100
_HEAD: Final = struct.Struct("<8sIIQQQQII32sI")
_CRC: Final = struct.Struct("<I")
assert _HEAD.size == 92


class GivenUp(Exception):
    """`stop` was set: nobody wants the result any more."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an image file is.

    Args:
        size_bytes: of the database file.
        page_bytes: SQLite's page size.
        applied_index, applied_term: last entry that the image holds.
        equality_hash: running hash at that index.
        chunk_bytes: the file is cut into chunks of this size; the last one may be shorter.
        sha256: of the whole file.
        chunk_crcs: one CRC32C per chunk, each u32.
        membership: in force at `applied_index`; bytes of the caller.
    """

    size_bytes: int
    page_bytes: int
    applied_index: int
    applied_term: int
    equality_hash: int
    chunk_bytes: int
    sha256: bytes
    chunk_crcs: bytes
    membership: bytes = b""

    @property
    def image_id(self) -> bytes:
        """Names this very image: equal ids are equal files, whoever made them."""
        return hashlib.sha256(self.encode()).digest()[:IMAGE_ID_BYTES]

    @property
    def chunk_count(self) -> int:
        return len(self.chunk_crcs) // _CRC.size

    def chunk_size(self, offset: int) -> int:
        """Bytes of the chunk that begins at `offset`."""
        return min(self.chunk_bytes, self.size_bytes - offset)

    def holds(self, offset: int, data: bytes) -> bool:
        """Whether `data` is the chunk that begins at `offset`."""
        if offset % self.chunk_bytes or not 0 <= offset < self.size_bytes or len(data) != self.chunk_size(offset):
            return False
        found: int = _CRC.unpack_from(self.chunk_crcs, offset // self.chunk_bytes * _CRC.size)[0]
        return crc32c(data) == found

    def encode(self) -> bytes:
        head = _HEAD.pack(
            MAGIC, VERSION, self.page_bytes, self.size_bytes, self.applied_index, self.applied_term,
            self.equality_hash, self.chunk_bytes, self.chunk_count, self.sha256, len(self.membership),
        )  # fmt: skip
        body = head + self.membership + self.chunk_crcs
        return body + _CRC.pack(crc32c(body))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises SnapshotCorruption for anything that `encode` does not write."""
        if len(data) > MANIFEST_BYTES_MAX or len(data) < _HEAD.size + _CRC.size or data[:8] != MAGIC:
            raise SnapshotCorruption("these bytes are no manifest of an image")
        if crc32c(data[: -_CRC.size]) != _CRC.unpack(data[-_CRC.size :])[0]:
            raise SnapshotCorruption("the manifest's checksum is wrong")
        _, version, page, size, index, term, equality, chunk, count, sha256, membership = _HEAD.unpack_from(data)
        if version != VERSION:
            raise SnapshotCorruption(
                f"the image has format {version}, this version reads {VERSION}", hint="run one version on all nodes"
            )
        sound = (
            512 <= page <= 65536 and page & (page - 1) == 0
            and size > 0 and size % page == 0
            and 0 < chunk <= CHUNK_BYTES_MAX and chunk % 512 == 0
            and count == -(-size // chunk)
            and membership <= MEMBERSHIP_BYTES_MAX
            and len(data) == _HEAD.size + membership + count * _CRC.size + _CRC.size
        )  # fmt: skip
        if not sound:
            raise SnapshotCorruption("the manifest contradicts itself")
        behind = _HEAD.size + membership
        return cls(
            size, page, index, term, equality, chunk, sha256, data[behind : -_CRC.size], data[_HEAD.size : behind]
        )

    def with_membership(self, membership: bytes) -> Manifest:
        assert len(membership) <= MEMBERSHIP_BYTES_MAX
        return replace(self, membership=membership)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a database stands, by its own bookkeeping row; zeros before the first run."""

    applied_index: int
    applied_term: int
    equality_hash: int


# --------------------------------------------------------------------------- out


def copy_out(
    database: Path, image: Path, stop: threading.Event, settings: ConnectionSettings | None = None
) -> Manifest:
    """Makes the file `image` of what `database` holds now, while others write to it; gives its manifest.

    The file is not made durable: it is of use to this process only.

    Raises:
        DiskFull: it does not fit, or would leave less than `RESERVE_BYTES`. StorageError: the disk or SQLite failed.
        GivenUp: `stop` was set. In each case no file is left.
    """
    with _whole_or_none(image):
        copy_pages(database, image, stop, settings)
        return describe(image, stop)


def copy_pages(
    database: Path,
    image: Path,
    stop: threading.Event,
    settings: ConnectionSettings | None = None,
    *,
    kept_bytes: int = RESERVE_BYTES,
) -> None:
    """`copy_out` of what needs no manifest. `kept_bytes`: are free on the disk afterwards."""
    with (
        _whole_or_none(image),
        translated(database),
        closing(open_reader(database, settings)) as reader,
        one_snapshot(reader),
    ):
        require_space(image.parent, _size_of(database), kept_bytes)
        _copy_pages(reader, image, stop)


@contextmanager
def _whole_or_none(image: Path) -> Iterator[None]:
    """If the block fails no file is left; what the disk said becomes an error of this product."""
    try:
        yield
    except BaseException as error:
        image.unlink(missing_ok=True)
        image.with_name(image.name + "-journal").unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise disk_failure(image, error) from error
        raise


def _copy_pages(reader: apsw.Connection, image: Path, stop: threading.Event) -> None:
    image.unlink(missing_ok=True)
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    with closing(apsw.Connection(str(image), flags=flags, vfs="unix")) as target:
        for setting in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -1024"):
            target.execute(f"PRAGMA {setting}").fetchall()
        # The reader's transaction is open, so every step copies pages of one state and none begins anew.
        with target.backup("main", reader, "main") as copy:
            while not copy.done:
                _go_on(stop)
                copy.step(STEP_PAGES)


def require_space(folder: Path, size_bytes: int, kept_bytes: int = RESERVE_BYTES) -> None:
    """Raises DiskFull when `size_bytes` more would leave less than `kept_bytes`."""
    found = os.statvfs(folder)
    missing = size_bytes + kept_bytes - found.f_bavail * found.f_frsize
    if missing > 0:
        wanted = f"an image of {size_bytes} bytes beside the {kept_bytes} bytes that are kept free"
        raise DiskFull(f"{folder}: no space for {wanted}: {missing} bytes are missing", hint="free some space")


def _size_of(database: Path) -> int:
    """Told by the names alone: a descriptor of the live file, once closed, would drop the locks that SQLite holds."""
    live = (database, database.with_name(database.name + "-wal"))
    return sum(path.stat().st_size for path in live if path.exists())


def describe(image: Path, stop: threading.Event) -> Manifest:
    """The manifest of a complete image file, without a membership."""
    with translated(image), closing(_open_still(image)) as connection:
        position = position_of(connection)
        page_bytes = connection.pragma("page_size")
    assert isinstance(page_bytes, int)
    digest, crcs = hashlib.sha256(), bytearray()
    with image.open("rb") as file:
        for chunk in _chunks(file, CHUNK_BYTES, stop):
            digest.update(chunk)
            crcs += _CRC.pack(crc32c(chunk))
        size_bytes = file.tell()
    return Manifest(
        size_bytes, page_bytes, position.applied_index, position.applied_term, position.equality_hash, CHUNK_BYTES,
        digest.digest(), bytes(crcs),
    )  # fmt: skip


# --------------------------------------------------------------------------- in


def verify(image: Path, manifest: Manifest, stop: threading.Event) -> None:
    """Returns when the file is the image that `manifest` describes and a sound database.

    Raises:
        SnapshotCorruption: it is not; what differs is named. StorageError: it cannot be read. GivenUp.
    """
    try:
        _verify_bytes(image, manifest, stop)
    except OSError as error:
        raise disk_failure(image, error) from error
    connection: apsw.Connection | None = None
    try:
        connection = _open_still(image)
        connection.set_progress_handler(stop.is_set, OPCODES_PER_LOOK)
        _verify_database(connection, manifest)
    except (apsw.IOError, apsw.NoMemError, apsw.FullError, apsw.CantOpenError) as error:
        raise StorageError(f"{image}: the image cannot be read: {error}") from error
    except apsw.Error as error:
        _go_on(stop)
        raise SnapshotCorruption(f"the image is no sound database: {error}") from error
    finally:
        if connection is not None:
            connection.close(True)


def _verify_bytes(image: Path, manifest: Manifest, stop: threading.Event) -> None:
    digest = hashlib.sha256()
    with image.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes != manifest.size_bytes:
            raise SnapshotCorruption(f"the image has {size_bytes} bytes, its manifest says {manifest.size_bytes}")
        offset = 0
        for chunk in _chunks(file, manifest.chunk_bytes, stop):
            if offset == 0:
                _verify_header(chunk, manifest)
            if not manifest.holds(offset, chunk):
                raise SnapshotCorruption(f"the image's bytes at {offset} are not those of its manifest")
            digest.update(chunk)
            offset += len(chunk)
    if digest.digest() != manifest.sha256:
        raise SnapshotCorruption("the image's SHA-256 is not that of its manifest")


def _verify_header(first: bytes, manifest: Manifest) -> None:
    """The first 100 bytes of a database file, sqlite.org/fileformat.html section 1.3."""
    if len(first) < SQLITE_HEADER_BYTES or not first.startswith(SQLITE_MAGIC):
        raise SnapshotCorruption("the image is no SQLite database")
    page_bytes = int.from_bytes(first[16:18], "big")
    if (65536 if page_bytes == 1 else page_bytes) != manifest.page_bytes:
        raise SnapshotCorruption(f"the image has pages of {page_bytes} bytes, its manifest says {manifest.page_bytes}")
    counted = first[24:28] == first[92:96]  # else an old writer left the page count behind
    if counted and int.from_bytes(first[28:32], "big") * manifest.page_bytes != manifest.size_bytes:
        raise SnapshotCorruption("the image's length is not what its header says")


def _verify_database(connection: apsw.Connection, manifest: Manifest) -> None:
    found = position_of(connection)
    said = Position(manifest.applied_index, manifest.applied_term, manifest.equality_hash)
    if found != said:
        raise SnapshotCorruption(f"the image holds {found}, its manifest says {said}")
    if fault := fault_in(connection):
        raise SnapshotCorruption(f"the image is damaged: {fault}")


def fault_in(connection: apsw.Connection) -> str:
    """What SQLite's own check finds in the whole file, "" for nothing. The connection knows no virtual tables then.

    These would be asked, too, and call it damage when their index does not fit the table that it is of. That is a
    user's doing, the same on all nodes. Where they keep their content are tables like others. No CHECK is asked
    either: it may call random(), and was asked when the row was written.
    """
    connection.drop_modules(None)
    connection.execute("PRAGMA ignore_check_constraints = ON").fetchall()
    faults = [" ".join(str(row[0]).split()) for row in connection.execute("PRAGMA quick_check(3)")]
    return "" if faults == ["ok"] else "; ".join(faults)


def position_of(connection: apsw.Connection) -> Position:
    """Where the database stands by its last bookkeeping row."""
    rows = connection.execute(
        "SELECT last_index, last_term, equality_hash FROM _hiqlite_run ORDER BY last_index DESC LIMIT 1"
    ).fetchall()
    if not rows:
        return Position(0, 0, 0)
    index, term, equality = rows[0]
    if not (isinstance(index, int) and isinstance(term, int) and isinstance(equality, int) and index >= 0 <= term):
        raise SnapshotCorruption("the bookkeeping row of the database is none")
    return Position(index, term, equality % (1 << 64))  # SQLite's integers are signed


# --------------------------------------------------------------------------- parts


def disk_failure(path: Path, error: OSError) -> StorageError:
    """The one door of this room for what a disk says about image files."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{path}: no space left for an image", hint="free some space")
    return StorageError(f"{path}: {error.strerror or error}", hint="check the disk")


def _open_still(image: Path) -> apsw.Connection:
    """A connection to a file that nobody changes: it takes no lock and leaves no file beside it."""
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(f"file:{quote(str(image))}?immutable=1", flags=flags, vfs="unix")
    try:
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1)  # as the writer: else what it accepts is damage
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.execute("PRAGMA cell_size_check = 1").fetchall()
    except BaseException:
        connection.close(True)
        raise
    return connection


def _chunks(file: BinaryIO, size_bytes: int, stop: threading.Event) -> Iterator[bytes]:
    while chunk := file.read(size_bytes):
        _go_on(stop)
        yield chunk


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise GivenUp


@contextmanager
def disk_of(path: Path) -> Iterator[None]:
    """What the disk says inside the block becomes an error of this product."""
    try:
        yield
    except OSError as error:
        raise disk_failure(path, error) from error
