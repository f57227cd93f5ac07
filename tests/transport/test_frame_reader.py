"""Frames: byte-exact encoding, and a reader that hands on whole, proven frames and nothing else."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite._accel.frames import DIRECT_BODY_BYTES, HEADER_BYTES, Frame, FrameReader, encode_header
from hiqlite._accel.plain import frames as plain
from hiqlite._accel.records import crc32c
from hiqlite.errors import ProtocolError

GOLDEN = Path(__file__).parent.parent / "golden" / "frame_message.bin"
FIELDS = ("type", "group", "flags", "cluster", "term", "sender", "incarnation", "epoch", "sequence")
FIELDS += ("previous_index", "previous_term", "commit_index", "count")
LIMIT = 1 << 20


class Taken:
    def __init__(self, **options: Any) -> None:
        self.frames: list[Frame] = []
        self.ends = 0
        self.errors: list[ProtocolError] = []
        limit = options.pop("frame_bytes_max", LIMIT)
        self.reader = FrameReader(self.frames.append, self._end, self.errors.append, limit, **options)

    def _end(self) -> None:
        self.ends += 1

    @property
    def bodies(self) -> list[bytes]:
        return [frame.body for frame in self.frames]


def frame(body: bytes = b"", kind: int = 10, sequence: int = 0, cluster: int = 0) -> bytes:
    return encode_header(kind, 0, 0, cluster, 0, 3, 0, 0, sequence, 0, 0, 0, 0, body) + body


u64 = st.integers(0, (1 << 64) - 1)


@given(
    st.tuples(st.integers(1, 255), st.integers(0, 1), st.integers(0, 255), *[u64] * 9, st.integers(0, (1 << 32) - 1)),
    st.binary(max_size=300),
)
def test_a_header_is_what_the_format_says_and_comes_back_as_it_went(fields: tuple[int, ...], body: bytes) -> None:
    """Encoding equals the plain twin's; the reader gives every field and the body back."""
    encoded = encode_header(*fields, body)
    assert encoded == plain.encode_header(*fields, body)
    assert plain.decode_header(encoded) == fields
    taken = Taken()
    taken.reader.feed(encoded + body)
    assert [tuple(getattr(got, name) for name in FIELDS) for got in taken.frames] == [fields]
    assert taken.bodies == [body]


def test_a_frame_equals_its_golden_file() -> None:
    """The bytes of format version 1 never change."""
    body = bytes.fromhex("9401c20708")
    encoded = encode_header(10, 1, 0, 0x1122334455667788, 7, 3, 9, 11, 13, 17, 19, 23, 0, body) + body
    assert encoded == GOLDEN.read_bytes()
    assert plain.encode_header(10, 1, 0, 0x1122334455667788, 7, 3, 9, 11, 13, 17, 19, 23, 0, body) + body == encoded


def test_frames_split_at_every_byte_arrive_whole() -> None:
    """Three frames cut into two reads at each possible place, and into single bytes, give the same three frames."""
    stream = frame(b"one") + frame() + frame(b"three" * 20)
    bodies = [b"one", b"", b"three" * 20]
    for cut in range(1, len(stream)):
        taken = Taken()
        taken.reader.feed(stream[:cut])
        taken.reader.feed(stream[cut:])
        assert (taken.bodies, taken.ends, taken.errors) == (bodies, 2, [])
    taken = Taken()
    for offset in range(len(stream)):
        taken.reader.feed(stream[offset : offset + 1])
    assert (taken.bodies, taken.reader.bytes_in) == (bodies, len(stream))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 70_000), max_size=12), st.integers(0, 1 << 30))
def test_frames_of_all_sizes_in_any_portions_arrive_whole(sizes: list[int], seed: int) -> None:
    """Small bodies through the ring, great ones received in place: the same bytes whatever the reads were."""
    rng = random.Random(seed)
    bodies = [rng.randbytes(size) for size in sizes]
    stream = memoryview(b"".join(frame(body) for body in bodies))
    taken = Taken(ring_bytes=2 * (HEADER_BYTES + DIRECT_BODY_BYTES))
    offset = 0
    while offset < len(stream):
        window = taken.reader.get_buffer(-1)
        size = min(rng.choice([1, 50, 96, 5000, 200_000]), len(window), len(stream) - offset)
        window[:size] = stream[offset : offset + size]
        taken.reader.buffer_updated(size)
        offset += size
    assert taken.bodies == bodies
    assert taken.errors == []


