"""An image of the cache group's state, and what a peer may send in its place."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite._accel.records import crc32c
from hiqlite.cache.image import CHUNK_BYTES, SIZE_BYTES_MAX, IncomingState, OutgoingState
from hiqlite.cache.state import CacheState
from hiqlite.errors import SnapshotCorruption

STATE = CacheState(7, 2, 5, b"\x92\x93\x01\x02\x03\x90")


def received(outgoing: OutgoingState) -> IncomingState:
    incoming = IncomingState(outgoing.offer())
    while incoming.offset < incoming.size_bytes:
        incoming.write(incoming.offset, outgoing.read(incoming.offset))
    return incoming


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", crc32c(body))


@pytest.mark.parametrize("size", [0, 6, CHUNK_BYTES, 1 << 20])
def test_a_state_arrives_as_it_was_sent(size: int) -> None:
    """In chunks, with who was in force at its index."""
    state = CacheState(1 << 40, 3, 9, b"\xa5" * size)
    incoming = received(OutgoingState.of(state, b"members"))
    assert incoming.state() == state and incoming.membership == b"members"
    assert (incoming.applied_index, incoming.applied_term) == (1 << 40, 3)


def test_a_manifest_that_was_damaged_or_contradicts_itself_is_refused() -> None:
    """Each bit of it, and sizes or places that cannot be, also with a right checksum."""
    manifest = OutgoingState.of(STATE, b"members").offer()
    for at in range(8 * len(manifest)):
        damaged = bytearray(manifest)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(SnapshotCorruption):
            IncomingState(bytes(damaged))
    body = manifest[:-4]
    for at, value in ((8, 0), (8, SIZE_BYTES_MAX + 1), (8, 2**64 - 1), (16, 0), (24, 0)):
        with pytest.raises(SnapshotCorruption):
            IncomingState(sealed(body[:at] + struct.pack("<Q", value) + body[at + 8 :]))
    for other in (body[:-1], body + b"\0", body[:20], b""):
        with pytest.raises(SnapshotCorruption):
            IncomingState(sealed(other))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    """With a right magic and a right checksum too: nothing else is raised."""
    for manifest in (data, sealed(b"HQCIMG01" + data)):
        try:
            incoming = IncomingState(manifest)
        except SnapshotCorruption:
            continue
        assert 0 < incoming.size_bytes <= SIZE_BYTES_MAX


def test_chunks_come_in_order_and_in_their_size() -> None:
    """Neither twice, nor ahead, nor longer or shorter than what is next."""
    outgoing = OutgoingState.of(CacheState(1, 1, 1, b"x" * (CHUNK_BYTES + 10)), b"")
    incoming = IncomingState(outgoing.offer())
    first, second = outgoing.read(0), outgoing.read(CHUNK_BYTES)
    for offset, data in ((CHUNK_BYTES, second), (0, first[:-1]), (0, first + b"x"), (0, b"")):
        with pytest.raises(SnapshotCorruption):
            incoming.write(offset, data)
    incoming.write(0, first)
    for offset, data in ((0, first), (CHUNK_BYTES, second[:-1]), (CHUNK_BYTES, second + b"x")):
        with pytest.raises(SnapshotCorruption):
            incoming.write(offset, data)
    incoming.write(CHUNK_BYTES, second)
    assert incoming.state().mirrored == b"x" * (CHUNK_BYTES + 10)


def test_bytes_that_are_not_what_the_manifest_says_are_no_state() -> None:
    """Other bytes, a part of them, or a state that stands elsewhere than was announced."""
    outgoing = OutgoingState.of(STATE, b"")
    incoming = IncomingState(outgoing.offer())
    with pytest.raises(SnapshotCorruption):
        incoming.state()
    other = CacheState(7, 2, 5, b"\x92\x93\x01\x02\x04\x90")
    incoming.write(0, other.encode())
    with pytest.raises(SnapshotCorruption):
        incoming.state()
    elsewhere = OutgoingState(CacheState(8, 2, 5, STATE.mirrored), b"", STATE.encode())
    with pytest.raises(SnapshotCorruption):
        received(elsewhere).state()
