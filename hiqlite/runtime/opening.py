"""The records that a leader makes itself: the entry without content that opens its term, and configurations.

Knows the record format only. Invariant: each is sealed, as every record is that leaves for the log.
"""

from __future__ import annotations

from hiqlite._accel.records import EntryKind, RecordKind, encode_record
from hiqlite.engine.model import Membership

from .membership_record import encode_membership


def own_record(
    term: int, index: int, membership: Membership | None, group_time_ns: int, wall_time_ns: int, seed: int
) -> bytes:
    """The entry that says `membership`, or without one the no-op, which makes everything before it committable
    (Raft thesis 3.6.2). Both apply as nothing."""
    return encode_record(
        RecordKind.ENTRY,
        EntryKind.NOOP if membership is None else EntryKind.MEMBERSHIP,
        b"" if membership is None else encode_membership(membership),
        term=term,
        index=index,
        group_time_ns=group_time_ns,
        wall_time_ns=wall_time_ns,
        seed=seed,
    )
