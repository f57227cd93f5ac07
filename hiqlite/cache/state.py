"""What the cache group's state machine holds, as a value and as bytes: one form for the file and for an image.

Must not know files, peers or what a mirrored list says. Layout: docs/formats.md section 9. Invariant: what decodes is
what was encoded, all of it; everything else is SnapshotCorruption.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Self

from hiqlite._accel.records import crc32c
from hiqlite.errors import SnapshotCorruption

MAGIC: Final = b"HQCACHE1"
_HEAD: Final = struct.Struct("<8sQQQqI")
_CRC: Final = struct.Struct("<I")
MIRRORED_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class CacheState:
    """Everything up to `applied_index` of `applied_term`.

    Attributes:
        mirrored_index: of the other group's change of members that was mirrored here last; 0: none yet.
        mirrored: what that entry said, behind its index.
        group_time_ns: the newest one among the entries; it never goes back.
    """

    applied_index: int = 0
    applied_term: int = 0
    mirrored_index: int = 0
    mirrored: bytes = b""
    group_time_ns: int = 0

    def encode(self) -> bytes:
        head = _HEAD.pack(
            MAGIC, self.applied_index, self.applied_term, self.mirrored_index, self.group_time_ns, len(self.mirrored)
        )
        body = head + self.mirrored
        return body + _CRC.pack(crc32c(body))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises SnapshotCorruption for anything that `encode` does not write."""
        if len(data) < _HEAD.size + _CRC.size or data[:8] != MAGIC:
            raise SnapshotCorruption("these bytes are no state of a cache group")
        if crc32c(data[: -_CRC.size]) != _CRC.unpack(data[-_CRC.size :])[0]:
            raise SnapshotCorruption("the checksum of the cache group's state is wrong")
        _, index, term, mirrored_index, time_ns, size = _HEAD.unpack_from(data)
        mirrored = data[_HEAD.size : -_CRC.size]
        if size != len(mirrored) or size > MIRRORED_BYTES_MAX or (term and not index) or time_ns < 0:
            raise SnapshotCorruption("the state of the cache group contradicts itself")
        return cls(index, term, mirrored_index, mirrored, time_ns)
