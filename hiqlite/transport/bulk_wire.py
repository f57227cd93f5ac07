"""Frames of the bulk link and back (docs/formats.md, section 14): an image is offered, asked for, handed over.

Knows image ids, offsets and bytes; must not know sockets, files, or what a manifest says. Invariant: whatever a peer
sends that no `encode_*` here writes is a ProtocolError, never another exception; nothing is decompressed beyond the
size that was asked for.

A stream is one offer and all that follows from it, numbered by who offers: so what was still on its way when an offer
was taken back is told from what belongs to the next one, be it of the same image.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from hiqlite._accel.frames import Frame, encode_header
from hiqlite.errors import HiqliteError, ProtocolError

from .wire import FAILED, INDEX_MAX, FrameType, pack, unpack_failure

IMAGE_ID_BYTES: Final = 16
CHUNK_BYTES_MAX: Final = 4 << 20
MANIFEST_BYTES_MAX: Final = 16 << 20
COMPRESSED = 1  # flag of an image_chunk
# Level 1 halves a typical database at 300 MB/s of one core; higher levels save little and cost 4 times as much.
LEVEL: Final = 1

Pieces = tuple[bytes, bytes]  # header and body, as a link sends them


@dataclass(frozen=True, slots=True)
class Stream:
    """What every frame of one transfer carries."""

    number: int
    image_id: bytes


@dataclass(frozen=True, slots=True)
class Sender:
    """What every frame of one node carries."""

    cluster: int
    node_id: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk as it came: `size_bytes` is what it must be when it is unpacked."""

    offset: int
    size_bytes: int
    compressed: bool
    data: bytes

    def unpack(self) -> bytes:
        """Raises ProtocolError when it does not unpack to exactly its size."""
        if not self.compressed:
            data = self.data
        else:
            try:
                unpacker = zlib.decompressobj()
                data = unpacker.decompress(self.data, self.size_bytes + 1)
            except zlib.error as error:
                raise ProtocolError(f"a chunk that does not unpack: {error}") from error
            if not unpacker.eof or unpacker.unused_data:
                raise ProtocolError("a chunk that unpacks to another size")
        if len(data) != self.size_bytes:
            raise ProtocolError("a chunk that unpacks to another size")
        return data


def compress(data: bytes) -> tuple[bytes, bool]:
    """(bytes to send, whether they are compressed): only where an eighth is saved."""
    packed = zlib.compress(data, LEVEL)
    return (packed, True) if len(packed) <= len(data) - len(data) // 8 else (data, False)


def encode_offer(sender: Sender, stream: Stream, group: int, term: int, manifest: bytes) -> Pieces:
    assert 0 < len(manifest) <= MANIFEST_BYTES_MAX
    return _frame(FrameType.IMAGE_OFFER, sender, stream, manifest, group=group, term=term)


def decode_offer(frame: Frame) -> bytes:
    """The manifest."""
    if not IMAGE_ID_BYTES < len(frame.body) <= IMAGE_ID_BYTES + MANIFEST_BYTES_MAX:
        raise ProtocolError("an offer without a manifest, or with one that is too long")
    return frame.body[IMAGE_ID_BYTES:]


def encode_want(sender: Sender, stream: Stream, offset: int) -> Pieces:
    return _frame(FrameType.IMAGE_WANT, sender, stream, index=offset)


def encode_chunk(sender: Sender, stream: Stream, offset: int, size_bytes: int, data: bytes, packed: bool) -> Pieces:
    """`data` is the chunk, compressed or as it is; `size_bytes` what it is when it is not compressed."""
    flags = COMPRESSED if packed else 0
    return _frame(FrameType.IMAGE_CHUNK, sender, stream, data, index=offset, count=size_bytes, flags=flags)


def decode_chunk(frame: Frame) -> Chunk:
    if not 0 < frame.count <= CHUNK_BYTES_MAX or not 0 < len(frame.body) - IMAGE_ID_BYTES <= frame.count:
        raise ProtocolError("a chunk of an impossible size")
    if frame.flags & ~COMPRESSED:
        raise ProtocolError("a chunk with unknown flags")
    data = frame.body[IMAGE_ID_BYTES:]
    return Chunk(offset_of(frame), frame.count, bool(frame.flags & COMPRESSED), data)


def encode_gone(sender: Sender, stream: Stream) -> Pieces:
    return _frame(FrameType.IMAGE_GONE, sender, stream)


def encode_done(sender: Sender, stream: Stream, index: int, term: int) -> Pieces:
    """The image is installed, or was not needed: everything up to (index, term) is there, and durable."""
    return _frame(FrameType.IMAGE_DONE, sender, stream, index=index, previous_term=term)


def encode_refused(sender: Sender, stream: Stream, error: HiqliteError) -> Pieces:
    return _frame(FrameType.IMAGE_DONE, sender, stream, pack(error.to_wire()), flags=FAILED)


def decode_done(frame: Frame) -> HiqliteError | tuple[int, int]:
    """Where the other end stands now, (index, term); or why it did not take the image."""
    if frame.flags & FAILED:
        return unpack_failure(frame.body[IMAGE_ID_BYTES:])
    if len(frame.body) != IMAGE_ID_BYTES:
        raise ProtocolError("an image_done with a body")
    return offset_of(frame), frame.previous_term


def stream_of(frame: Frame) -> Stream:
    """The transfer that a frame belongs to."""
    if len(frame.body) < IMAGE_ID_BYTES:
        raise ProtocolError("a bulk frame without an image id")
    return Stream(frame.sequence, frame.body[:IMAGE_ID_BYTES])


def offset_of(frame: Frame) -> int:
    if frame.previous_index > INDEX_MAX:
        raise ProtocolError(f"{frame.previous_index} is out of range")
    return frame.previous_index


def _frame(
    kind: FrameType,
    sender: Sender,
    stream: Stream,
    rest: bytes = b"",
    *,
    group: int = 0,
    term: int = 0,
    index: int = 0,
    previous_term: int = 0,
    count: int = 0,
    flags: int = 0,
) -> Pieces:
    assert len(stream.image_id) == IMAGE_ID_BYTES
    body = stream.image_id + rest
    header = encode_header(
        kind, group, flags, sender.cluster, term, sender.node_id, 0, 0, stream.number, index, previous_term, 0, count,
        body,
    )  # fmt: skip
    return header, body
