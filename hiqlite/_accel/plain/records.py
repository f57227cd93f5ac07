"""Records and runs of them in plain Python: the twin that defines the meaning of `records.pyx`.

A record is 64 bytes of header, a payload and padding (docs/formats.md section 2). The writer of a payload fills the
header's first 16 bytes; the leader seals the rest. Must not know what a payload means (that is `commands.py`), nor
Raft. Invariant: bytes are checked before they are believed; what is wrong is a ProtocolError that says where.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple

from hiqlite.errors import ProtocolError, UsageError

HEADER_SIZE: Final = 64
VERSION: Final = 1
PAYLOAD_MAX: Final = 0xFFFFFFB0  # header, payload and padding must fit the u32 length
SEALED: Final = struct.Struct("<QQqqQI")  # term, index, group time, wall time, seed, reserved
SEALED_AT: Final = 16
WALL_NS_AT: Final = 40  # the seed follows
HEADER_CRC_AT: Final = 60
MASK: Final = 2**64 - 1

# What `check` found, in the order of its checks: BAD_PAYLOAD means that the header held, so its identity is known.
OK, SHORT, BAD_HEADER_CRC, BAD_SHAPE, BAD_PAYLOAD, BAD_ORDER = range(6)
REASONS: Final = (
    "is intact",
    "ends before its length",
    "has a header that fails its checksum",
    "has a header that contradicts the format",
    "has a payload that fails its checksum",
    "is no entry, not the next one, or of an older term than the one before",
)


class RecordKind(IntEnum):
    ENTRY = 1
    HARD_STATE = 2
    TRUNCATE = 3
    PURGE_MARK = 4
    SYNCED = 5
    REPAIR = 6
    SEGMENT_END = 7


class EntryKind(IntEnum):
    NONE = 0
    COMMAND = 1
    SESSION = 2
    MEMBERSHIP = 3
    MIRROR = 4
    MIGRATION = 5
    BACKUP_MARK = 6
    SCRUB_MARK = 7
    NOOP = 8


class RecordHeader(NamedTuple):
    """The fields of a header, as they stand there; `length` counts header, payload and padding."""

    length: int
    kind: int
    entry_kind: int
    payload_length: int
    payload_crc: int
    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a header
    group_time_ns: int
    wall_time_ns: int
    seed: int
    header_crc: int


def _crc_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


CRC_TABLE: Final = _crc_table()


def crc32c(data: Any, seed: int = 0) -> int:
    """CRC32C of the bytes; `seed` is the result for what stands before them."""
    crc = ~seed & 0xFFFFFFFF
    for byte in memoryview(data).cast("B"):
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return ~crc & 0xFFFFFFFF


def header_crc(head: Any) -> int:
    """The CRC of a record's header as it is stored: turned and shifted (docs/formats.md, section 2)."""
    crc = crc32c(head)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def mix_seed(value: int) -> int:
    """splitmix64: neighbouring entries of a run get unrelated seeds from the run's one."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


# --------------------------------------------------------------------------- writing


def unsealed(kind: int, entry_kind: int, payload: bytes) -> bytes:
    """A record whose leader's fields and header CRC are zero."""
    if len(payload) > PAYLOAD_MAX:
        raise UsageError(f"a payload of {len(payload)} bytes does not fit a record")
    padding = -len(payload) % 8
    length = HEADER_SIZE + len(payload) + padding
    head = struct.pack("<IBBBBII", length, VERSION, kind, entry_kind, 0, len(payload), crc32c(payload))
    return head + bytes(HEADER_SIZE - len(head)) + payload + bytes(padding)


def encode_record(
    kind: int,
    entry_kind: int,
    payload: Any,
    term: int = 0,
    index: int = 0,
    group_time_ns: int = 0,
    wall_time_ns: int = 0,
    seed: int = 0,
) -> bytes:
    """A sealed record.

    Raises:
        ValueError: the kinds do not go together; OverflowError: a number does not fit its field.
    """
    check_kinds(kind, entry_kind)
    record = bytearray(unsealed(kind, entry_kind, bytes(payload)))
    seal(record, 0, term, index, group_time_ns, wall_time_ns, seed)
    return bytes(record)


