"""Mutual challenge-response without I/O: who dials proves that it knows the secret, then who accepted does.

Knows bytes, keys and claims; must not know sockets, clocks or loops. Invariant: a `Session` exists only after the other
end made a MAC over this end's fresh nonce, its role, both ids, the link's kind, the version range and its claims. Until
the dialler has proved itself, the accepting end says nothing but its id and a nonce.

A message: magic `HQHS`, u8 handshake version = 1, u8 step, u16 size of the body, msgpack body.

    1 hello      dialler   [version_low, version_high, port, kind, dialler id, wanted id (0: any), nonce of 32 bytes]
    2 challenge  acceptor  [version, acceptor id, nonce of 32 bytes]
    3 proof      dialler   [claims, [MAC per accepted secret]]
    4 welcome    acceptor  [claims, MAC]
    5 refusal    acceptor  reason (text); may stand for 2 or 4, and is not authenticated

The acceptor chooses the newest protocol version that both ends speak, or refuses. The hello has this shape whatever
versions it offers, so that every node can read it; all that comes later is as the chosen version says. Who changes the
offer on its way changes the messages under both MACs.

    key      HKDF-SHA-256(secret, salt "hiqlite handshake 1", info = port)
    MAC      HMAC-SHA-256(key, role || SHA-256(all messages so far) || SHA-256(channel binding) || claims)
    claims   msgpack [cluster id or empty, {group: incarnation}, greeting or nil]
    session  HKDF-SHA-256(key, salt = both nonces, info = label || SHA-256(all messages))

Replay fails by the nonces, reflection by the roles. While a secret is being rotated both ends accept two of them, and
the proof carries a MAC under each.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets as random_secrets
from collections.abc import Callable, Sequence
from typing import Any

from hiqlite.errors import ProtocolError, TransportError

from .session import REASONS, Claims, LinkKind, Session, failure, hkdf, pack_claims, unpack_claims
from .versions import SPOKEN, Versions
from .wire import pack, unpack

MAGIC = b"HQHS"
HANDSHAKE_VERSION = 1
HEADER_BYTES = 8
BODY_BYTES_MAX = 16384  # of one message: a greeting names the nodes of a cluster, and no more
NONCE_BYTES = 32
SECRETS_MAX = 2

HELLO, CHALLENGE, PROOF, WELCOME, REFUSAL = 1, 2, 3, 4, 5


class Handshake:
    """What both ends have in common: cutting messages, the transcript, MACs, failing with a reason.

    After an error `reason` is one of `REASONS` and `farewell` holds the bytes to send before closing. `on_stranger` is
    told of an end of another cluster: its id, and its cluster's id if that is proven. `admits` says why a proven end
    with such claims is not taken; nothing: it is.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        port: str,
        node_id: int,
        claims: Callable[[], Claims],
        binding: bytes,
        nonce: bytes,
        versions: Versions,
    ) -> None:
        assert 1 <= len(secrets) <= SECRETS_MAX and all(secrets)
        self._keys = [hkdf(secret.encode(), b"hiqlite handshake 1", port.encode(), 32) for secret in secrets]
        self._port = port
        self._versions = versions
        self._node_id = node_id
        self._own_claims = claims
        self._binding = hashlib.sha256(binding).digest()
        self._nonce = nonce or random_secrets.token_bytes(NONCE_BYTES)
        self._peer_nonce = b""
        self._transcript = hashlib.sha256()
        self._buffer = bytearray()
        self._version = 0
        self.peer_id = 0
        self.reason = ""
        self.farewell = b""
        self.session: Session | None = None
        self.on_stranger: Callable[[int, bytes], None] = lambda *_: None
        self.admits: Callable[[int, Claims], str] = lambda *_: ""

    @property
    def leftover(self) -> bytes:
        """Bytes behind the last message of the handshake."""
        return bytes(self._buffer)

    def receive(self, data: bytes) -> bytes:
        """Takes bytes of the other end; returns bytes to send. `session` is set once the other end is proven.

        Raises:
            AuthenticationError: the other end does not know the secret.
            ProtocolError: everything else.
        """
        assert self.session is None and not self.reason, "this handshake has ended"
        self._buffer += data
        answer = b""
        while self.session is None:
            message = self._cut()
            if message is None:
                break
            answer += self._take(*message)
        return answer

    def _take(self, step: int, body: Any, raw: bytes) -> bytes:
        raise AssertionError("each end takes its own messages")

    def _cut(self) -> tuple[int, Any, bytes] | None:
        """The next whole message as (step, body, raw bytes). Noise is refused at its first wrong byte."""
        head = bytes(self._buffer[:HEADER_BYTES])
        if head[:4] != MAGIC[: len(head)]:
            raise self.refuse("garbage", tell=False)
        if len(head) >= 5 and head[4] != HANDSHAKE_VERSION:
            raise self.refuse("version")
        if len(head) < HEADER_BYTES:
            return None
        size = int.from_bytes(head[6:8], "little")
        if size > BODY_BYTES_MAX:
            raise self.refuse("oversized")
        if len(self._buffer) < HEADER_BYTES + size:
            return None
        raw = bytes(self._buffer[: HEADER_BYTES + size])
        del self._buffer[: HEADER_BYTES + size]
        try:
            return head[5], unpack(raw[HEADER_BYTES:]), raw
        except ProtocolError:
            raise self.refuse("malformed") from None

    def _message(self, step: int, body: Any) -> bytes:
        packed = pack(body)
        assert len(packed) <= BODY_BYTES_MAX, "a greeting is bounded by the number of nodes"
        raw = MAGIC + bytes((HANDSHAKE_VERSION, step)) + len(packed).to_bytes(2, "little") + packed
        self._transcript.update(raw)
        return raw

    def _mac(self, key: bytes, role: bytes, transcript: bytes, claims: bytes) -> bytes:
        return hmac.digest(key, role + transcript + self._binding + claims, "sha256")

    def _finish(self, kind: LinkKind, dialed: bool, key: bytes, claims: Claims) -> None:
        own, other = self._nonce, self._peer_nonce
        salt = own + other if dialed else other + own
        self.session = Session(kind, self.peer_id, dialed, self._version, claims, key, salt, self._transcript.digest())

    def _check_claims(self, claims: Claims) -> None:
        own = self._own_claims().cluster_id
        if own and claims.cluster_id and own != claims.cluster_id:
            self.on_stranger(self.peer_id, claims.cluster_id)
            raise self.refuse("cluster")
        if reason := self.admits(self.peer_id, claims):
            raise self.refuse(reason)

    def refuse(self, reason: str, *, tell: bool = True) -> TransportError:
        """Ends this handshake; gives the error to raise."""
        assert reason in REASONS
        self.reason = reason
        if tell:
            packed = pack(reason)
            size = len(packed).to_bytes(2, "little")
            self.farewell = MAGIC + bytes((HANDSHAKE_VERSION, REFUSAL)) + size + packed
        return failure(reason)


