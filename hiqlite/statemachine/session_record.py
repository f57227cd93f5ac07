"""The payload of a session entry: what a client asks of the session that it opens.

Must not know who waits for it. Layout: docs/formats.md section 3. The session's id is the index of the entry.
"""

from __future__ import annotations

import struct
from typing import Final

from hiqlite._accel import records
from hiqlite._accel.records import HEADER_SIZE, EntryKind, RecordKind, encode_record, header
from hiqlite.errors import ProtocolError

PAYLOAD: Final = struct.Struct("<BBHIqq")
VERSION: Final = 1
OPEN: Final = 1
WINDOW_MAX: Final = 1 << 16
TTL_MAX_NS: Final = 1 << 60


def session_record(window: int, ttl_ns: int, request_ttl_ns: int) -> bytes:
    """The entry, to be sealed by a leader.

    Args:
        window: how many writes of the session may wait for an answer at once.
        ttl_ns: the session ends when it was not used for so long, by group time.
        request_ttl_ns: how long the answer to a write with a request id is kept, by group time.
    """
    assert 0 < window <= WINDOW_MAX and 0 < ttl_ns <= TTL_MAX_NS and 0 < request_ttl_ns <= TTL_MAX_NS
    payload = PAYLOAD.pack(VERSION, OPEN, 0, window, ttl_ns, request_ttl_ns)
    return encode_record(RecordKind.ENTRY, EntryKind.SESSION, payload)


def check(record: bytes) -> None:
    """Before an entry is proposed for a peer. Raises ProtocolError."""
    payload = record[HEADER_SIZE:]
    whole = records.check(record, 0, sealed=False, payload=True) == records.OK
    if not whole or len(payload) != PAYLOAD.size or header(record, 0).payload_length != PAYLOAD.size:
        raise ProtocolError("a session entry of another size, or damaged on its way")
    version, operation, reserved, window, ttl_ns, request_ttl_ns = PAYLOAD.unpack(payload)
    if (version, operation, reserved) != (VERSION, OPEN, 0) or not 0 < window <= WINDOW_MAX:
        raise ProtocolError("a session entry that cannot be read")
    if not 0 < ttl_ns <= TTL_MAX_NS or not 0 < request_ttl_ns <= TTL_MAX_NS:
        raise ProtocolError("a session entry without a time")
