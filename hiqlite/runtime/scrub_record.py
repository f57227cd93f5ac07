"""A scrub mark as an entry, and what nodes say to each other about what they found there.

Knows msgpack and the record format; must not know databases. Layout: docs/formats.md sections 3 and 10. Invariant: what
is decoded is in bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import msgpack

from hiqlite._accel.records import EntryKind, RecordKind, encode_record
from hiqlite.errors import ProtocolError

NUMBER_MAX = 1 << 63
MEMBERS_MAX = 256
DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class ScrubMark:
    """`number` is one that no other mark has; `table` and `key` say where the part begins that is looked at (see
    `statemachine/equality.py`); `bytes_max`: how long it is at least, 0: all there is."""

    number: int
    table: str = ""
    key: tuple[Any, ...] = ()
    bytes_max: int = 0

    def record(self) -> bytes:
        """The entry, to be sealed by a leader."""
        payload = msgpack.packb([self.number, self.table, list(self.key), self.bytes_max])
        return encode_record(RecordKind.ENTRY, EntryKind.SCRUB_MARK, payload)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Raises ProtocolError."""
        try:
            match msgpack.unpackb(payload):
                case [int(number), str(table), [*key], int(bytes_max), *_] if 0 <= bytes_max < NUMBER_MAX:
                    return cls(number, table, tuple(key), bytes_max)
        except ValueError as error:  # msgpack's own errors are ValueErrors
            raise ProtocolError(f"{len(payload)} bytes that are no scrub mark") from error
        raise ProtocolError("a scrub mark that cannot be read")


@dataclass(frozen=True, slots=True)
class Found:
    """What one node found behind a mark. `end`: (table, key) where the next part begins; None: there is none."""

    index: int
    digest: bytes
    end: tuple[str, tuple[Any, ...]] | None = None

    def to_wire(self) -> dict[str, Any]:
        end = None if self.end is None else [self.end[0], list(self.end[1])]
        return {"index": self.index, "digest": self.digest, "end": end}

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Raises ProtocolError."""
        match wire:
            case {"index": int(index), "digest": bytes(digest), "end": None} if len(digest) == DIGEST_BYTES:
                return cls(index, digest)
            case {"index": int(index), "digest": bytes(digest), "end": [str(table), [*key]]} if (
                len(digest) == DIGEST_BYTES
            ):
                return cls(index, digest, (table, tuple(key)))
        raise ProtocolError("what a node found behind a scrub mark cannot be read")


@dataclass(frozen=True, slots=True)
class Claims:
    """What all of them found behind the entry `index`, as the leader tells it to each; `place`: (table, key) where the
    part begins; `whole`: it is all there is."""

    index: int
    digests: Mapping[int, bytes]
    voters: tuple[int, ...]
    place: tuple[str, tuple[Any, ...]] = ("", ())
    whole: bool = False

    def to_wire(self) -> dict[str, Any]:
        table, key = self.place
        digests = [[node, digest] for node, digest in self.digests.items()]
        return {
            "index": self.index, "digests": digests, "voters": list(self.voters), "place": [table, list(key)],
            "whole": self.whole,
        }  # fmt: skip

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Raises ProtocolError."""
        match wire:
            case {
                "index": int(index), "digests": [*pairs], "voters": [*voters], "place": [str(table), [*key]],
                "whole": bool(whole),
            } if len(pairs) <= MEMBERS_MAX:  # fmt: skip
                digests: dict[int, bytes] = {}
                for pair in pairs:
                    match pair:
                        case [int(node), bytes(digest)]:
                            digests[node] = digest
                        case _:
                            raise ProtocolError("a claim that cannot be read")
                if all(isinstance(one, int) for one in voters) and 0 < len(voters) <= MEMBERS_MAX:
                    return cls(index, digests, tuple(voters), (table, tuple(key)), whole)
        raise ProtocolError("claims that cannot be read")
