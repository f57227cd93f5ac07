"""A change of members as the other group is told of it: the payload of a mirror entry.

Knows msgpack and the record format; must not know when it counts. Layout: docs/formats.md section 3. Invariant: what is
decoded has a voter, and names no node twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import msgpack

from hiqlite._accel.records import HEADER_SIZE, EntryKind, RecordKind, encode_record, header
from hiqlite.engine.model import Membership
from hiqlite.errors import ProtocolError

MEMBERS_MAX = 256
INDEX_BYTES = 8


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Who the members are, by their ids alone: each group has incarnations of its own.

    Attributes:
        index: of the configuration in the group where the change was made.
    """

    index: int
    voters: tuple[int, ...]
    learners: tuple[int, ...]

    @classmethod
    def of(cls, membership: Membership) -> Self:
        """A configuration that is not joint. Who votes in an incarnation that is over, and learns in the next one, is a
        voter: it becomes one in each group by itself."""
        voters = {one.id for one in membership.voters}
        learners = {one.id for one in membership.learners} - voters
        return cls(membership.index, tuple(sorted(voters)), tuple(sorted(learners)))

    def record(self) -> bytes:
        """The entry, to be sealed by a leader."""
        payload = self.index.to_bytes(INDEX_BYTES, "little") + msgpack.packb([self.voters, self.learners])
        return encode_record(RecordKind.ENTRY, EntryKind.MIRROR, payload)

    @classmethod
    def decode(cls, index: int, members: bytes) -> Self:
        """Of what stands behind the index. Raises ProtocolError."""
        try:
            voters, learners = (tuple(whole(one) for one in part) for part in msgpack.unpackb(members))
        except (ValueError, TypeError) as error:  # msgpack's own errors are ValueErrors
            raise ProtocolError(f"{len(members)} bytes that are no list of members") from error
        everybody = voters + learners
        if not voters or len(set(everybody)) != len(everybody) or len(everybody) > MEMBERS_MAX:
            raise ProtocolError("a list of members without a voter, or with a node twice")
        return cls(index, voters, learners)


def check(record: bytes) -> None:
    """Before an entry is proposed for a peer. Raises ProtocolError: what nobody can read might stay the newest."""
    payload = record[HEADER_SIZE : HEADER_SIZE + header(record, 0).payload_length]
    index = int.from_bytes(payload[:INDEX_BYTES], "little")
    if index >= 1 << 63:
        raise ProtocolError("a list of members with an index that no log has")
    Mirrored.decode(index, payload[INDEX_BYTES:])


def whole(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1 << 63:
        raise ValueError("expected a node's id")
    return value
