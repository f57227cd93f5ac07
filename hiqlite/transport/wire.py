"""Consensus messages and requests as frames, and back (docs/formats.md, section 5).

Knows the words of consensus and the frame; must not know sockets, nor what an entry says: of an append's records only
their terms and indexes are read. Invariant: `decode_message(encode_message(m))` is `m` with the sender's identity as
the link proved it; whatever else a peer sends is a ProtocolError, never another exception.

A control message's body is a msgpack array; term, sender and incarnation stand in the header:
    [1, pre, last_index, last_term]  VoteRequest        [2, pre, granted]  VoteReply
    [3, token]                       ProbeRequest       [4, token]         ProbeReply
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgpack

from hiqlite._accel import records
from hiqlite._accel.frames import Frame, encode_header
from hiqlite.engine.model import (
    AppendReply,
    AppendRequest,
    Identity,
    Message,
    ProbeReply,
    ProbeRequest,
    TermRun,
    VoteReply,
    VoteRequest,
)
from hiqlite.errors import HiqliteError, ProtocolError, UsageError, from_wire

from .settings import TIMEOUT_MS_MAX

U64_MAX = (1 << 64) - 1
INDEX_MAX = (1 << 62) - 1  # so that an index plus a count never overflows
ACCEPTED = 1  # flag of an append_reply
FAILED = 1  # flag of a response


class FrameType(IntEnum):
    APPEND = 1
    APPEND_REPLY = 2
    MESSAGE = 10
    REQUEST = 11
    RESPONSE = 12
    FORWARD = 13
    FORWARD_REPLY = 14
    IMAGE_OFFER = 20
    IMAGE_WANT = 21
    IMAGE_CHUNK = 22
    IMAGE_GONE = 23
    IMAGE_DONE = 24


VOTE_REQUEST, VOTE_REPLY, PROBE_REQUEST, PROBE_REPLY = 1, 2, 3, 4

_APPEND = int(FrameType.APPEND)
_APPEND_REPLY = int(FrameType.APPEND_REPLY)
_MESSAGE = int(FrameType.MESSAGE)


# --------------------------------------------------------------------------- consensus messages


def encode_message(message: Message, group: int, cluster: int, body: bytes | None) -> tuple[bytes, bytes]:
    """(header, body) of one message; `body` is the records of an append and None for everything else."""
    sender = message.sender
    if isinstance(message, AppendRequest):
        records_bytes = body or b""
        count = message.last_index - message.previous_index
        assert (count > 0) == bool(records_bytes), "an append's body is exactly its entries"
        header = encode_header(
            _APPEND, group, 0, cluster, message.term, sender.id, sender.incarnation, message.epoch, message.sequence,
            message.previous_index, message.previous_term, message.commit_index, count, records_bytes,
        )  # fmt: skip
        return header, records_bytes
    assert body is None, "only an append has a body"
    if isinstance(message, AppendReply):
        header = encode_header(
            _APPEND_REPLY, group, ACCEPTED if message.accepted else 0, cluster, message.term, sender.id,
            sender.incarnation, message.epoch, message.sequence, message.match_index, message.hint_term,
            message.hint_index, 0, b"",
        )  # fmt: skip
        return header, b""
    packed: bytes = msgpack.packb(_control_fields(message))
    header = encode_header(
        _MESSAGE, group, 0, cluster, message.term, sender.id, sender.incarnation, 0, 0, 0, 0, 0, 0, packed
    )
    return header, packed


def decode_message(frame: Frame) -> Message:
    """The message of an append, append_reply or message frame; everything about it was checked."""
    kind = frame.type
    if kind == _APPEND:
        return _append(frame)
    sender = Identity(frame.sender, frame.incarnation)
    if kind == _APPEND_REPLY:
        if frame.body or frame.count:
            raise ProtocolError("an append_reply has no body")
        return AppendReply(
            frame.term, sender, bool(frame.flags & ACCEPTED), frame.previous_index, frame.commit_index,
            frame.previous_term, frame.epoch, frame.sequence,
        )  # fmt: skip
    if kind == _MESSAGE:
        return _control(frame.term, sender, unpack(frame.body))
    raise ProtocolError(f"a frame of type {kind} is no consensus message")


def _append(frame: Frame) -> AppendRequest:
    previous = frame.previous_index
    count = frame.count
    body = frame.body
    if previous > INDEX_MAX:
        raise ProtocolError(f"index {previous} is out of range")
    runs: tuple[TermRun, ...] = ()
    if body:
        found = records.scan(body, previous + 1)
        runs = tuple([TermRun(term, first, last) for term, first, last in found])
    last = runs[-1].last if runs else previous
    if last - previous != count:
        raise ProtocolError(f"an append says {count} records and carries {last - previous}")
    floor = frame.previous_term
    for run in runs:
        if not floor <= run.term <= frame.term:
            raise ProtocolError(f"an append of term {frame.term} after term {floor} carries term {run.term}")
        floor = run.term
    return AppendRequest(
        frame.term, Identity(frame.sender, frame.incarnation), previous, frame.previous_term, frame.commit_index,
        last, runs, frame.epoch, frame.sequence,
    )  # fmt: skip


def _control_fields(message: Message) -> list[Any]:
    match message:
        case VoteRequest():
            return [VOTE_REQUEST, message.pre, message.last_index, message.last_term]
        case VoteReply():
            return [VOTE_REPLY, message.pre, message.granted]
        case ProbeRequest():
            return [PROBE_REQUEST, message.token]
        case ProbeReply():
            return [PROBE_REPLY, message.token]
        case _:
            raise AssertionError(f"{type(message).__name__} does not travel on the control link")


def _control(term: int, sender: Identity, fields: Any) -> Message:
    match fields:
        case [1, bool() as pre, last_index, last_term]:
            return VoteRequest(term, sender, pre, whole(last_index), whole(last_term))
        case [2, bool() as pre, bool() as granted]:
            return VoteReply(term, sender, pre, granted)
        case [3, token]:
            return ProbeRequest(term, sender, whole(token))
        case [4, token]:
            return ProbeReply(term, sender, whole(token))
        case _:
            raise ProtocolError("a control message of unknown shape")


# --------------------------------------------------------------------------- requests, responses, forwards


def encode_plain(
    kind: FrameType, cluster: int, sender: int, body: bytes, *, sequence: int = 0, flags: int = 0
) -> tuple[bytes, bytes]:
    """(header, body) of a frame that belongs to no group's term: requests, responses, forwards."""
    return encode_header(kind, 0, flags, cluster, 0, sender, 0, 0, sequence, 0, 0, 0, 0, body), body


