"""Benchmark rows of the frame codec (`pytest --benchmark-enable`)."""

from __future__ import annotations

from typing import Any

import pytest

from hiqlite._accel.frames import Frame, FrameReader, encode_header
from hiqlite._accel.records import encode_record
from hiqlite.engine.model import AppendRequest, Identity, Message, TermRun
from hiqlite.errors import ProtocolError
from hiqlite.transport import wire


@pytest.mark.parametrize("body_bytes", [0, 200, 16_000, 1_000_000])
def test_a_frame_is_encoded_and_parsed(benchmark: Any, body_bytes: int) -> None:
    """One frame out and in: header, checksums, one copy of the body (none when it is great)."""
    frames: list[object] = []
    errors: list[ProtocolError] = []
    reader = FrameReader(frames.append, frames.clear, errors.append, 1 << 24)
    body = bytes(body_bytes)

    def turn() -> None:
        reader.feed(encode_header(13, 0, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, body))
        reader.feed(body)

    benchmark(turn)
    assert errors == []


@pytest.mark.parametrize("count", [1, 64])
def test_an_append_goes_through_encoding_checking_and_decoding(benchmark: Any, count: int) -> None:
    """The whole way of an append but the socket: message, frame, reader, record check, message."""
    body = b"".join(encode_record(1, 1, bytes(100), 3, index) for index in range(1, count + 1))
    message = AppendRequest(3, Identity(1, 1), 0, 0, 0, count, (TermRun(3, 1, count),), 1, 1)
    messages: list[Message] = []
    errors: list[ProtocolError] = []

    def take(frame: Frame) -> None:
        messages.append(wire.decode_message(frame))

    reader = FrameReader(take, messages.clear, errors.append, 1 << 24)

    def turn() -> None:
        header, same = wire.encode_message(message, 0, 5, body)
        reader.feed(header + same)

    benchmark(turn)
    assert errors == []
