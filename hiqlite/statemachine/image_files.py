"""The image files of a node: those it made to be sent, and the one that is being received.

All lie in one folder: `out-<id>.db` are made from the live database and go when nobody needs them; `in-<id>.db` with
`in-<id>.manifest` is filled chunk by chunk and survives a restart, so that a transfer goes on where it was cut.
Must not know peers or Raft, nor where an image goes next. Its methods block; they belong on a thread. Invariant: every
byte below `IncomingImage.offset` was checked against the manifest.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hiqlite import observe
from hiqlite.errors import SnapshotCorruption, StorageError

from .connection import ConnectionSettings
from .image import MANIFEST_BYTES_MAX, Manifest, copy_out, disk_of, require_space, verify

# Written to the disk every so often while it is received: a flush of the whole at once would hold up the log's.
FLUSH_BYTES: Final = 8 << 20
log = observe.logger("statemachine")


class Described:
    """What its manifest says of an image file."""

    __slots__ = ()
    manifest: Manifest

    @property
    def applied_index(self) -> int:
        return self.manifest.applied_index

    @property
    def applied_term(self) -> int:
        return self.manifest.applied_term

    @property
    def size_bytes(self) -> int:
        return self.manifest.size_bytes

    @property
    def chunk_bytes(self) -> int:
        return self.manifest.chunk_bytes


@dataclass(frozen=True, slots=True)
class OutgoingImage(Described):
    """A complete image file of this node's own making."""

    path: Path
    manifest: Manifest

    @property
    def image_id(self) -> bytes:
        return self.manifest.image_id

    def with_membership(self, membership: bytes) -> OutgoingImage:
        """The same file; its manifest also says who was in force at its index."""
        return OutgoingImage(self.path, self.manifest.with_membership(membership))

    def offer(self) -> bytes:
        return self.manifest.encode()

    def read(self, offset: int) -> bytes:
        """The chunk that begins at `offset`.

        Raises:
            StorageError: the file is gone, or the disk failed. SnapshotCorruption: the disk gave other bytes.
        """
        with disk_of(self.path), self.path.open("rb") as file:
            data = os.pread(file.fileno(), self.manifest.chunk_size(offset), offset)
        if not self.manifest.holds(offset, data):
            raise SnapshotCorruption(f"{self.path}: the bytes at {offset} are not what was written")
        return data

    def remove(self) -> None:
        """Deletes the file. May be called again."""
        with disk_of(self.path):
            self.path.unlink(missing_ok=True)


class IncomingImage(Described):
    """An image file that is being filled; made by `ImageFiles.begin`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.offset = 0  # everything below it is there and checked
        self._unflushed = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def membership(self) -> bytes:
        return self.manifest.membership

    @property
    def complete(self) -> bool:
        return self.offset == self.manifest.size_bytes

    def find_end(self, stop: threading.Event) -> None:
        """Goes on behind the chunks of an earlier life that are whole."""
        with disk_of(self.path):
            while self.offset < self.manifest.size_bytes and not stop.is_set():
                data = os.pread(self._descriptor, self.manifest.chunk_size(self.offset), self.offset)
                if not self.manifest.holds(self.offset, data):
                    break
                self.offset += len(data)
            os.ftruncate(self._descriptor, self.offset)

    def write(self, offset: int, data: bytes) -> None:
        """Adds the chunk that begins at `offset`, which is where the file ends.

        Raises:
            SnapshotCorruption: it is another chunk, or not what the manifest says. DiskFull, StorageError.
        """
        if offset != self.offset:
            raise SnapshotCorruption(f"a chunk for {offset} where {self.offset} is next")
        if not self.manifest.holds(offset, data):
            raise SnapshotCorruption(f"the chunk at {offset} is not that of the manifest")
        try:
            with disk_of(self.path):
                self._append(offset, data)
        except StorageError:  # the log and the database need the space more; and no later sync would be believed
            self.discard()
            raise
        self.offset += len(data)

    def _append(self, offset: int, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], offset + written)
        self._unflushed += len(data)
        if self._unflushed >= FLUSH_BYTES:
            os.fdatasync(self._descriptor)
            self._unflushed = 0

    def finish(self, stop: threading.Event) -> None:
        """Checks the whole of it and makes its bytes durable; only then may anybody hear that it is here.

        Raises:
            SnapshotCorruption: it is not what the manifest says; the file is removed, the next try begins anew.
            StorageError: the disk failed.
        """
        assert self.complete
        try:
            with disk_of(self.path):
                os.fsync(self._descriptor)
        except StorageError:  # the next sync would say yes, whatever is on the disk
            self.discard()
            raise
        try:
            verify(self.path, self.manifest, stop)
        except SnapshotCorruption:
            self.discard()
            raise

    def close(self) -> None:
        """Leaves what is there for a later try. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Removes the file and its manifest."""
        self.close()
        with disk_of(self.path):
            self.path.unlink(missing_ok=True)
            self.path.with_suffix(".manifest").unlink(missing_ok=True)


class ImageFiles:
    """The folder of image files of one database.

    Args:
        folder: exists; what else lies in it is removed by `clean`.
        settings: how the database is opened for reading.
    """

    def __init__(self, folder: Path, settings: ConnectionSettings | None = None) -> None:
        self.folder = folder
        self._settings = settings
        self._made = 0

    def clean(self) -> None:
        """After a start: what was made to be sent is of no use any more, nor half of a manifest. What
        the disk does not let go is left for the next time: garbage stops no node."""
        with disk_of(self.folder):
            there = list(self.folder.iterdir())
        for path in there:
            pair = (path.with_suffix(".db"), path.with_suffix(".manifest"))
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                elif not path.name.startswith("in-") or path not in pair or not all(one.is_file() for one in pair):
                    path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("what is left of an image goes another time: %s", error)

    def make(self, database: Path, stop: threading.Event) -> OutgoingImage:
        """An image of what `database` holds now; without a membership.

        Raises:
            DiskFull, StorageError, GivenUp: see `image.copy_out`.
        """
        self._made += 1
        path = self.folder / f"out-{self._made}.db"
        return OutgoingImage(path, copy_out(database, path, stop, self._settings))

    def begin(self, manifest_bytes: bytes, stop: threading.Event) -> IncomingImage:
        """Receives the image of this manifest, from its beginning or from where it was left. Others are removed.

        Raises:
            SnapshotCorruption: these bytes are no manifest. DiskFull, StorageError.
        """
        manifest = Manifest.decode(manifest_bytes)
        name = manifest.image_id.hex()
        path = self.folder / f"in-{name}.db"
        with disk_of(self.folder):
            for other in self.folder.glob("in-*"):
                if other.stem != path.stem and not other.is_dir():
                    other.unlink(missing_ok=True)
            there = path.stat().st_size if path.exists() else 0
            require_space(self.folder, manifest.size_bytes - there)
            known = self._known(path.with_suffix(".manifest")) == manifest_bytes
            if not known:
                path.unlink(missing_ok=True)
                half = path.with_suffix(".half")
                half.write_bytes(manifest_bytes)
                half.replace(path.with_suffix(".manifest"))
            incoming = IncomingImage(path, manifest)
        try:
            incoming.find_end(stop)
        except StorageError:
            incoming.close()
            raise
        return incoming

    def _known(self, path: Path) -> bytes | None:
        with suppress(FileNotFoundError):
            if path.stat().st_size <= MANIFEST_BYTES_MAX:
                return path.read_bytes()
        return None
