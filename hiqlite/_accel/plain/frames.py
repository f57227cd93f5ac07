"""The header of a frame in plain Python: it defines what `_accel.frames` must do (docs/formats.md, section 5).

Knows bytes only. Invariant: `decode_header(encode_header(*fields, body)) == fields`, and every other 96 bytes raise.
"""

from __future__ import annotations

import struct

from hiqlite.errors import ProtocolError

from .records import crc32c

HEADER_BYTES = 96
APPEND = 1
VERSION = 1
GROUPS = 2

_FIELDS = struct.Struct("<IBBBB9QIIII")


def encode_header(
    type: int,
    group: int,
    flags: int,
    cluster: int,
    term: int,
    sender: int,
    incarnation: int,
    epoch: int,
    sequence: int,
    previous_index: int,
    previous_term: int,
    commit_index: int,
    count: int,
    body: bytes,
) -> bytes:
    """The 96 bytes that go before `body`."""
    length = HEADER_BYTES + len(body)
    body_crc = crc32c(body) if type != APPEND and body else 0
    longs = (cluster, term, sender, incarnation, epoch, sequence, previous_index, previous_term, commit_index)
    head = _FIELDS.pack(length, type, VERSION, group, flags, *longs, count, 0, body_crc, 0)[:-4]
    return head + struct.pack("<I", crc32c(head))


def decode_header(header: bytes) -> tuple[int, ...]:
    """The 13 fields of `encode_header`, in its order."""
    if len(header) != HEADER_BYTES:
        raise ProtocolError("broken frame: no whole header")
    length, kind, version, group, flags, *longs, count, reserved, _body_crc, crc = _FIELDS.unpack(header)
    if crc != crc32c(header[:-4]):
        raise ProtocolError("broken frame: the header's checksum is wrong")
    if version != VERSION or length < HEADER_BYTES or group >= GROUPS or reserved or not kind:
        raise ProtocolError("broken frame: a field is out of range")
    return (kind, group, flags, *longs, count)