def pack_request(name: str, timeout_s: float, payload: Any) -> bytes:
    deadline_ms = min(max(int(timeout_s * 1000), 1), TIMEOUT_MS_MAX)
    return pack([name, deadline_ms, payload])


def unpack_request(body: bytes) -> tuple[str, float, Any]:
    """(name, seconds left, payload) of a request's body."""
    match unpack(body):
        case [str() as name, int() as deadline_ms, payload] if 0 < deadline_ms <= TIMEOUT_MS_MAX:
            return name, deadline_ms / 1000, payload
        case _:
            raise ProtocolError("a request of unknown shape")


def unpack_failure(body: bytes) -> HiqliteError:
    """The error that a failed response carries."""
    wire = unpack(body)
    if not isinstance(wire, dict) or not isinstance(wire.get("code"), str):
        raise ProtocolError("a failed response of unknown shape")
    details = wire.get("details")
    if details is not None and not isinstance(details, dict):
        raise ProtocolError("a failed response of unknown shape")
    texts = {name: str(wire.get(name) or "") for name in ("message", "hint")}
    outcome = wire.get("outcome")
    if outcome not in (None, "not_applied", "applied", "unknown"):
        raise ProtocolError("a failed response of unknown outcome")
    return from_wire({"code": wire["code"], **texts, "outcome": outcome, "details": details})


def pack(value: Any) -> bytes:
    """`value` as msgpack; what msgpack cannot carry is the caller's mistake."""
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"a payload that msgpack cannot carry: {error}") from error
    return packed


def unpack(body: bytes) -> Any:
    """One msgpack value that fills `body` exactly; anything else is a ProtocolError."""
    try:
        return msgpack.unpackb(body, raw=False, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError(f"a body that is no msgpack: {type(error).__name__}") from error


def whole(value: Any) -> int:
    """`value` if it is an unsigned 64-bit integer."""
    if type(value) is int and 0 <= value <= U64_MAX:
        return value
    raise ProtocolError("a control message's number is none, or out of range")
