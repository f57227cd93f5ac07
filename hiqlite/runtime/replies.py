"""The leader's side of forwarded writes: each is answered once, with the others of its turn.

Knows frames as bytes; must not know SQL, nor how a write was proposed. Invariant: an answer leaves in the order of its
turn, or is lost with its link, which the peer notices.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgpack

from hiqlite.errors import AnswerNotKept, HiqliteError

from .forwarding import AGAIN_NS, ANSWERED, FRAME_BYTES_MAX, REFUSED, REPLY


class ForwardedWrite:
    """A peer's write in this leader's log; its answer goes back with the others of the turn."""

    __slots__ = ("_done", "_number", "_peer_id", "_replies", "deadline_ns")

    def __init__(self, replies: Replies, peer_id: int, number: int, deadline_ns: int = 0) -> None:
        self._replies = replies
        self._peer_id = peer_id
        self._number = number
        self._done = False
        self.deadline_ns = deadline_ns

    def answer(self, answer: bytes, log_index: int) -> None:
        if not self._done:
            self._done = True
            self._replies.add(self._peer_id, self._number, log_index, ANSWERED, answer)

    def set_exception(self, error: BaseException) -> None:
        if self._done:
            return
        self._done = True
        wire = error if isinstance(error, HiqliteError) else HiqliteError(str(error), outcome="unknown")
        self._replies.add(self._peer_id, self._number, 0, REFUSED, msgpack.packb(wire.to_wire()))


class Replies:
    """Answers to peers, collected over one turn of the loop and sent in few frames per peer.

    Args:
        answer_bytes_max: a larger answer is told as applied but not carried, because no link would take its frame.
    """

    def __init__(
        self, send: Callable[[int, bytes], bool], loop: asyncio.AbstractEventLoop, answer_bytes_max: int = 1 << 26
    ) -> None:
        self._send = send
        self._loop = loop
        self._answer_bytes_max = answer_bytes_max
        self._parts: dict[int, list[bytes]] = {}
        self._unsent: dict[int, deque[bytes]] = {}  # frames that found no room in the link, per peer, in order
        self._again: asyncio.TimerHandle | None = None

    def add(self, peer_id: int, number: int, log_index: int, status: int, data: bytes) -> None:
        if len(data) > self._answer_bytes_max:
            error = AnswerNotKept(f"the write was applied, its answer of {len(data)} bytes is too large to travel")
            log_index, status, data = 0, REFUSED, msgpack.packb(error.to_wire())
        if not self._parts:
            self._loop.call_soon(self.flush)
        parts = self._parts.setdefault(peer_id, [])
        parts.append(REPLY.pack(number, log_index, len(data), status))
        parts.append(data + bytes(-len(data) % 8))

    def flush(self) -> None:
        if self._parts:
            waiting, self._parts = self._parts, {}
            for peer_id, parts in waiting.items():
                first = size = 0
                for place in range(0, len(parts), 2):
                    piece = len(parts[place]) + len(parts[place + 1])
                    if size and size + piece > FRAME_BYTES_MAX:
                        self._put(peer_id, b"".join(parts[first:place]))
                        first, size = place, 0
                    size += piece
                self._put(peer_id, b"".join(parts[first:]))

    def lost(self, peer_id: int) -> None:
        """The link is gone, and with it what it should have carried: the peer reports "unknown"."""
        self._parts.pop(peer_id, None)
        self._unsent.pop(peer_id, None)

    def _put(self, peer_id: int, frame: bytes) -> None:
        """A frame that finds no room waits. What waits is bounded by what this node has taken and not answered yet."""
        if peer_id not in self._unsent and self._send(peer_id, frame):
            return
        self._unsent.setdefault(peer_id, deque()).append(frame)
        if self._again is None:
            self._again = self._loop.call_later(AGAIN_NS / 1e9, self._send_on)

    def _send_on(self) -> None:
        self._again = None
        for peer_id, frames in list(self._unsent.items()):
            while frames and self._send(peer_id, frames[0]):
                frames.popleft()
            if not frames:
                del self._unsent[peer_id]
        if self._unsent:
            self._again = self._loop.call_later(AGAIN_NS / 1e9, self._send_on)
