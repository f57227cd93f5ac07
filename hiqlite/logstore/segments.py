"""Segment files as recovery sees them: their names, their headers, their bytes, and how one is cut.

Byte formats: docs/formats.md section 7. Must not know terms or indexes. While a log runs, the native threads alone
write; what is here works on a log that is not running. Invariant: a file is never written behind its end batch, and
never deleted here: what is cut off is renamed.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hiqlite import durable
from hiqlite._accel import wal as native
from hiqlite.errors import StorageError

MAGIC = int.from_bytes(b"HQWALSEG", "little")
VERSION = 1
HEADER = struct.Struct("<QIIQQQQQQI")  # magic, version, group, node, incarnation, number, generation, first io, size, 0
CRC = struct.Struct("<I")
READ_BYTES = 8 << 20
NAME = re.compile(r"[0-9a-f]{16}\.wal")


class OtherFormat(Exception):
    """A segment that another version wrote; `version` is its own."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format {version}")
        self.version = version


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What the first page of a segment says. `first_io`: no batch in it has a lower io sequence."""

    group: int
    node_id: int
    incarnation: int
    number: int
    generation: int
    first_io: int
    size_bytes: int

    @property
    def salt(self) -> int:
        return self.generation ^ self.node_id


@dataclass(frozen=True, slots=True)
class Position:
    """A batch boundary: `offset` in segment `number`, and what a batch written there continues."""

    number: int
    offset: int
    last_io: int
    last_crc: int


def decode_header(page: bytes | bytearray | memoryview) -> SegmentHeader | None:
    """The header, or None when these bytes are none. Raises OtherFormat for a whole one of another version."""
    if len(page) < HEADER.size + CRC.size:
        return None
    magic, version, group, node_id, incarnation, number, generation, first_io, size, zero = HEADER.unpack_from(page)
    if CRC.unpack_from(page, HEADER.size)[0] != native.crc32c(page[: HEADER.size]):
        return None
    if magic == MAGIC and version != VERSION:
        raise OtherFormat(version)
    if magic != MAGIC or zero != 0 or first_io < 1 or size < native.SEGMENT_HEADER_BYTES:
        return None
    return SegmentHeader(group, node_id, incarnation, number, generation, first_io, size)


def encode_header(header: SegmentHeader) -> bytes:
    """The first page of a segment; the native side writes the same bytes."""
    fields = HEADER.pack(
        MAGIC,
        VERSION,
        header.group,
        header.node_id,
        header.incarnation,
        header.number,
        header.generation,
        header.first_io,
        header.size_bytes,
        0,
    )
    return (fields + CRC.pack(native.crc32c(fields))).ljust(native.SEGMENT_HEADER_BYTES, b"\0")


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:016x}.wal"


def list_segments(folder: Path) -> list[int]:
    """Numbers of the segments in `folder`, ascending; other files are not looked at.

    Raises StorageError: the folder cannot be read. That is not a log without segments.
    """
    try:
        names = durable.names(folder)
    except OSError as error:
        hint = "check the disk and the permissions"
        raise StorageError(f"cannot read the log in {folder}: {error.strerror}", hint=hint) from error
    return sorted(int(name[:16], 16) for name in names if NAME.fullmatch(name))


def lives_in(folder: Path) -> set[tuple[int, int]]:
    """(node id, incarnation) of whoever wrote the segments in `folder`, as far as their headers can be read."""
    found = set()
    for number in list_segments(folder):
        with suppress(OSError, OtherFormat):  # whoever opens the log says what is wrong with it
            with segment_path(folder, number).open("rb") as file:
                header = decode_header(file.read(native.SEGMENT_HEADER_BYTES))
            if header is not None:
                found.add((header.node_id, header.incarnation))
    return found


class SegmentFiles(Protocol):
    """The segments of one log, wherever they lie, as recovery needs them."""

    def numbers(self) -> list[int]:
        """Of the segments that are part of the log, ascending."""

    def place(self, number: int) -> str:
        """Where a segment lies, for messages."""

    def read(self, number: int) -> memoryview:
        """The bytes of a segment; valid until the next call. Raises OSError."""

    def read_part(self, number: int, begin: int, end: int) -> bytes:
        """Of the bytes that `read` gave. Raises OSError."""

    def sync(self, numbers: list[int]) -> None:
        """What was read of these segments is on disk when this returns, and so are their names."""

    def write(self, number: int, offset: int, content: bytes) -> None:
        """Durable when this returns."""

    def set_aside(self, numbers: list[int]) -> None:
        """Takes segments out of the log, durably; what they hold stays for whoever wants to look at it."""


class SegmentFolder:
    """Segments as files of a folder.

    They are read whole into one buffer that is used again: a log is scanned one segment at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._buffer = memoryview(b"")

    def numbers(self) -> list[int]:
        return list_segments(self.folder)

    def place(self, number: int) -> str:
        return str(segment_path(self.folder, number))

    def read(self, number: int) -> memoryview:
        descriptor = os.open(segment_path(self.folder, number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if len(self._buffer) < size:
                self._buffer = memoryview(mmap.mmap(-1, size))  # fresh pages: nobody has to clear them twice
            view = self._buffer[:size]
            at = 0
            while at < size:
                done = os.preadv(descriptor, [view[at : at + READ_BYTES]], at)
                if done == 0:
                    return view[:at]
                at += done
            return view
        finally:
            os.close(descriptor)

    def read_part(self, number: int, begin: int, end: int) -> bytes:
        with segment_path(self.folder, number).open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    def sync(self, numbers: list[int]) -> None:
        for number in numbers:
            durable.sync_file(segment_path(self.folder, number))
        durable.sync_folder(self.folder)

    def write(self, number: int, offset: int, content: bytes) -> None:
        descriptor = os.open(segment_path(self.folder, number), os.O_WRONLY | os.O_CLOEXEC)
        try:
            done = 0
            while done < len(content):
                done += os.pwrite(descriptor, content[done:], offset + done)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def set_aside(self, numbers: list[int]) -> None:
        for number in numbers:
            path = segment_path(self.folder, number)
            path.rename(path.with_suffix(".aside"))
        if numbers:
            durable.sync_folder(self.folder)
