"""The product's own bytes between simulated nodes: sealed records and frames, encoded, read back, and handed on.

A swarm option, because it costs time. Invariant: what comes out is what went in (codec round trip).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from hiqlite._accel import records
from hiqlite._accel.frames import Frame, FrameReader
from hiqlite.engine.model import AppendRequest, Message, RepairReply
from hiqlite.errors import ProtocolError
from hiqlite.transport.wire import decode_message, encode_message

from .world import Violation

Body = tuple[int, list[int], list[int]]  # first index, terms, values
ENTRY, COMMAND, NOOP = 1, 1, 8
RECORD_HEADER_BYTES = 64
CLUSTER = 0x5151
FRAME_BYTES_MAX = 1 << 24


@lru_cache(maxsize=1 << 14)
def sealed(index: int, term: int, value: int) -> bytes:
    """The record of one entry; its payload is its value."""
    kind = COMMAND if value else NOOP
    payload = value.to_bytes(8, "little") if value else b""
    return bytes(records.encode_record(ENTRY, kind, payload, term=term, index=index))


class Codec:
    """Both ends of a link."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.errors: list[ProtocolError] = []
        self.reader = FrameReader(self.frames.append, lambda: None, self.errors.append, FRAME_BYTES_MAX, CLUSTER)

    def through(self, message: Message, body: Body | None) -> tuple[Message, Body | None]:
        """What the receiver makes of a message and its entries."""
        if isinstance(message, RepairReply):
            return message, body  # it travels as an answer to a request, which the wire's own tests cover
        content = None
        if body is not None:
            first, terms, values = body
            run = enumerate(zip(terms, values, strict=True), start=first)
            content = b"".join([sealed(index, term, value) for index, (term, value) in run])
        header, content_sent = encode_message(message, 0, CLUSTER, content)
        self.reader.feed(header + content_sent)
        if self.errors or len(self.frames) != 1:
            raise Violation("codec round trip", f"{message} arrives as {self.errors or self.frames}")
        frame = self.frames.pop()
        back = decode_message(frame)
        if isinstance(message, AppendRequest) and isinstance(back, AppendRequest):
            # What the membership entries say stands in their payloads, which are numbers here.
            back = replace(back, memberships=message.memberships)
        if back != message:
            raise Violation("codec round trip", f"{message} arrives as {back}")
        if body is None:
            return back, None
        taken = read_body(frame.body, body[0])
        if taken != body:
            raise Violation("codec round trip", f"{body} arrives as {taken}")
        return back, taken


def read_body(content: bytes, first: int) -> Body:
    terms, values = [], []
    for offset in records.offsets(content):
        header = records.header(content, offset)
        payload = content[offset + RECORD_HEADER_BYTES :][: header.payload_length]
        terms.append(header.term)
        values.append(int.from_bytes(payload, "little"))
    return first, terms, values
