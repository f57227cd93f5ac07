"""A configuration as bytes: the payload of a membership entry, and what an image says about who was in force.

Knows the record format and msgpack; must not know when a configuration counts. Invariant: what is decoded names its
index and no member twice in one set, and an entry's configuration names the entry's own index.
"""

from __future__ import annotations

from typing import Any

import msgpack

from hiqlite._accel.records import HEADER_SIZE, EntryKind, find_kind, header
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import ProtocolError

MEMBERS_MAX = 256
REMOVED_MAX = 4096
NUMBER_MAX = 1 << 63
SETS = ("voters", "learners", "outgoing")


def encode_membership(membership: Membership) -> bytes:
    """msgpack of [index, voters, learners, outgoing], each a list of [id, incarnation]; then ids of the removed, if
    there are any: a node of an earlier version reads what has none."""
    sets = (membership.voters, membership.learners, membership.outgoing)
    value = [membership.index, *([[one.id, one.incarnation] for one in part] for part in sets)]
    packed: bytes = msgpack.packb([*value, list(membership.removed)] if membership.removed else value)
    return packed


def decode_membership(payload: bytes | memoryview) -> Membership:
    """The configuration in `payload`. Raises ProtocolError when it is none."""
    try:
        index, *parts = msgpack.unpackb(payload)
        removed = _ids(parts.pop()) if len(parts) == len(SETS) + 1 else ()
        voters, learners, outgoing = (_identities(part) for part in parts)
    except (ValueError, TypeError) as error:  # msgpack's own errors are ValueErrors
        raise ProtocolError(f"{len(payload)} bytes that are no membership") from error
    if not isinstance(index, int) or not 0 <= index < NUMBER_MAX or not voters:
        raise ProtocolError("a membership without voters, or without an index")
    return Membership(index, voters, learners, outgoing, removed)


def memberships_in(records: bytes) -> tuple[Membership, ...]:
    """What the membership entries among checked records say, ascending. Raises ProtocolError."""
    found = []
    for offset in find_kind(records, EntryKind.MEMBERSHIP):
        head = header(records, offset)
        begin = offset + HEADER_SIZE
        membership = decode_membership(memoryview(records)[begin : begin + head.payload_length])
        if membership.index != head.index:
            raise ProtocolError(f"entry {head.index} says it is the membership of index {membership.index}")
        found.append(membership)
    return tuple(found)


def _identities(pairs: Any) -> tuple[Identity, ...]:
    found = tuple([Identity(node_id, incarnation) for node_id, incarnation in pairs])
    for one in found:
        if not (isinstance(one.id, int) and isinstance(one.incarnation, int)):
            raise TypeError("not whole numbers")
        if not (0 < one.id < NUMBER_MAX and 0 <= one.incarnation < 2 * NUMBER_MAX):
            raise ValueError("numbers that no node has")
    if len(set(found)) != len(found) or len(found) > MEMBERS_MAX:
        raise ValueError("a member is named twice, or there are too many")
    return found


def _ids(numbers: Any) -> tuple[int, ...]:
    found = tuple(numbers)
    if not all(type(one) is int and 0 < one < NUMBER_MAX for one in found):
        raise ValueError("ids that no node has")
    if len(set(found)) != len(found) or not 0 < len(found) <= REMOVED_MAX:
        raise ValueError("a node was removed twice, or too many were")
    return found
