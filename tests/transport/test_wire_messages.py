"""Consensus messages and requests as frames: the same value comes back, and a hostile body is a ProtocolError."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite._accel.frames import Frame, FrameReader, encode_header
from hiqlite._accel.records import encode_record
from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Message,
    ProbeReply,
    ProbeRequest,
    RepairReply,
    RepairRequest,
    TermRun,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from hiqlite.errors import NotLeader, ProtocolError, UsageError
from hiqlite.transport import wire

SENDER = Identity(3, 77)
ENTRY = 1


def frame_of(header: bytes, body: bytes) -> Frame:
    frames: list[Frame] = []
    errors: list[ProtocolError] = []
    FrameReader(frames.append, lambda: None, errors.append, 1 << 24).feed(header + body)
    assert errors == []
    return frames[0]


def back(message: Message, body: bytes | None = None) -> Message:
    return wire.decode_message(frame_of(*wire.encode_message(message, 1, 0xABCD, body)))


def entries(*runs: TermRun) -> bytes:
    return b"".join(
        encode_record(1, ENTRY, b"payload", run.term, index) for run in runs for index in range(run.first, run.last + 1)
    )


def append(*runs: TermRun, previous: int = 10, **changes: Any) -> AppendRequest:
    last = runs[-1].last if runs else previous
    values: dict[str, Any] = {
        "term": 7, "sender": SENDER, "previous_index": previous, "previous_term": 4, "commit_index": 9,
        "last_index": last, "runs": tuple(runs), "epoch": 1 << 40, "sequence": 5,
    }  # fmt: skip
    return AppendRequest(**(values | changes))


def control_frame(fields: Any, kind: int = 10, raw: bytes | None = None) -> Frame:
    body = msgpack.packb(fields) if raw is None else raw
    return frame_of(encode_header(kind, 0, 0, 0, 7, 3, 77, 0, 0, 0, 0, 0, 0, body), body)


u64 = st.integers(0, (1 << 64) - 1)
identities = st.builds(Identity, u64, u64)
messages = st.one_of(
    st.builds(AppendReply, u64, identities, st.booleans(), u64, u64, u64, u64, u64),
    st.builds(VoteRequest, u64, identities, st.booleans(), u64, u64),
    st.builds(VoteRequest, u64, identities, st.just(False), u64, u64, st.just(True)),
    st.builds(TimeoutNow, u64, identities),
    st.builds(RepairRequest, u64, identities, u64, u64, u64),
    st.builds(VoteReply, u64, identities, st.booleans(), st.booleans()),
    st.builds(ProbeRequest, u64, identities, u64),
    st.builds(ProbeReply, u64, identities, u64),
)


@given(messages)
def test_every_message_comes_back_as_it_went(message: Message) -> None:
    """Replies, votes and probes with any numbers."""
    assert back(message) == message


def test_an_append_comes_back_with_the_terms_of_its_records() -> None:
    """The runs are read from the records; the body itself travels untouched."""
    runs = (TermRun(4, 11, 12), TermRun(6, 13, 13), TermRun(7, 14, 16))
    body = entries(*runs)
    message = append(*runs)
    frame = frame_of(*wire.encode_message(message, 0, 0, body))
    assert wire.decode_message(frame) == message
    assert (frame.body, frame.count) == (body, 6)
    assert back(append()) == append()


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (append(TermRun(8, 11, 11)), entries(TermRun(8, 11, 11))),  # an entry of a term beyond the leader's
        (append(TermRun(3, 11, 11)), entries(TermRun(3, 11, 11))),  # terms that go back
        (append(TermRun(5, 11, 12)), entries(TermRun(5, 11, 11))),  # says two, carries one
        (append(TermRun(5, 11, 11)), entries(TermRun(5, 12, 12))),  # another index
        (append(TermRun(5, 11, 11)), b"noise" * 20),
        (append(TermRun(5, 11, 11)), entries(TermRun(5, 11, 11))[:-8]),
    ],
)
def test_an_append_whose_records_do_not_fit_is_refused(message: AppendRequest, body: bytes) -> None:
    """The engine never hears of it."""
    with pytest.raises(ProtocolError):
        back(message, body)


def test_an_append_at_the_end_of_all_indexes_is_refused() -> None:
    """No addition of indexes ever overflows."""
    body = entries(TermRun(5, 1, 1))
    header = encode_header(1, 0, 0, 0, 7, 3, 77, 0, 0, (1 << 64) - 1, 0, 0, 1, body)
    with pytest.raises(ProtocolError):
        wire.decode_message(frame_of(header, body))


@pytest.mark.parametrize(
    "fields",
    [None, 1, [], [9], [1], [1, True, 1], [1, 1, 1, 1], [1, True, -1, 0], [1, True, 1.0, 0], [1, True, True, 0],
     [2, True, 1], [3, "x"], [3, None], [4, -1], [4, 1, 2], {"a": 1}, [[1], True, 1, 1], "text",
     [1, True, 1, 1, True], [1, False, 1, 1, False], [5, 1], [6, 1, 1], [6, 1, 1, -1]],
)  # fmt: skip
def test_a_control_message_of_another_shape_is_refused(fields: Any) -> None:
    """Kind, number of fields and the type of each one are checked."""
    with pytest.raises(ProtocolError):
        wire.decode_message(control_frame(fields))


@pytest.mark.parametrize("kind", [3, 9, 11, 12, 13, 14, 255])
def test_a_frame_of_another_type_is_no_message(kind: int) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_message(control_frame([3, 1], kind=kind))


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_noise_in_any_body_is_a_protocol_error_or_a_value(noise: bytes) -> None:
    """No bytes make anything but a ProtocolError."""
    attempts = (wire.unpack, wire.unpack_request, wire.unpack_failure)
    for attempt in attempts:
        try:
            attempt(noise)
        except ProtocolError:
            continue
    try:
        wire.decode_message(control_frame(None, raw=noise))
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "raw", [b"\x91" * 5000 + b"\x01", b"\xdf\xff\xff\xff\xff", b"\xc1", b"", b"\x01\x01", b"\x81\x90\x01"]
)
def test_poisoned_msgpack_is_a_protocol_error(raw: bytes) -> None:
    """Deep nesting, lengths beyond the body, reserved bytes, nothing, a tail, keys that cannot be keys."""
    with pytest.raises(ProtocolError):
        wire.unpack(raw)


def test_a_request_comes_back_with_its_deadline() -> None:
    """The deadline travels in milliseconds, at least one."""
    packed = wire.pack_request("metrics", 1.5, {"a": [1, b"x"]})
    assert wire.unpack_request(packed) == ("metrics", 1.5, {"a": [1, b"x"]})
    assert wire.unpack_request(wire.pack_request("n", 1e-9, None))[1] == 0.001
    for body in (["n", 0, None], ["n", -1, None], ["n", 1 << 33, None], [1, 1, 1], ["n", 1]):
        with pytest.raises(ProtocolError):
            wire.unpack_request(msgpack.packb(body))


def test_a_payload_that_cannot_travel_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError):
        wire.pack_request("n", 1.0, object())
    with pytest.raises(UsageError):
        wire.pack({"n": 1 << 70})


def test_an_error_crosses_the_wire_as_it_was() -> None:
    """Class, text and details survive; a failure of unknown shape is a ProtocolError."""
    error = wire.unpack_failure(wire.pack(NotLeader("not here", leader_id=2, address="a:1").to_wire()))
    assert isinstance(error, NotLeader)
    assert (error.leader_id, error.address, error.outcome) == (2, "a:1", "not_applied")
    for shape in ([], {"code": 1}, {"code": "x", "details": 1}, {"code": "x", "outcome": "perhaps"}):
        with pytest.raises(ProtocolError):
            wire.unpack_failure(wire.pack(shape))


@pytest.mark.parametrize("committed", [True, False])
def test_a_repair_carries_exactly_its_entries(committed: bool) -> None:
    """Their terms are read off the records."""
    runs = (TermRun(3, 5, 6), TermRun(4, 7, 7))
    reply = RepairReply(9, SENDER, 5, 7, 2, runs, committed)
    assert back(reply, entries(*runs)) == reply


def test_a_repair_without_entries_or_with_others_is_refused() -> None:
    """Whatever its header says."""
    run = TermRun(3, 5, 6)
    reply = RepairReply(9, SENDER, 5, 6, 2, (run,), True)
    for body in (entries(TermRun(3, 6, 7)), entries(TermRun(3, 5, 7)), entries(run)[:-8], b"\0" * 64):
        with pytest.raises(ProtocolError):
            back(reply, body)
    with pytest.raises(ProtocolError):
        wire.decode_message(frame_of(encode_header(3, 1, 0, 0xABCD, 9, 3, 77, 0, 0, 4, 0, 0, 0, b""), b""))
