"""The handshake without sockets: who proves what, and every way in which it must fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from hiqlite.errors import AuthenticationError, ProtocolError, TransportError
from hiqlite.transport.handshake import BODY_BYTES_MAX, MAGIC, Acceptor, Dialler
from hiqlite.transport.session import REASONS, Claims, LinkKind, hkdf
from hiqlite.transport.versions import SPOKEN, Versions

GOLDEN = Path(__file__).parent.parent / "golden"
SECRET, OTHER, THIRD = "the secret of all nodes", "another secret altogether", "the third of the secrets"
CLUSTER = bytes(range(32))
NODE_LINKS = frozenset((LinkKind.LOG, LinkKind.CONTROL, LinkKind.BEAT))


def dialler(secrets: tuple[str, ...] = (SECRET,), claims: Claims | None = None, **options: Any) -> Dialler:
    kind, port = options.pop("kind", LinkKind.CONTROL), options.pop("port", "raft")
    node_id, wanted_id = options.pop("node_id", 1), options.pop("wanted_id", 2)
    return Dialler(secrets, port, kind, node_id, wanted_id, lambda: claims or Claims(), **options)


def acceptor(secrets: tuple[str, ...] = (SECRET,), claims: Claims | None = None, **options: Any) -> Acceptor:
    port, node_id = options.pop("port", "raft"), options.pop("node_id", 2)
    admits = options.pop("admits", None)
    made = Acceptor(secrets, port, NODE_LINKS, node_id, lambda: claims or Claims(), **options)
    if admits is not None:
        made.admits = admits
    return made


def talk(one: Dialler, other: Acceptor) -> None:
    """Carries bytes until both are done; the first error is raised."""
    data = one.start()
    while data:
        data = other.receive(data)
        if data:
            data = one.receive(data)


def reason(one: Dialler, other: Acceptor) -> str:
    """Why the acceptor or, told by it, the dialler gives up."""
    with pytest.raises(TransportError):
        talk(one, other)
    assert (one.session, other.session) == (None, None) or one.session is None
    return other.reason or one.reason


def message(step: int, body: Any, version: int = 1) -> bytes:
    packed = msgpack.packb(body)
    return MAGIC + bytes((version, step)) + len(packed).to_bytes(2, "little") + packed


def test_both_ends_learn_who_the_other_is_and_share_a_key() -> None:
    """Claims arrive, keys agree per label and differ between labels and sessions."""
    mine = Claims(CLUSTER, {0: 5, 1: 6}, {"fresh": True})
    theirs = Claims(b"", {0: 9}, {"fresh": False, "set": [[1, 5]]})
    one, other = dialler(claims=mine), acceptor(claims=theirs)
    talk(one, other)
    assert one.session is not None and other.session is not None
    assert (one.session.claims, other.session.claims) == (theirs, mine)
    assert (one.session.peer_id, other.session.peer_id) == (2, 1)
    assert (one.session.dialed, other.session.dialed) == (True, False)
    assert one.session.kind is other.session.kind is LinkKind.CONTROL
    assert one.session.key("beat", 16) == other.session.key("beat", 16)
    assert len({one.session.key("beat", 16), one.session.key("else", 16), one.session.key("beat", 32)[:16]}) == 2
    again, back = dialler(claims=mine), acceptor(claims=theirs)
    talk(again, back)
    assert again.session is not None and again.session.key("beat", 16) != one.session.key("beat", 16)


def test_one_byte_at_a_time_is_enough() -> None:
    """Messages may arrive in any portions."""
    one, other = dialler(), acceptor()
    to_other, to_one = one.start(), b""
    while to_other or to_one:
        for byte in to_other:
            to_one += other.receive(bytes((byte,)))
        to_other = b""
        for byte in to_one:
            to_other += one.receive(bytes((byte,)))
        to_one = b""
    assert one.session is not None and other.session is not None


def test_an_acceptor_says_nothing_about_itself_before_the_proof() -> None:
    """Its first answer holds its id and a nonce, and no MAC that a guess of the secret could be tried on."""
    answer = acceptor(claims=Claims(CLUSTER, {0: 5}, {"a": 1})).receive(dialler().start())
    assert answer[:6] == MAGIC + b"\x01\x02"
    version, node_id, nonce = msgpack.unpackb(answer[8:])
    assert (version, node_id, len(nonce)) == (SPOKEN.high, 2, 32)


@pytest.mark.parametrize(
    ("dials", "accepts", "works"),
    [
        ((SECRET,), (SECRET,), True),
        ((SECRET, OTHER), (SECRET,), True),
        ((OTHER, SECRET), (SECRET,), True),
        ((SECRET,), (OTHER, SECRET), True),
        ((OTHER, SECRET), (SECRET, THIRD), True),
        ((SECRET,), (OTHER,), False),
        ((SECRET, THIRD), (OTHER,), False),
    ],
)
def test_two_secrets_are_accepted_while_one_is_rotated(
    dials: tuple[str, ...], accepts: tuple[str, ...], works: bool
) -> None:
    """One secret in common is enough, at either place; none is an AuthenticationError at both ends."""
    one, other = dialler(dials), acceptor(accepts)
    if works:
        talk(one, other)
        assert one.session is not None and other.session is not None
        assert one.session.key("k", 16) == other.session.key("k", 16)
        return
    with pytest.raises(AuthenticationError):
        talk(one, other)
    assert other.reason == "wrong_secret"
    with pytest.raises(AuthenticationError):
        one.receive(other.farewell)


def test_a_dialler_that_meets_a_liar_notices() -> None:
    """Who does not know the secret cannot give the welcome, even when it lets the dialler in."""
    one, liar = dialler((SECRET,)), acceptor((OTHER,))
    proof = one.receive(liar.receive(one.start()))
    claims = msgpack.unpackb(proof[8:])[0]
    with pytest.raises(AuthenticationError):
        one.receive(message(4, [claims, bytes(32)]))
    assert one.session is None


def test_a_replayed_conversation_is_worth_nothing() -> None:
    """Everything that a dialler once said, said again, fails at the fresh nonce."""
    one, other = dialler(), acceptor()
    hello = one.start()
    proof = one.receive(other.receive(hello))
    other.receive(proof)
    assert other.session is not None
    again = acceptor()
    again.receive(hello)
    with pytest.raises(AuthenticationError):
        again.receive(proof)
    # The acceptor's side of an old conversation, played to a new dialler.
    welcome = old_welcome()
    replayed = dialler()
    replayed.start()
    replayed.receive(acceptor(nonce=b"n" * 32).receive(hello))
    with pytest.raises(AuthenticationError):
        replayed.receive(welcome)


def old_welcome() -> bytes:
    """What an acceptor with the nonce n..n once said to another dialler."""
    one, other = dialler(nonce=b"o" * 32), acceptor(nonce=b"n" * 32)
    return other.receive(one.receive(other.receive(one.start())))


def test_a_reflected_conversation_is_worth_nothing() -> None:
    """An attacker who mirrors the dialler's own messages, or bridges two nodes the wrong way round, proves nothing."""
    one = dialler()
    hello = one.start()
    nonce = msgpack.unpackb(hello[8:])[6]
    with pytest.raises(ProtocolError):
        one.receive(message(2, [1, 2, nonce]))
    assert one.reason == "reflected"
    itself = dialler(node_id=1, wanted_id=0)
    itself.start()
    with pytest.raises(ProtocolError):
        itself.receive(message(2, [1, 1, bytes(32)]))
    # The MAC of a dialler's proof, sent back as an acceptor's welcome.
    victim = dialler()
    victim.start()
    proof = victim.receive(message(2, [1, 2, b"n" * 32]))
    claims, macs = msgpack.unpackb(proof[8:])
    with pytest.raises(AuthenticationError):
        victim.receive(message(4, [claims, macs[0]]))


