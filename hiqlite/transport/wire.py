"""Consensus messages and requests as frames, and back (docs/formats.md, section 5).

Knows the words of consensus and the frame; must not know sockets, nor what an entry says: of an append's records only
their terms and indexes are read. Invariant: `decode_message(encode_message(m))` is `m` with the sender's identity as
the link proved it; whatever else a peer sends is a ProtocolError, never another exception.

A control message's body is a msgpack array; term, sender and incarnation stand in the header:
    [1, pre, last_index, last_term]  VoteRequest        [2, pre, granted]  VoteReply
    [3, token]                       ProbeRequest       [4, token]         ProbeReply
    [5]                              TimeoutNow         [6, first, last, entry_term]  RepairRequest
A VoteRequest that the leader asked for has `true` as a fifth field.
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
    RepairReply,
    RepairRequest,
    TermRun,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from hiqlite.errors import HiqliteError, ProtocolError, UsageError, from_wire

from .settings import TIMEOUT_MS_MAX

U64_MAX = (1 << 64) - 1
INDEX_MAX = (1 << 62) - 1  # so that an index plus a count never overflows
ACCEPTED = 1  # flag of an append_reply
COMMITTED = 1  # flag of a repair reply
FAILED = 1  # flag of a response


class FrameType(IntEnum):
    APPEND = 1
    APPEND_REPLY = 2
    REPAIR_REPLY = 3
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


VOTE_REQUEST, VOTE_REPLY, PROBE_REQUEST, PROBE_REPLY, TIMEOUT_NOW, REPAIR_REQUEST = 1, 2, 3, 4, 5, 6

_APPEND = int(FrameType.APPEND)
_APPEND_REPLY = int(FrameType.APPEND_REPLY)
_REPAIR_REPLY = int(FrameType.REPAIR_REPLY)
_MESSAGE = int(FrameType.MESSAGE)


# --------------------------------------------------------------------------- consensus messages


def encode_message(message: Message, group: int, cluster: int, body: bytes | None) -> tuple[bytes, bytes]:
    """(header, body) of one message; `body` is the records of an append or a repair, None for everything else."""
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
    if isinstance(message, RepairReply):
        assert body, "a repair's body is exactly its entries"
        count = message.last - message.first + 1
        header = encode_header(
            _REPAIR_REPLY, group, COMMITTED if message.committed else 0, cluster, message.term, sender.id,
            sender.incarnation, 0, 0, message.first - 1, message.previous_term, 0, count, body,
        )  # fmt: skip
        return header, body
    assert body is None, "only entries have a body"
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
    if kind == _REPAIR_REPLY:
        return _repair_reply(frame, sender)
    if kind == _MESSAGE:
        return _control(frame.term, sender, unpack(frame.body))
    raise ProtocolError(f"a frame of type {kind} is no consensus message")


def _append(frame: Frame) -> AppendRequest:
    previous = frame.previous_index
    runs = _runs(frame)
    last = runs[-1].last if runs else previous
    floor = frame.previous_term
    for run in runs:
        if not floor <= run.term <= frame.term:
            raise ProtocolError(f"an append of term {frame.term} after term {floor} carries term {run.term}")
        floor = run.term
    return AppendRequest(
        frame.term, Identity(frame.sender, frame.incarnation), previous, frame.previous_term, frame.commit_index,
        last, runs, frame.epoch, frame.sequence,
    )  # fmt: skip


def _repair_reply(frame: Frame, sender: Identity) -> RepairReply:
    runs = _runs(frame)
    if not runs:
        raise ProtocolError("a repair without entries")
    first, committed = frame.previous_index + 1, bool(frame.flags & COMMITTED)
    return RepairReply(frame.term, sender, first, runs[-1].last, frame.previous_term, runs, committed)


def _runs(frame: Frame) -> tuple[TermRun, ...]:
    """The terms of the entries in the body, all of which were checked; empty for an empty body."""
    previous, body = frame.previous_index, frame.body
    if previous > INDEX_MAX:
        raise ProtocolError(f"index {previous} is out of range")
    runs = tuple([TermRun(*run) for run in records.scan(body, previous + 1)]) if body else ()
    held = runs[-1].last - previous if runs else 0
    if held != frame.count:
        raise ProtocolError(f"a frame says {frame.count} records and carries {held}")
    return runs


def _control_fields(message: Message) -> list[Any]:
    match message:
        case VoteRequest():
            fields = [VOTE_REQUEST, message.pre, message.last_index, message.last_term]
            return [*fields, True] if message.transfer else fields
        case VoteReply():
            return [VOTE_REPLY, message.pre, message.granted]
        case ProbeRequest():
            return [PROBE_REQUEST, message.token]
        case ProbeReply():
            return [PROBE_REPLY, message.token]
        case TimeoutNow():
            return [TIMEOUT_NOW]
        case RepairRequest():
            return [REPAIR_REQUEST, message.first, message.last, message.entry_term]
        case _:
            raise AssertionError(f"{type(message).__name__} does not travel on the control link")


def _control(term: int, sender: Identity, fields: Any) -> Message:
    match fields:
        case [1, bool() as pre, last_index, last_term]:
            return VoteRequest(term, sender, pre, whole(last_index), whole(last_term))
        case [1, False, last_index, last_term, True]:
            return VoteRequest(term, sender, False, whole(last_index), whole(last_term), True)
        case [2, bool() as pre, bool() as granted]:
            return VoteReply(term, sender, pre, granted)
        case [3, token]:
            return ProbeRequest(term, sender, whole(token))
        case [4, token]:
            return ProbeReply(term, sender, whole(token))
        case [5]:
            return TimeoutNow(term, sender)
        case [6, first, last, entry_term]:
            return RepairRequest(term, sender, whole(first), whole(last), whole(entry_term))
        case _:
            raise ProtocolError("a control message of unknown shape")


# --------------------------------------------------------------------------- requests, responses, forwards


def encode_plain(
    kind: FrameType, cluster: int, sender: int, body: bytes, *, group: int = 0, sequence: int = 0, flags: int = 0
) -> tuple[bytes, bytes]:
    """(header, body) of a frame that belongs to no group's term: requests, responses, forwards."""
    return encode_header(kind, group, flags, cluster, 0, sender, 0, 0, sequence, 0, 0, 0, 0, body), body


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