class Dialler(Handshake):
    """The end that opened the connection.

    Args:
        secrets: the current one first; a second is accepted while it is being rotated.
        port: "raft" or "api"; secrets of one port are worth nothing at the other.
        wanted_id: the node that must answer; 0 takes any.
        claims: asked when the proof is made, so that it is current.
        binding: what only the ends of this TLS channel share, or nothing.
        nonce: 32 fresh random bytes (given only by tests).
        versions: of the protocol, that this end speaks.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        port: str,
        kind: LinkKind,
        node_id: int,
        wanted_id: int,
        claims: Callable[[], Claims],
        *,
        binding: bytes = b"",
        nonce: bytes = b"",
        versions: Versions = SPOKEN,
    ) -> None:
        super().__init__(secrets, port, node_id, claims, binding, nonce, versions)
        self._kind = kind
        self._wanted_id = wanted_id
        self._stage = CHALLENGE

    def start(self) -> bytes:
        """The first bytes to send."""
        low, high = self._versions.low, self._versions.high
        body = [low, high, self._port, int(self._kind), self._node_id, self._wanted_id, self._nonce]
        return self._message(HELLO, body)

    def _take(self, step: int, body: Any, raw: bytes) -> bytes:
        if step == REFUSAL and isinstance(body, str):
            self.reason = body if body in REASONS else "malformed"
            if self.reason == "cluster":
                self.on_stranger(self._wanted_id, b"")
            raise failure(self.reason, told=True)
        if step != self._stage:
            raise self.refuse("malformed", tell=False)
        if step == CHALLENGE:
            return self._prove(body, raw)
        self._verify(body, raw)
        return b""

    def _prove(self, body: Any, raw: bytes) -> bytes:
        match body:
            case [int() as version, int() as peer_id, bytes() as nonce] if len(nonce) == NONCE_BYTES:
                pass
            case _:
                raise self.refuse("malformed", tell=False)
        if version not in self._versions:
            raise self.refuse("version", tell=False)
        if self._wanted_id and peer_id != self._wanted_id:
            raise self.refuse("wrong_node", tell=False)
        if nonce == self._nonce or (self._node_id and peer_id == self._node_id):
            raise self.refuse("reflected", tell=False)
        self._version, self.peer_id, self._peer_nonce = version, peer_id, nonce
        self._transcript.update(raw)
        claims = pack_claims(self._own_claims())
        transcript = self._transcript.digest()
        self._stage = WELCOME
        return self._message(PROOF, [claims, [self._mac(key, b"dialler.", transcript, claims) for key in self._keys]])

    def _verify(self, body: Any, raw: bytes) -> None:
        match body:
            case [bytes() as packed, bytes() as mac]:
                pass
            case _:
                raise self.refuse("malformed", tell=False)
        transcript = self._transcript.digest()
        expected = [self._mac(key, b"acceptor", transcript, packed) for key in self._keys]
        key = _matching(self._keys, expected, [mac])
        if key is None:
            raise self.refuse("wrong_secret", tell=False)
        claims = self._claims_of(packed)
        self._check_claims(claims)
        self._transcript.update(raw)
        self._finish(self._kind, True, key, claims)

    def _claims_of(self, packed: bytes) -> Claims:
        claims = unpack_claims(packed)
        if claims is None:
            raise self.refuse("malformed", tell=False)
        return claims


class Acceptor(Handshake):
    """The end that listens.

    Args:
        kinds: links that this port takes.
        others: as for `Dialler`.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        port: str,
        kinds: frozenset[LinkKind],
        node_id: int,
        claims: Callable[[], Claims],
        *,
        binding: bytes = b"",
        nonce: bytes = b"",
        versions: Versions = SPOKEN,
    ) -> None:
        super().__init__(secrets, port, node_id, claims, binding, nonce, versions)
        self._kinds = kinds
        self._kind: LinkKind | None = None
        self._stage = HELLO

    def _take(self, step: int, body: Any, raw: bytes) -> bytes:
        if step != self._stage:
            raise self.refuse("malformed")
        if step == HELLO:
            return self._challenge(body, raw)
        return self._welcome(body, raw)

    def _challenge(self, body: Any, raw: bytes) -> bytes:
        match body:
            case [int(low), int(high), str(port), int(kind), int(peer_id), int(wanted), bytes(nonce)]:
                pass
            case _:
                raise self.refuse("malformed")
        if len(nonce) != NONCE_BYTES or not 0 <= peer_id < 1 << 64:
            raise self.refuse("malformed")
        version = self._versions.common(low, high)
        if not version:
            raise self.refuse("version")
        if port != self._port or kind not in self._kinds:
            raise self.refuse("port")
        if wanted and wanted != self._node_id:
            raise self.refuse("wrong_node")
        if nonce == self._nonce or (self._node_id and peer_id == self._node_id):
            raise self.refuse("reflected")
        self._version, self.peer_id, self._peer_nonce, self._kind = version, peer_id, nonce, LinkKind(kind)
        self._transcript.update(raw)
        self._stage = PROOF
        return self._message(CHALLENGE, [version, self._node_id, self._nonce])

    def _welcome(self, body: Any, raw: bytes) -> bytes:
        match body:
            case [bytes() as packed, [*macs]] if 1 <= len(macs) <= SECRETS_MAX:
                pass
            case _:
                raise self.refuse("malformed")
        given = [mac for mac in macs if isinstance(mac, bytes)]
        transcript = self._transcript.digest()
        expected = [self._mac(key, b"dialler.", transcript, packed) for key in self._keys]
        key = _matching(self._keys, expected, given)
        if key is None:
            raise self.refuse("wrong_secret")
        claims = unpack_claims(packed)
        if claims is None:
            raise self.refuse("malformed")
        self._check_claims(claims)
        if self._buffer:
            raise self.refuse("early")  # the dialler waits for the welcome; nothing of its link can be here yet
        self._transcript.update(raw)
        own = pack_claims(self._own_claims())
        assert self._kind is not None
        welcome = self._message(WELCOME, [own, self._mac(key, b"acceptor", self._transcript.digest(), own)])
        self._finish(self._kind, False, key, claims)
        return welcome


def _matching(keys: list[bytes], expected: list[bytes], given: list[bytes]) -> bytes | None:
    """The key whose MAC is among the given ones; compares all of them, each in constant time."""
    found: bytes | None = None
    for key, mac in zip(keys, expected, strict=True):
        for other in given:
            if hmac.compare_digest(mac, other):
                found = key
    return found
