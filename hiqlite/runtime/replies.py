"""The leader's side of forwarded writes: each is answered once, with the others of its turn.

Knows frames as bytes; must not know SQL, nor how a write was proposed. Invariants: an answer leaves in the order of its
turn, or is lost with its link, which the peer notices; more than `unsent_bytes_max` wait only for a peer that reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgpack

from hiqlite.errors import AnswerNotKept, HiqliteError

from .forwarding import AGAIN_NS, ANSWERED, FRAME_BYTES_MAX, REFUSED, REPLY

# A peer that took nothing of what waits for so long does not read.
PATIENCE_S = 3.0


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
        send: False: there is no room in the link now, or no link.
        answer_bytes_max: a larger answer is told as applied but not carried, because no link would take its frame.
        unsent_bytes_max: a peer for which more waits, and which has taken nothing of it for `patience_s`, does not
            read, and loses the link on which it hears answers.
        listens: whether a peer has that link.
        hang_up: ends it; `lost` follows.
    """

    def __init__(
        self,
        send: Callable[[int, bytes], bool],
        loop: asyncio.AbstractEventLoop,
        answer_bytes_max: int = 1 << 26,
        *,
        unsent_bytes_max: int = 1 << 26,
        patience_s: float = PATIENCE_S,
        listens: Callable[[int], bool] = lambda _: True,
        hang_up: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._send = send
        self._loop = loop
        self._answer_bytes_max = answer_bytes_max
        self._unsent_bytes_max = unsent_bytes_max
        self._patience_s = patience_s
        self._listens = listens
        self._hang_up = hang_up
        self._parts: dict[int, list[bytes]] = {}
        self._unsent: dict[int, deque[bytes]] = {}  # frames that found no room in the link, per peer, in order
        self._unsent_bytes: dict[int, int] = {}
        self._moved_s: dict[int, float] = {}  # loop time at which something of it left last, or came first
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
        self._unsent_bytes.pop(peer_id, None)
        self._moved_s.pop(peer_id, None)

    def _put(self, peer_id: int, frame: bytes) -> None:
        """A frame that finds no room waits; where too much does, for long, the link ends, and the peer asks again."""
        if peer_id not in self._unsent and self._send(peer_id, frame):
            return
        if not self._listens(peer_id):
            return  # it gave up what it had asked, with its link
        size_bytes = self._unsent_bytes.get(peer_id, 0) + len(frame)
        stuck_s = self._loop.time() - self._moved_s.setdefault(peer_id, self._loop.time())
        if size_bytes > self._unsent_bytes_max and peer_id in self._unsent and stuck_s >= self._patience_s:
            self._hang_up(peer_id)
            return
        self._unsent_bytes[peer_id] = size_bytes
        self._unsent.setdefault(peer_id, deque()).append(frame)
        if self._again is None:
            self._again = self._loop.call_later(AGAIN_NS / 1e9, self._send_on)

    def _send_on(self) -> None:
        self._again = None
        for peer_id, frames in list(self._unsent.items()):
            if not self._listens(peer_id):
                self.lost(peer_id)
                continue
            while frames and self._send(peer_id, frames[0]):
                self._unsent_bytes[peer_id] -= len(frames.popleft())
                self._moved_s[peer_id] = self._loop.time()
            if not frames:
                del self._unsent[peer_id], self._unsent_bytes[peer_id], self._moved_s[peer_id]
        if self._unsent:
            self._again = self._loop.call_later(AGAIN_NS / 1e9, self._send_on)
