"""The cache group's state on its way to a peer: an image of few bytes, held in memory at both ends.

Must not know peers or Raft. Layout of the manifest: docs/formats.md section 9. Invariant: every byte below
`IncomingState.offset` was received in order, and a state comes out only if all of it decodes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from hiqlite._accel.records import crc32c
from hiqlite.errors import SnapshotCorruption

from .state import MIRRORED_BYTES_MAX, CacheState

MAGIC: Final = b"HQCIMG01"
CHUNK_BYTES: Final = 1 << 18
SIZE_BYTES_MAX: Final = MIRRORED_BYTES_MAX + (1 << 12)
MEMBERSHIP_BYTES_MAX: Final = 1 << 16
_HEAD: Final = struct.Struct("<8sQQQ32sI")
_CRC: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class OutgoingState:
    """A state as an image; `membership`: who was in force at its index, bytes of the caller."""

    state: CacheState
    membership: bytes
    data: bytes

    @classmethod
    def of(cls, state: CacheState, membership: bytes) -> OutgoingState:
        return cls(state, membership, state.encode())

    @property
    def image_id(self) -> bytes:
        return hashlib.sha256(self.offer()).digest()[:16]

    @property
    def applied_index(self) -> int:
        return self.state.applied_index

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    @property
    def chunk_bytes(self) -> int:
        return CHUNK_BYTES

    def offer(self) -> bytes:
        """The manifest."""
        digest = hashlib.sha256(self.data).digest()
        head = _HEAD.pack(
            MAGIC, self.size_bytes, self.applied_index, self.state.applied_term, digest, len(self.membership)
        )
        body = head + self.membership
        return body + _CRC.pack(crc32c(body))

    def read(self, offset: int) -> bytes:
        return self.data[offset : offset + CHUNK_BYTES]


class IncomingState:
    """An image that is being received.

    Raises:
        SnapshotCorruption: these bytes are no manifest.
    """

    def __init__(self, manifest: bytes) -> None:
        if len(manifest) < _HEAD.size + _CRC.size or manifest[:8] != MAGIC:
            raise SnapshotCorruption("these bytes are no manifest of a cache group's image")
        if crc32c(manifest[: -_CRC.size]) != _CRC.unpack(manifest[-_CRC.size :])[0]:
            raise SnapshotCorruption("the manifest's checksum is wrong")
        _, size, index, term, digest, membership_size = _HEAD.unpack_from(manifest)
        self.membership = manifest[_HEAD.size : -_CRC.size]
        if membership_size != len(self.membership) or membership_size > MEMBERSHIP_BYTES_MAX:
            raise SnapshotCorruption("the manifest contradicts itself")
        if not 0 < size <= SIZE_BYTES_MAX or not index or not term:
            raise SnapshotCorruption("the manifest contradicts itself")
        self.size_bytes: int = size
        self.applied_index: int = index
        self.applied_term: int = term
        self._digest: bytes = digest
        self._data = bytearray()

    @property
    def offset(self) -> int:
        return len(self._data)

    @property
    def chunk_bytes(self) -> int:
        return CHUNK_BYTES

    def write(self, offset: int, data: bytes) -> None:
        """Adds the chunk that begins at `offset`. Raises SnapshotCorruption when another one is next."""
        if offset != self.offset or len(data) != min(CHUNK_BYTES, self.size_bytes - offset):
            raise SnapshotCorruption(f"a chunk of {len(data)} bytes for {offset} where {self.offset} is next")
        self._data += data

    def state(self) -> CacheState:
        """What was received. Raises SnapshotCorruption when it is not what the manifest says."""
        data = bytes(self._data)
        if hashlib.sha256(data).digest() != self._digest:
            raise SnapshotCorruption("the image is not what its manifest says")
        state = CacheState.decode(data)
        if (state.applied_index, state.applied_term) != (self.applied_index, self.applied_term):
            raise SnapshotCorruption("the image stands elsewhere than its manifest says")
        return state

    def close(self) -> None:
        """Nothing is held outside memory."""
