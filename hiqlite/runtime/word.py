"""What a node says of itself to its peers, for the watch: its cluster, and per group what it knows to be settled.

Knows the bytes of it (msgpack, docs/formats.md section 10); must not know what follows from a word. Invariant: what is
decoded is in bounds and well-formed; keys of later versions are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hiqlite.engine.model import Membership
from hiqlite.errors import ProtocolError

from .membership_record import decode_membership, encode_membership

NUMBER_MAX = 1 << 64
GROUPS_MAX = 8
NAME_CHARS_MAX = 32
TWICE_MAX = 256
STATES_MAX = 64
BUILD_CHARS_MAX = 256
CLUSTER_ID_BYTES = (0, 32)


@dataclass(frozen=True, slots=True)
class GroupWord:
    """Of one group. Whatever is not known is 0, or None.

    `committed` is (index, term) of the newest entry that this node knows to be committed. `held` is the same of an
    entry that it was asked about. `members` is the newest committed configuration; `forgets`: nobody keeps the group.
    `states` are (index, running hash of what entries gave) of some entries that are applied here.
    """

    incarnation: int
    forgets: bool = False
    term: int = 0
    leader_id: int = 0
    committed: tuple[int, int] = (0, 0)
    members: Membership | None = None
    held: tuple[int, int] = (0, 0)
    states: tuple[tuple[int, int], ...] = ()

    def to_wire(self) -> dict[str, Any]:
        return {
            "incarnation": self.incarnation,
            "forgets": self.forgets,
            "term": self.term,
            "leader": self.leader_id,
            "committed": list(self.committed),
            "members": None if self.members is None else encode_membership(self.members),
            "held": list(self.held),
            "states": [list(one) for one in self.states],
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> GroupWord:
        members = wire["members"]
        if members is not None and not isinstance(members, bytes):
            raise ValueError("members that are no bytes")
        states = wire.get("states", [])  # a node of 0.2.0 says nothing
        if not isinstance(states, list) or len(states) > STATES_MAX:
            raise ValueError("no list of states, or too long")
        return cls(
            _number(wire["incarnation"]),
            wire["forgets"] is True,
            _number(wire["term"]),
            _number(wire["leader"]),
            _pair(wire["committed"]),
            None if members is None else decode_membership(members),
            _pair(wire["held"]),
            tuple(_pair(one) for one in states),
        )


@dataclass(frozen=True, slots=True)
class Word:
    """Of one node. `process` is a number that no other process has; `cluster_id` is empty before it has formed or
    joined; `twice` are ids under which it met two processes; `build`: what it computes with, in words."""

    node_id: int
    process: int
    cluster_id: bytes = b""
    groups: Mapping[str, GroupWord] = field(default_factory=dict)
    twice: tuple[int, ...] = ()
    build: str = ""

    def to_wire(self) -> dict[str, Any]:
        return {
            "process": self.process,
            "cluster_id": self.cluster_id,
            "groups": {name: group.to_wire() for name, group in self.groups.items()},
            "twice": list(self.twice),
            "build": self.build,
        }

    @classmethod
    def from_wire(cls, node_id: int, wire: Any) -> Word:
        """`node_id` is who said it, as the link proves. Raises ProtocolError for anything that is no word."""
        try:
            cluster_id, groups, twice = wire["cluster_id"], wire["groups"], wire["twice"]
            if not isinstance(cluster_id, bytes) or len(cluster_id) not in CLUSTER_ID_BYTES:
                raise ValueError("no id of a cluster")
            if not isinstance(groups, dict) or len(groups) > GROUPS_MAX:
                raise ValueError("no groups, or too many")
            if not isinstance(twice, list) or len(twice) > TWICE_MAX:
                raise ValueError("no list of ids, or too long")
            found = {_name(name): GroupWord.from_wire(group) for name, group in groups.items()}
            process = _number(wire["process"])
            if not process:
                raise ValueError("no process")
            build = str(wire.get("build", ""))[:BUILD_CHARS_MAX]
            return cls(node_id, process, cluster_id, found, tuple(_number(one) for one in twice), build)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"a word of the watch that cannot be read: {error!r}") from error


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < NUMBER_MAX:
        raise ValueError("no whole number, or out of range")
    return value


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return _number(first), _number(second)


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > NAME_CHARS_MAX:
        raise ValueError("no name of a group")
    return value