def test_a_node_does_not_talk_to_itself() -> None:
    """Its own address in the list of peers is no peer."""
    assert reason(dialler(node_id=2, wanted_id=0), acceptor(node_id=2)) == "reflected"


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({"wanted_id": 3}, {}, "wrong_node"),
        ({"port": "api"}, {}, "port"),
        ({"kind": LinkKind.CLIENT}, {}, "port"),
        ({"kind": LinkKind.BULK}, {}, "port"),
        ({}, {"admits": lambda _id, _claims: "unknown_node"}, "unknown_node"),
        ({}, {"admits": lambda _id, _claims: "double"}, "double"),
        ({"binding": b"channel one"}, {"binding": b"channel two"}, "wrong_secret"),
        ({"claims": Claims(CLUSTER)}, {"claims": Claims(CLUSTER[::-1])}, "cluster"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(one: dict[str, Any], other: dict[str, Any], why: str) -> None:
    """Another node, port, kind, channel or cluster; the dialler is told the same reason."""
    dials, accepts = dialler(**one), acceptor(**other)
    assert reason(dials, accepts) == why
    with pytest.raises(TransportError):
        dials.receive(accepts.farewell)
    assert dials.reason == why


def test_clusters_are_compared_only_when_both_are_formed() -> None:
    """A fresh node may talk to anybody: it has to, in order to join."""
    for mine, theirs in [(b"", CLUSTER), (CLUSTER, b""), (b"", b""), (CLUSTER, CLUSTER)]:
        one, other = dialler(claims=Claims(mine)), acceptor(claims=Claims(theirs))
        talk(one, other)
        assert one.session is not None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "garbage"),
        (b"\x16\x03\x01", "garbage"),
        (b"HQHS\x02\x01\x00\x00", "version"),
        (MAGIC + b"\x01\x01" + (BODY_BYTES_MAX + 1).to_bytes(2, "little"), "oversized"),
        (message(1, None), "malformed"),
        (message(1, [1, 1, "raft", 2, 1, 2, b"short"]), "malformed"),
        (message(1, [1, 1, "raft", 2, -1, 2, bytes(32)]), "malformed"),
        (message(1, [1, 1, "raft", 99, 1, 2, bytes(32)]), "port"),
        (message(1, [SPOKEN.high + 1, 9, "raft", 2, 1, 2, bytes(32)]), "version"),
        (message(1, [0, 0, "raft", 2, 1, 2, bytes(32)]), "version"),
        (message(3, [b"", [bytes(32)]]), "malformed"),
        (message(4, [b"", bytes(32)]), "malformed"),
        (message(1, 1)[:-1] + b"\xc1", "malformed"),
    ],
)
def test_garbage_is_refused_by_name(data: bytes, why: str) -> None:
    """Whatever arrives first: one reason, no other exception."""
    other = acceptor()
    with pytest.raises(ProtocolError):
        other.receive(data)
    assert other.reason == why


