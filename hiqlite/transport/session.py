"""What a handshake proves: who is at the other end, what it says about itself, and keys that only both ends know.

Knows keys and claims; must not know messages, sockets or clocks. Invariant: a key derived here depends on the secret,
on both nonces and on every byte of the handshake.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from hiqlite.errors import AuthenticationError, PeerUnreachable, ProtocolError, TransportError

from .wire import pack, unpack

# Reasons that may be told to a peer and counted; the text is for people.
REASONS = {
    "garbage": "bytes that are no handshake",
    "oversized": "a handshake message that is too long",
    "malformed": "a handshake message of unknown shape",
    "version": "no protocol version in common",
    "port": "a link of a kind that this port does not take",
    "reflected": "the own nonce or the own id came back",
    "wrong_node": "another node answers at this address",
    "unknown_node": "a node id that is not known here",
    "double": "another node with this id is connected",
    "wrong_secret": "the secrets differ",
    "cluster": "the other node belongs to another cluster",
    "closed": "the port was closed",
    "timeout": "the handshake took too long",
    "truncated": "the connection ended inside the handshake",
    "crowded": "too many connections that have not proved themselves",
    "early": "bytes before the handshake's end",
}

TRANSIENT = frozenset(("timeout", "truncated", "crowded", "double"))  # may be over at the next try


class LinkKind(IntEnum):
    LOG = 1
    CONTROL = 2
    BEAT = 3
    BULK = 4
    CLIENT = 5


@dataclass(frozen=True, slots=True)
class Claims:
    """What an end says about itself, under the MAC."""

    cluster_id: bytes = b""
    incarnations: Mapping[int, int] = field(default_factory=dict)
    greeting: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A proven peer. `secret_key` never leaves this object; `key` derives what others need."""

    kind: LinkKind
    peer_id: int
    dialed: bool
    version: int
    claims: Claims
    secret_key: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    transcript: bytes = field(repr=False)

    def key(self, label: str, size_bytes: int) -> bytes:
        """Key material of this session alone, equal at both ends."""
        return hkdf(self.secret_key, self.salt, label.encode() + self.transcript, size_bytes)


def failure(reason: str, *, told: bool = False) -> TransportError:
    """The error of a handshake that ended by `reason`; `told`: the other end said so, nothing proves it."""
    text = REASONS[reason]
    message = f"handshake refused by the other end: {text}" if told else f"handshake failed: {text}"
    if reason == "wrong_secret":
        hint = "give all nodes (and clients) the same secret"
        return AuthenticationError(message, hint=hint)
    if reason == "version":
        return ProtocolError(message, hint="upgrade nodes one by one, and over no more than one release at a time")
    if reason in TRANSIENT:
        return PeerUnreachable(message)
    return ProtocolError(message)


def hkdf(secret: bytes, salt: bytes, info: bytes, size_bytes: int) -> bytes:
    """HKDF with SHA-256 (RFC 5869)."""
    assert 0 < size_bytes <= 255 * 32
    extracted = hmac.digest(salt, secret, "sha256")
    out = block = b""
    counter = 1
    while len(out) < size_bytes:
        block = hmac.digest(extracted, block + info + bytes((counter,)), "sha256")
        out += block
        counter += 1
    return out[:size_bytes]


def pack_claims(claims: Claims) -> bytes:
    greeting = None if claims.greeting is None else dict(claims.greeting)
    return pack([claims.cluster_id, dict(claims.incarnations), greeting])


def unpack_claims(packed: bytes) -> Claims | None:
    try:
        fields = unpack(packed)
    except ProtocolError:
        return None
    match fields:
        case [bytes() as cluster_id, dict() as incarnations, dict() | None as greeting] if len(cluster_id) in (0, 32):
            pass
        case _:
            return None
    if not all(type(group) is int and type(value) is int for group, value in incarnations.items()):
        return None
    return Claims(cluster_id, incarnations, greeting)