def check_kinds(kind: int, entry_kind: int) -> None:
    entry = kind in (RecordKind.ENTRY, RecordKind.REPAIR)
    if not 1 <= kind <= 7 or not 0 <= entry_kind <= 8 or entry != (entry_kind != EntryKind.NONE):
        raise ValueError(f"no record has kind {kind} and entry kind {entry_kind}")


def seal(
    buffer: Any,
    offset: int,
    term: int,
    index: int,
    group_time_ns: int = 0,
    wall_time_ns: int = 0,
    seed: int = 0,
) -> int:
    """Write the leader's fields and the header CRC of the record at `offset`; gives the offset behind it."""
    with memoryview(buffer).cast("B") as view:
        whole(view, offset, False)
        _write_seal(view, offset, term, index, group_time_ns, wall_time_ns, seed)
        return offset + _length(view, offset)


def seal_records(
    buffer: Any, term: int, first: int, group_time_ns: int = 0, wall_time_ns: int = 0, seed: int = 0
) -> int:
    """Seal the records that fill the buffer as `first`, `first + 1`, ...; gives their number.

    The seed of each is `mix_seed(seed + index)`; one that has a seed already (`stamp`) keeps it, and its wall time.
    """
    with memoryview(buffer).cast("B") as view:
        offset, index = 0, first
        while offset < len(view):
            whole(view, offset, False)
            _, _, _, kept_ns, kept, _ = SEALED.unpack_from(view, offset + SEALED_AT)
            wall_ns, own = (kept_ns, kept) if kept else (wall_time_ns, mix_seed((seed + index) & MASK))
            _write_seal(view, offset, term, index, group_time_ns, wall_ns, own)
            offset += _length(view, offset)
            index += 1
        return index - first


def stamp(record: bytes, wall_time_ns: int, seed: int) -> bytes:
    """The unsealed record with a wall time and a seed (not 0) that sealing leaves to it."""
    stamped = bytearray(record)
    struct.pack_into("<qQ", stamped, WALL_NS_AT, wall_time_ns, seed)
    return bytes(stamped)


def unseal(record: bytes) -> bytes:
    """The record as it was before a leader sealed it: what leaders set is zero again."""
    return record[:SEALED_AT] + bytes(HEADER_SIZE - SEALED_AT) + record[HEADER_SIZE:]


def _write_seal(view: memoryview, offset: int, term: int, index: int, group_ns: int, wall_ns: int, seed: int) -> None:
    try:
        SEALED.pack_into(view, offset + SEALED_AT, term, index, group_ns, wall_ns, seed, 0)
    except struct.error as error:
        raise OverflowError(str(error)) from error
    end = offset + HEADER_CRC_AT
    struct.pack_into("<I", view, end, header_crc(view[offset:end]))


# --------------------------------------------------------------------------- reading


def _length(view: memoryview, offset: int) -> int:
    return int.from_bytes(view[offset : offset + 4], "little")


def check(data: Any, offset: int = 0, sealed: bool = True, payload: bool = True) -> int:
    """What is wrong with the record at `offset`: OK, SHORT, BAD_HEADER_CRC, BAD_SHAPE or BAD_PAYLOAD.

    Args:
        sealed: verify the header CRC. payload: verify payload and padding. The shape is always checked.
    """
    view = memoryview(data).cast("B")
    if not 0 <= offset <= len(view) - HEADER_SIZE:
        return SHORT
    found = header(view, offset)
    if sealed and header_crc(view[offset : offset + HEADER_CRC_AT]) != found.header_crc:
        return BAD_HEADER_CRC
    version, flags = view[offset + 4], view[offset + 7]
    reserved = any(view[offset + 56 : offset + HEADER_CRC_AT])
    padded = HEADER_SIZE + found.payload_length + -found.payload_length % 8
    if version != VERSION or flags or reserved or found.payload_length > PAYLOAD_MAX or found.length != padded:
        return BAD_SHAPE
    try:
        check_kinds(found.kind, found.entry_kind)
    except ValueError:
        return BAD_SHAPE
    if found.length > len(view) - offset:
        return SHORT
    begin = offset + HEADER_SIZE
    end = begin + found.payload_length
    if payload and (any(view[end : offset + found.length]) or crc32c(view[begin:end]) != found.payload_crc):
        return BAD_PAYLOAD
    return OK


