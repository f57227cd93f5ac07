"""Where each node is reached: what its own config says, what others said of it, and what it said last itself.

Addresses only say where to dial; who answers there is proven by the handshake, so nothing here can do more harm than
a dial in vain. Must not know sockets or files. Invariants: of two entries for a node the one with the higher stamp
counts, on every node; a node's own word about itself is stamped higher than anything that it has seen about itself,
so it prevails; stamps say nothing about time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from hiqlite.errors import ProtocolError, UsageError

NODES_MAX = 4096
HOST_CHARS_MAX = 255
HEARD_MAX = NODES_MAX - 256  # from peers; the rest is for commands
STAMP_MAX = 1 << 62


@dataclass(frozen=True, slots=True)
class Address:
    """One node's ports; `api` may be empty when only the raft port is known."""

    stamp: int
    raft: str
    api: str

    @property
    def raft_target(self) -> tuple[str, int]:
        return split_address(self.raft)

    def to_wire(self) -> list[Any]:
        return [self.stamp, self.raft, self.api]

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Raises ValueError or TypeError."""
        stamp, raft, api = wire
        if type(stamp) is not int or not 0 <= stamp < STAMP_MAX:
            raise ValueError("a stamp that no address has")
        split_address(raft)
        if api != "":
            split_address(api)
        return cls(stamp, raft, api)


def split_address(text: Any) -> tuple[str, int]:
    """`host:port`, IPv6 in brackets. Raises UsageError."""
    if isinstance(text, str):
        host, colon, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        bare = ":" in host and not text.startswith("[")
        if colon and 0 < len(host) <= HOST_CHARS_MAX and port.isascii() and port.isdigit() and not bare:
            number = int(port)
            if 0 < number < 1 << 16:
                return host, number
    raise UsageError(f"{text!r} is no address", hint="host:port, IPv6 in brackets")


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class AddressBook:
    """Of one node.

    Args:
        own_id: this node's.
        configured: id -> (raft, api) by this node's config.
        known: what an earlier start had heard.
    """

    def __init__(
        self, own_id: int, configured: Mapping[int, tuple[str, str]], known: Mapping[int, Address] | None = None
    ) -> None:
        self._own_id = own_id
        self._configured = dict(configured)
        self._known = dict(known or {})
        self._say_own_word()

    @property
    def entries(self) -> dict[int, Address]:
        """What was said of nodes, by them or by a command; to be kept, and to be told to others."""
        return dict(self._known)

    def raft_targets(self, number: int) -> tuple[tuple[str, int], ...]:
        """Where to dial a node, the likeliest first; empty when nothing is known of it."""
        texts = [self._known[number].raft] if number in self._known else []
        if number in self._configured and self._configured[number][0] not in texts:
            texts.append(self._configured[number][0])
        return tuple(split_address(text) for text in texts)

    def shown(self, number: int) -> tuple[str, str]:
        """(raft, api) for people; empty texts when nothing is known."""
        configured = self._configured.get(number, ("", ""))
        known = self._known.get(number)
        return configured if known is None else (known.raft, known.api or configured[1])

    def hear(self, entries: Mapping[int, Address]) -> bool:
        """Takes what a peer knows; whether anything of it was news."""
        before = dict(self._known)
        for number, address in entries.items():
            known = self._known.get(number)
            if known is None and len(self._known) >= HEARD_MAX:
                continue
            # Of two equal stamps, which only commands give twice, any one counts, as long as it is the same everywhere.
            if known is None or _order(address) > _order(known):
                self._known[number] = address
        self._say_own_word()
        return self._known != before

    def command(self, number: int, raft: str, api: str) -> bool:
        """Somebody says by command where a node is; whether it is news. The node itself may know better later."""
        split_address(raft)
        if api:
            split_address(api)
        known = self._known.get(number)
        if known is not None and (known.raft, known.api) == (raft, api):
            return False
        if known is None and len(self._known) >= NODES_MAX - 1:
            raise UsageError(f"{len(self._known)} nodes are known already, that is the limit")
        self._known[number] = Address(min(known.stamp + 1, STAMP_MAX - 1) if known else 0, raft, api)
        self._say_own_word()
        return True

    def _say_own_word(self) -> None:
        own = self._configured.get(self._own_id)
        if own is None:
            return
        known = self._known.get(self._own_id)
        if known is None or (known.raft, known.api) != own:
            self._known[self._own_id] = Address(1 if known is None else min(known.stamp + 1, STAMP_MAX - 1), *own)


def _order(address: Address) -> tuple[int, str, str]:
    return address.stamp, address.raft, address.api


def entries_to_wire(entries: Mapping[int, Address]) -> list[list[Any]]:
    return [[number, *address.to_wire()] for number, address in sorted(entries.items())]


def entries_from_wire(wire: Any) -> dict[int, Address]:
    """Raises ProtocolError for anything that is no list of addresses."""
    try:
        found = {number: Address.from_wire(rest) for number, *rest in _bounded(wire)}
        if not all(type(number) is int and 0 < number < 1 << 63 for number in found):
            raise ValueError("ids that no node has")
    except (TypeError, ValueError) as error:  # UsageError is a ValueError
        raise ProtocolError(f"a list of addresses that cannot be read: {error}") from error
    return found


def _bounded(wire: Any) -> Iterable[Any]:
    if not isinstance(wire, list) or len(wire) > NODES_MAX:
        raise ValueError("no list, or too long")
    return wire