@pytest.mark.parametrize(
    "proof", [None, [], [b"x", b"y"], [b"x", []], [b"x", [b"a", b"b", b"c"]], [1, [b"a"]], ["x", [b"a"]], [b"x", [1]]]
)
def test_a_proof_of_another_shape_is_refused(proof: Any) -> None:
    other = acceptor()
    other.receive(dialler().start())
    with pytest.raises(TransportError):
        other.receive(message(3, proof))
    assert other.reason in ("malformed", "wrong_secret")


def test_any_flipped_bit_of_any_message_is_noticed() -> None:
    """The whole conversation stands under the MACs: no flip ends in a session at both ends with one belief."""
    for step in range(4):
        size = len(conversation()[step])
        for bit in range(size * 8):
            try:
                conversation(flip=(step, bit))
            except TransportError:
                continue


def conversation(flip: tuple[int, int] | None = None) -> list[bytes]:
    """The four messages; with one bit flipped on its way the dialler must end without a session."""
    one, other = dialler(claims=Claims(CLUSTER, {0: 1}, {"g": 1})), acceptor()
    said: list[bytes] = []

    def carry(data: bytes) -> bytes:
        if flip and flip[0] == len(said):
            broken = bytearray(data)
            broken[flip[1] // 8] ^= 1 << flip[1] % 8
            data = bytes(broken)
        said.append(data)
        return data

    data = carry(one.start())
    data = carry(other.receive(data))
    data = carry(one.receive(data))
    one.receive(carry(other.receive(data)))
    if flip:
        assert one.session is None, "a changed conversation ended in a session"
    return said


def test_bytes_before_the_welcome_are_refused() -> None:
    """A dialler has nothing to say before it knows who answered."""
    one, other = dialler(), acceptor()
    proof = one.receive(other.receive(one.start()))
    with pytest.raises(ProtocolError):
        other.receive(proof + b"frame")
    assert other.reason == "early"


def test_bytes_behind_the_welcome_are_kept_for_the_link() -> None:
    """The acceptor may send at once."""
    one, other = dialler(), acceptor()
    welcome = other.receive(one.receive(other.receive(one.start())))
    one.receive(welcome + b"frame")
    assert one.session is not None
    assert one.leftover == b"frame"


@pytest.mark.parametrize("claims", [[], [b"x", {}, None], [b"", [], None], [b"", {0: "x"}, None], [b"", {}, 5], 7])
def test_claims_of_another_shape_are_refused_though_they_are_proven(claims: Any) -> None:
    """A node of another version with the right secret cannot confuse this one."""
    one, other = dialler(), acceptor()

    class Odd(Dialler):
        def _message(self, step: int, body: Any) -> bytes:
            if step == 3:
                packed = msgpack.packb(claims)
                transcript = self._transcript.digest()
                body = [packed, [self._mac(key, b"dialler.", transcript, packed) for key in self._keys]]
            return super()._message(step, body)

    one = Odd((SECRET,), "raft", LinkKind.CONTROL, 1, 2, Claims)
    assert reason(one, other) == "malformed"


@pytest.mark.parametrize(
    ("dials", "accepts", "spoken"),
    [((1, 1), (1, 1), 1), ((1, 1), (1, 2), 1), ((1, 2), (1, 1), 1), ((1, 2), (1, 2), 2), ((1, 3), (2, 5), 3),
     ((2, 5), (1, 3), 3), ((2, 2), (1, 9), 2), ((1, 1), (2, 2), 0), ((5, 9), (1, 4), 0), ((1, 4), (5, 9), 0)],
)  # fmt: skip
def test_a_link_speaks_the_newest_version_of_both_ends(
    dials: tuple[int, int], accepts: tuple[int, int], spoken: int
) -> None:
    """Without one in common it is refused, at both ends by name."""
    one, other = dialler(versions=Versions(*dials)), acceptor(versions=Versions(*accepts))
    if not spoken:
        assert reason(one, other) == "version"
        return
    talk(one, other)
    assert one.session is not None and other.session is not None
    assert one.session.version == other.session.version == spoken


def test_nobody_on_the_way_makes_two_ends_speak_an_older_version() -> None:
    """The offer is under the MACs: whoever lowers it cannot make the ends agree."""
    one, other = dialler(versions=Versions(1, 2)), acceptor(versions=Versions(1, 2))
    hello = one.start()
    offer = msgpack.unpackb(hello[8:])
    assert offer[:2] == [1, 2]
    proof = one.receive(other.receive(message(1, [1, 1, *offer[2:]])))
    with pytest.raises(AuthenticationError):
        other.receive(proof)
    assert other.reason == "wrong_secret" and other.session is None


def test_a_version_that_was_not_offered_is_not_taken() -> None:
    """Whatever the acceptor says."""
    one = dialler(versions=Versions(2, 3))
    one.start()
    for_one = message(2, [4, 2, bytes(32)])
    with pytest.raises(ProtocolError):
        one.receive(for_one)
    assert one.reason == "version"


def test_a_refusal_with_an_unknown_reason_is_an_error_all_the_same() -> None:
    one = dialler()
    one.start()
    with pytest.raises(ProtocolError):
        one.receive(message(5, "because"))
    assert one.reason in REASONS


def test_keys_follow_rfc_5869() -> None:
    """Test case 1 of the RFC."""
    okm = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert okm.hex() == expected


def test_the_conversation_equals_its_golden_file() -> None:
    """The bytes of handshake version 1 never change."""
    first = Versions(1, 1)
    one = dialler(claims=Claims(CLUSTER, {0: 5, 1: 6}, {"fresh": False}), nonce=b"d" * 32, versions=first)
    other = acceptor(claims=Claims(CLUSTER, {0: 7, 1: 8}, {"fresh": False}), nonce=b"a" * 32, versions=first)
    hello = one.start()
    challenge = other.receive(hello)
    proof = one.receive(challenge)
    welcome = other.receive(proof)
    one.receive(welcome)
    assert one.session is not None
    said = hello + challenge + proof + welcome + one.session.key("beat", 16)
    assert said == (GOLDEN / "handshake.bin").read_bytes()
