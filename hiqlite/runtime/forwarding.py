"""Writes on their way to the leader, and the leader's side of them.

A follower's writes of one loop turn travel together and come back together; the follower resolves them once it
has applied the entry itself. Knows records as bytes; must not know SQL. Invariants: a write that was sent is never sent
again unless the leader has said that it did not apply it, or its session makes sure that it is applied once; writes
stand in the log in the order in which they were issued, because those sent in one leadership are answered, given up,
or sent again first, before the next one gets any, and a leader takes none that were sent to it in another term.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Protocol

import msgpack

from hiqlite._accel.batch import Op
from hiqlite._accel.records import HEADER_SIZE
from hiqlite.errors import (
    HiqliteError,
    LeadershipLost,
    NoLeader,
    NotLeader,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    ShuttingDown,
    StorageError,
    from_wire,
    with_outcome,
)

from .waiting import not_in_time

# docs/formats.md section 5, frames `forward` and `forward_reply`.
FORWARD = struct.Struct("<QII")  # request number, timeout in ms (and whether tried before), term; a record follows
TRIED_BEFORE = 1 << 31
REPLY = struct.Struct("<QQII")  # request number, log index, size, status; bytes padded to 8 follow
ANSWERED, REFUSED = 0, 1
WENT_WELL = b"\0"  # status of an answer, docs/formats.md section 4
RECORD_LENGTH = struct.Struct("<I")
TERM_MASK = 0xFFFFFFFF  # a forward carries so much of the term: terms so far apart never meet

# With outcome "not_applied" these say that another node may take the write.
ELSEWHERE = (NotLeader, NoLeader, LeadershipLost, ShuttingDown)
# The leader that refused a write so is asked again after this time, unless another one is known before.
AGAIN_NS = 20_000_000
# Writes and answers that travel in one frame; what is larger alone travels alone. Far below what a link accepts, and
# small enough that a reply never waits behind much.
FRAME_BYTES_MAX = 1 << 20


class Waiting(Protocol):
    """What stands for a caller: an `Op` of this process, or a write that came from a peer."""

    @property
    def deadline_ns(self) -> int:
        """Monotonic time after which the caller no longer waits; 0: not known."""
        ...

    def answer(self, answer: bytes, log_index: int) -> None: ...
    def set_exception(self, error: BaseException) -> None: ...


class Forwarder:
    """This node's own writes while another node leads.

    Args:
        send: hands one frame's body to the leader; False when it cannot be sent now.
        when_applied: calls back once this node has applied an index.
        queue_bytes_max: limit of what waits for a leader, for an answer, or to be applied here.
        patience_ns: how long writes for a new leader wait for the answers of the one before.
        troubles: which peers are not reached, and why.
        number: request numbers go on from here. No process may use those of an earlier one: the leader may still answer
            what that one sent.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        send: Callable[[int, bytes], bool],
        when_applied: Callable[[int, Callable[[], None]], None],
        queue_bytes_max: int,
        patience_ns: int,
        troubles: Callable[[], str] = str,
        number: int = 0,
    ) -> None:
        self._loop = loop
        self._send = send
        self._when_applied = when_applied
        self._troubles = troubles
        self._queue_bytes_max = queue_bytes_max
        self._patience_ns = patience_ns
        self._queue: list[tuple[bytes, Op]] = []
        self._sent: dict[int, tuple[bytes, Op]] = {}
        self._returned: dict[int, tuple[bytes, Op]] = {}  # not applied; queued again once the same leader owes nothing
        self._answered: dict[int, Answered] = {}  # this node has not applied them yet
        self._number = number
        self._sent_to = (0, 0)  # the leader, and the term in which it led
        self._deposed_since_ns = 0  # since when another leadership is known than the one that owes answers
        self._refused_by = 0
        self._leaving = 0  # the leader that said farewell, until its link is gone
        self._refused_at_ns = 0
        self.waiting_bytes = 0
        self.answered_index = 0  # newest entry that a leader answered here; it may not be applied here yet

    def __len__(self) -> int:
        return len(self._queue) + len(self._sent) + len(self._returned) + len(self._answered)

    @property
    def holds(self) -> bool:
        """Whether writes are here that may not be applied yet: later ones must not overtake them."""
        return bool(self._queue or self._sent or self._returned)

    @property
    def seeks(self) -> bool:
        """Whether writes wait to be sent to a leader."""
        return bool(self._queue or self._returned)

    def put(self, record: bytes, op: Op) -> None:
        """Queue a write for the leader of the moment; `flush` sends it."""
        if self.waiting_bytes + len(record) > self._queue_bytes_max:
            raise Overloaded("too many bytes of writes wait for the leader", hint="slow down, or raise the limit")
        self.waiting_bytes += len(record)
        self._queue.append((record, op))

    def put_first(self, writes: list[tuple[bytes, Op]]) -> None:
        """Writes that were issued before all that is queued; they were admitted once and are not refused now."""
        self.waiting_bytes += sum(len(record) for record, _ in writes)
        self._queue[:0] = writes

    def take_queued(self, now_ns: int) -> list[tuple[bytes, Op]]:
        """What was never sent, or not applied: this node leads now and proposes it itself.

        Nothing while another one still owes answers: what it did not apply comes first.
        """
        if not self._settled((0, 0), now_ns):
            return []
        queued, self._queue = self._queue, []
        self.waiting_bytes -= sum(len(record) for record, _ in queued)
        return [(record, op) for record, op in queued if not op.done()]

    def flush(self, leader_id: int, now_ns: int, *, term: int) -> None:
        """Send all that is queued to the leader of `term`, in order, in as few frames as their limit allows.

        Called without anything queued, too: callers may all wait for answers that an earlier leader owes, and must not
        wait for longer than their next write would.
        """
        settled = self._settled((leader_id, term), now_ns)
        if not settled or not self._queue or not self._may_send(leader_id, now_ns):
            return
        self.waiting_bytes -= sum(len(record) for record, op in self._queue if op.done())
        self._queue = [(record, op) for record, op in self._queue if not op.done()]
        while self._queue:
            count, body = self._frame(term, now_ns)
            if not self._send(leader_id, body):
                return
            batch, self._queue = self._queue[:count], self._queue[count:]
            self._sent_to = (leader_id, term)
            self._sent.update(enumerate(batch, self._number + 1))
            self._number += count

    def _frame(self, term: int, now_ns: int) -> tuple[int, bytes]:
        """The next frame's body, and how many writes of the queue's begin it holds: at least one."""
        parts: list[bytes] = []
        size = 0
        for record, op in self._queue:
            size += FORWARD.size + len(record)
            if parts and size > FRAME_BYTES_MAX:
                break
            remaining_ms = max(1, (op.deadline_ns - now_ns) // 1_000_000) if op.deadline_ns else 0
            number = self._number + 1 + len(parts) // 2
            timeout = min(remaining_ms, TRIED_BEFORE - 1) | (TRIED_BEFORE if op.uncertain else 0)
            parts.append(FORWARD.pack(number, timeout, term & TERM_MASK))
            parts.append(record)
        return len(parts) // 2, b"".join(parts)

    def _may_send(self, leader_id: int, now_ns: int) -> bool:
        if leader_id == self._leaving:
            return False
        return leader_id != self._refused_by or now_ns - self._refused_at_ns >= AGAIN_NS

    def _settled(self, leadership: tuple[int, int], now_ns: int) -> bool:
        """Whether no other leadership owes answers. After a while those that it owes are given up.

        The same node in another term is another one: what it has refused may still be on its way back here, and news of
        its election comes over another connection.
        """
        if self._sent and leadership != self._sent_to:
            self._take_back()
        if not self._sent or leadership == self._sent_to:
            self._deposed_since_ns = 0
            return True
        if not self._deposed_since_ns:
            self._deposed_since_ns = now_ns
        if now_ns - self._deposed_since_ns < self._patience_ns:
            return False
        self._give_up()
        return True

    def replied(self, peer_id: int, body: bytes, now_ns: int) -> int:
        """Answers of the leader. Returns the highest log index that was answered, 0 if none.

        Raises: ProtocolError on a malformed body.
        """
        newest = 0
        try:
            for number, index, status, data in split_replies(body):
                record, op = self._sent.get(number, (b"", None))
                if op is None or peer_id != self._sent_to[0]:
                    continue
                error = refusal(data) if status == REFUSED else None
                del self._sent[number]
                if error is not None and is_for_another(error, op):
                    op.uncertain = op.uncertain or error.outcome != "not_applied"
                    self._returned[number] = (record, op)
                    self._refused_by, self._refused_at_ns = peer_id, now_ns
                    continue
                if error is None:
                    self.waiting_bytes += len(data)  # in the record's place, until it is applied here
                    newest = max(newest, index)
                    self.answered_index = max(self.answered_index, index)
                    size_bytes = len(record) + len(data)
                    self._answered[number] = answered = Answered(self, number, op, data, index, size_bytes)
                    self._when_applied(index, answered)
                else:
                    self.waiting_bytes -= len(record)
                    op.set_exception(error)
        finally:
            self._queue_again()
        return newest

    def _queue_again(self) -> None:
        """What was not applied goes before all that was issued later, once it is known to be all of it."""
        if self._returned and not self._sent:
            self._queue[:0] = [self._returned[number] for number in sorted(self._returned)]
            self._returned.clear()

    def resolved(self, number: int) -> None:
        """This node has applied what the leader answered."""
        if (answered := self._answered.pop(number, None)) is not None:  # given up, then applied: once
            self.waiting_bytes -= answered.size_bytes

    def hold(self, peer_id: int) -> None:
        """That leader leaves: what is queued waits for the next one, or for this one once it is back."""
        self._leaving = peer_id

    def arrived(self, peer_id: int) -> None:
        """The links to that peer are up: whatever farewell was said belongs to earlier ones."""
        if peer_id == self._leaving:
            self._leaving = 0

    def lost(self, peer_id: int) -> None:
        """The link to the leader broke: nobody knows what became of the writes under way."""
        if peer_id == self._leaving:
            self._leaving = 0
        if peer_id == self._sent_to[0]:
            self._give_up()

    def _take_back(self) -> None:
        """Those whose answers nobody needs to wait for: they may be sent again, or nobody asks any more."""
        for number in [number for number, (_, op) in self._sent.items() if op.done()]:
            self.waiting_bytes -= len(self._sent.pop(number)[0])
        for number in [number for number, (_, op) in self._sent.items() if op.retries]:
            self._returned[number] = sent = self._sent.pop(number)
            sent[1].uncertain = True
        self._queue_again()

    def _give_up(self) -> None:
        self._take_back()
        sent, self._sent = self._sent, {}
        for record, op in sent.values():
            self.waiting_bytes -= len(record)
            op.set_exception(LeadershipLost("the leader was lost before it answered", outcome="unknown"))
        self._queue_again()

    def expire(self, now_ns: int) -> None:
        """Give up on writes whose deadline has passed."""
        kept: list[tuple[bytes, Op]] = []
        troubles = ""
        for record, op in self._queue:
            if 0 < op.deadline_ns <= now_ns or op.done():
                self.waiting_bytes -= len(record)
                troubles = troubles or self._troubles()
                op.set_exception(not_in_time(op, troubles))
            else:
                kept.append((record, op))
        self._queue = kept
        for number in [one for one, (_, op) in self._returned.items() if 0 < op.deadline_ns <= now_ns]:
            record, op = self._returned.pop(number)
            self.waiting_bytes -= len(record)
            troubles = troubles or self._troubles()
            op.set_exception(not_in_time(op, troubles))
        for number in [one for one, (_, op) in self._sent.items() if 0 < op.deadline_ns <= now_ns]:
            record, op = self._sent.pop(number)
            self.waiting_bytes -= len(record)
            op.set_exception(RequestTimeout("the leader did not answer in time", outcome="unknown"))
        self._queue_again()
        for answered in [one for one in self._answered.values() if 0 < one.op.deadline_ns <= now_ns]:
            answered.give_up(RequestTimeout("this node did not apply the write in time", outcome="applied"))

    def fail(self, error: HiqliteError) -> None:
        """This node stops: what was queued is not applied, what was sent is unknown, what was answered is known."""
        for _, op in (*self._returned.values(), *self._queue):
            op.set_exception(with_outcome(error, "not_applied"))
        for _, op in self._sent.values():
            op.set_exception(with_outcome(error, "unknown"))
        for answered in list(self._answered.values()):
            answered.give_up(with_outcome(error, "applied"))
        self._queue, self._sent, self._returned, self.waiting_bytes = [], {}, {}, 0


def is_for_another(error: HiqliteError, op: Op) -> bool:
    """Whether another node may take the write that this error came for."""
    if isinstance(error, ELSEWHERE):
        return error.outcome == "not_applied" or op.retries
    return isinstance(error, StorageError) and error.outcome == "unknown" and op.retries


class Answered:
    """A write that the leader has answered; called, it resolves: this node has applied the entry."""

    __slots__ = ("_answer", "_forwarder", "_index", "_number", "op", "size_bytes")

    def __init__(
        self, forwarder: Forwarder, number: int, op: Op, answer: bytes, index: int, size_bytes: int
    ) -> None:
        self._forwarder = forwarder
        self._number = number
        self._answer = answer
        self._index = index
        self.op = op
        self.size_bytes = size_bytes

    def __call__(self) -> None:
        self._forwarder.resolved(self._number)
        self.op.answer(self._answer, self._index)

    def give_up(self, error: HiqliteError) -> None:
        """Wait no longer. An entry that failed is told as it failed, because nothing of it can be missing here."""
        self._forwarder.resolved(self._number)
        if self._answer[1:2] == WENT_WELL:
            self.op.set_exception(error)
        else:
            self.op.answer(self._answer, self._index)


def split_forward(body: bytes) -> list[tuple[int, int, int, bytes]]:
    """The writes of one `forward` frame: (request number, timeout in ms, term, record). Raises ProtocolError."""
    found: list[tuple[int, int, int, bytes]] = []
    offset, size = 0, len(body)
    while offset < size:
        if size - offset < FORWARD.size + HEADER_SIZE:
            raise ProtocolError("forward is cut short")
        number, timeout_ms, term = FORWARD.unpack_from(body, offset)
        offset += FORWARD.size
        (length,) = RECORD_LENGTH.unpack_from(body, offset)
        if length < HEADER_SIZE or length % 8 or size - offset < length:
            raise ProtocolError("forward carries a malformed record")
        found.append((number, timeout_ms, term, body[offset : offset + length]))
        offset += length
    return found


def split_replies(body: bytes) -> list[tuple[int, int, int, bytes]]:
    """The answers of one `forward_reply` frame: (request number, log index, status, data). Raises ProtocolError."""
    found: list[tuple[int, int, int, bytes]] = []
    offset, size = 0, len(body)
    while offset < size:
        if size - offset < REPLY.size:
            raise ProtocolError("forward_reply is cut short")
        number, index, length, status = REPLY.unpack_from(body, offset)
        offset += REPLY.size
        padded = length + (-length % 8)
        if size - offset < padded:
            raise ProtocolError("forward_reply is cut short")
        if status not in (ANSWERED, REFUSED):
            raise ProtocolError(f"forward_reply has an unknown status {status}")
        found.append((number, index, status, body[offset : offset + length]))
        offset += padded
    return found


def refusal(data: bytes) -> HiqliteError:
    """The error that a leader sent instead of an answer. Raises ProtocolError."""
    try:
        wire = msgpack.unpackb(data)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError("forward_reply carries an error that is not msgpack") from error
    if not isinstance(wire, dict):
        raise ProtocolError("forward_reply carries an error that is no map")
    return from_wire(wire)