def test_any_flipped_bit_of_a_frame_is_noticed() -> None:
    """Header and body are covered: no flip is handed on, and at most the wait for more bytes hides it."""
    whole = frame(b"a body that matters", sequence=5)
    for position in range(len(whole) * 8):
        broken = bytearray(whole)
        broken[position // 8] ^= 1 << position % 8
        taken = Taken()
        taken.reader.feed(bytes(broken))
        assert taken.frames == []
        assert len(taken.errors) == 1


@pytest.mark.parametrize("limit", [HEADER_BYTES + 10, LIMIT])
def test_a_frame_over_the_limit_is_refused_by_its_header_alone(limit: int) -> None:
    """Nothing is allocated for a body that may not come."""
    body = b"x" * (limit - HEADER_BYTES + 1)
    taken = Taken(frame_bytes_max=limit)
    taken.reader.feed(encode_header(10, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, body))
    assert "more than the limit" in str(taken.errors[0])
    fits = Taken(frame_bytes_max=limit)
    fits.reader.feed(frame(body[:-1]))
    assert len(fits.frames) == 1


@pytest.mark.parametrize(
    ("offset", "value", "word"),
    [(5, b"\x02", "version"), (6, b"\x02", "group"), (84, b"\x01", "reserved"), (4, b"\x00", "type 0"),
     (0, b"\x5f\x00\x00\x00", "length")],
)  # fmt: skip
def test_a_header_of_another_shape_is_refused_by_name(offset: int, value: bytes, word: str) -> None:
    """A header whose checksum holds is still judged field by field."""
    head = bytearray(frame())
    head[offset : offset + len(value)] = value
    head[92:96] = struct.pack("<I", crc32c(bytes(head[:92])))
    taken = Taken()
    taken.reader.feed(bytes(head))
    assert word in str(taken.errors[0])
    with pytest.raises(ProtocolError):
        plain.decode_header(bytes(head))


def test_a_frame_of_another_cluster_is_refused_once_both_are_formed() -> None:
    """Not formed means 0, on either side: then any frame is taken."""
    for own, other, refused in [(0, 5, False), (5, 0, False), (5, 5, False), (5, 6, True)]:
        taken = Taken(cluster=own)
        taken.reader.feed(frame(cluster=other))
        assert bool(taken.errors) is refused


def test_after_a_fault_nothing_is_handed_on() -> None:
    """The frame before the fault arrived, the one behind it does not, and the fault is told once."""
    taken = Taken()
    taken.reader.feed(frame(b"good") + b"\x00" * HEADER_BYTES + frame(b"late"))
    taken.reader.feed(frame(b"later"))
    assert taken.bodies == [b"good"]
    assert len(taken.errors) == 1
    assert taken.ends == 0


def test_a_protocol_error_of_who_takes_the_frame_ends_the_reading() -> None:
    """Who finds a frame wrong raises; the reader reports it like its own faults."""
    errors: list[ProtocolError] = []

    def refuse(_frame: Frame) -> None:
        raise ProtocolError("no")

    reader = FrameReader(refuse, lambda: None, errors.append, LIMIT)
    reader.feed(frame() + frame())
    assert [str(error) for error in errors] == ["no"]


def test_stopping_in_the_middle_of_a_read_leaves_the_rest() -> None:
    """A link that is closed by what a frame said hands on no frame after it."""
    seen: list[Frame] = []

    def take(got: Frame) -> None:
        seen.append(got)
        reader.stop()

    reader = FrameReader(take, lambda: seen.clear(), lambda error: seen.clear(), LIMIT)
    reader.feed(frame(b"first") + frame(b"second"))
    reader.feed(frame(b"third"))
    assert [got.body for got in seen] == [b"first"]


def test_an_append_is_handed_on_without_a_checksum_of_its_own() -> None:
    """Its records carry theirs; a checksum in the header would be a lie and is refused."""
    taken = Taken()
    taken.reader.feed(frame(b"records", kind=1))
    assert taken.bodies == [b"records"]


def test_numbers_that_no_header_holds_are_refused() -> None:
    """What cannot be encoded raises, and never wraps round."""
    with pytest.raises(ProtocolError):
        encode_header(256, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b"")
    with pytest.raises(ProtocolError):
        encode_header(1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b"")
    with pytest.raises(OverflowError):
        encode_header(1, 0, 0, 1 << 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, b"")
    with pytest.raises(OverflowError):
        encode_header(1, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, b"")
