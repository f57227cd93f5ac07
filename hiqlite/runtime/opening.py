"""The one record that a leader makes itself: the entry without content that opens its term.

Knows the record format only. Invariant: it is sealed, as every record is that leaves for the log.
"""

from __future__ import annotations

from hiqlite._accel.records import encode_record

KIND_ENTRY = 1
ENTRY_NOOP = 8


def opening_record(term: int, index: int, group_time_ns: int, wall_time_ns: int, seed: int) -> bytes:
    """Makes everything before it committable (Raft thesis 3.6.2), and applies as nothing."""
    return encode_record(
        KIND_ENTRY,
        ENTRY_NOOP,
        b"",
        term=term,
        index=index,
        group_time_ns=group_time_ns,
        wall_time_ns=wall_time_ns,
        seed=seed,
    )