def header(data: Any, offset: int = 0) -> RecordHeader:
    """The header at `offset`, unchecked save that it is there."""
    view = memoryview(data).cast("B")
    if not 0 <= offset <= len(view) - HEADER_SIZE:
        raise ProtocolError(f"record at offset {offset} {REASONS[SHORT]}")
    length, _, kind, entry_kind, _, payload_length, payload_crc = struct.unpack_from("<IBBBBII", view, offset)
    term, index, group_ns, wall_ns, seed, _ = SEALED.unpack_from(view, offset + SEALED_AT)
    (crc,) = struct.unpack_from("<I", view, offset + HEADER_CRC_AT)
    return RecordHeader(
        length, kind, entry_kind, payload_length, payload_crc, term, index, group_ns, wall_ns, seed, crc
    )


def whole(view: memoryview, offset: int, sealed: bool) -> None:
    """Raise unless a record of good shape lies at `offset`, its payload unchecked."""
    code = check(view, offset, sealed, False)
    if code != OK:
        raise ProtocolError(f"record at offset {offset} {REASONS[code]}")


def _starts(view: memoryview) -> Iterator[int]:
    offset = 0
    while offset < len(view):
        whole(view, offset, False)
        yield offset
        offset += _length(view, offset)


def scan(data: Any, expect_first: int) -> list[tuple[int, int, int]]:
    """Check a run of sealed entries from index `expect_first` on.

    Returns:
        One (term, first index, last index) per stretch of equal term, both ends included.

    Raises:
        ProtocolError: naming the record by its offset and what is wrong with it.
    """
    view = memoryview(data).cast("B")
    runs: list[tuple[int, int, int]] = []
    offset, index = 0, expect_first
    while offset < len(view):
        code = check(view, offset)
        found = header(view, offset) if code == OK else None
        last_term = runs[-1][0] if runs else 0
        if found and (found.kind != RecordKind.ENTRY or found.index != index or found.term < last_term):
            code = BAD_ORDER
        if found is None or code != OK:
            raise ProtocolError(f"record at offset {offset}, expected index {index}: it {REASONS[code]}")
        if runs and last_term == found.term:
            runs[-1] = (found.term, runs[-1][1], index)
        else:
            runs.append((found.term, index, index))
        offset += found.length
        index += 1
    return runs


def offsets(data: Any) -> array[int]:
    """Where each record of a run begins (array of u32); only their shapes are checked."""
    view = memoryview(data).cast("B")
    if len(view) > 0xFFFFFFFF:
        raise ProtocolError("a run of records is larger than 4 GiB")
    return array("I", _starts(view))


def find_kind(data: Any, entry_kind: int) -> list[int]:
    """Offsets of the records of that entry kind in a run; only their shapes are checked."""
    view = memoryview(data).cast("B")
    return [offset for offset in _starts(view) if header(view, offset).entry_kind == entry_kind]


def slice_records(data: Any, first_index_of_data: int, low: int, high: int) -> bytes:
    """The bytes of entries `[low, high]`, both included, of a run that begins with `first_index_of_data`.

    Raises:
        ProtocolError: the run does not hold all of them.
    """
    view = memoryview(data).cast("B")
    begin, index = None, first_index_of_data
    if first_index_of_data <= low <= high:
        for offset in _starts(view):
            if index == low:
                begin = offset
            if index == high and begin is not None:
                return bytes(view[begin : offset + _length(view, offset)])
            index += 1
    raise ProtocolError(f"entries {low} to {high} are not all in the {index - first_index_of_data} records given")
