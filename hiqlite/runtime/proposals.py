"""The writes of a group: which wait to be proposed, which wait for which log index, which travel to the leader.

Batching needs no timer: what was issued in one turn of the loop leaves together. Must not know the log, the engine's
messages or SQL. Invariant: every write that was taken is resolved once, with an answer or with what is known of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

from hiqlite._accel.batch import Batch, Op, ProposalBuffer
from hiqlite._accel.pending import Pending
from hiqlite._accel.records import offsets
from hiqlite.config import RaftSettings
from hiqlite.engine.ports import Judge, Run
from hiqlite.errors import (
    HiqliteError,
    LeadershipLost,
    NotLeader,
    Overloaded,
    RequestTimeout,
    ShuttingDown,
    with_outcome,
)

from .flow import Flow
from .forwarding import Forwarder, Waiting
from .gate import Gate
from .write_session import SessionTerms, WriteSession

# What a peer is told of its writes; only their wire form is used, so one object serves all.
NOT_HERE = NotLeader("the node no longer leads", outcome="not_applied")
LOST_HERE = LeadershipLost("the leader was lost before the write was confirmed", outcome="unknown")


# A record up to this size may pass without a look at it, when its text is known to be cheap.
CHEAP_BYTES_MAX = 1 << 20


class Proposals:
    """Back-pressure, batching, and who gets which answer.

    Args:
        send_forward, when_applied: see `Forwarder`.
        wake: asks for a turn of the group.
        leads: whether this node may propose.
        judge, is_level: see `Gate`.
        sessions, troubles: see `WriteSession`.
    """

    def __init__(
        self,
        settings: RaftSettings,
        loop: asyncio.AbstractEventLoop,
        *,
        send_forward: Callable[[int, bytes], bool],
        when_applied: Callable[[int, Callable[[], None]], None],
        wake: Callable[[], None],
        leads: Callable[[], bool] = lambda: True,
        judge: Judge | None = None,
        is_level: Callable[[], bool] = lambda: True,
        sessions: SessionTerms | None = None,
        troubles: Callable[[], str] = str,
    ) -> None:
        self.buffer = ProposalBuffer(settings.frame_bytes_max)
        self.pending = Pending()
        self.flow = Flow(loop.time)
        self.forwarder = Forwarder(
            loop,
            send=send_forward,
            when_applied=when_applied,
            queue_bytes_max=settings.proposal_queue_bytes,
            patience_ns=settings.election_timeout_min_ms * 1_000_000,
            troubles=troubles,
            number=random.SystemRandom().getrandbits(62),
        )
        self.gate = Gate(judge, loop, propose=self.buffer.put, is_level=is_level, wake=wake)
        self.session = WriteSession(sessions, loop, self._route, troubles, lambda: self.forwarder.seeks)
        self._leads = leads
        self.failure: HiqliteError | None = None
        self.refusal: HiqliteError | None = None  # why nothing new is taken for now; may end by itself
        self._closing = False
        self._marks: set[Op] = set()  # since this node leads
        self._wake = wake
        self._queue_bytes_max = settings.proposal_queue_bytes
        self._cheap_bytes_max = min(CHEAP_BYTES_MAX, settings.entry_bytes_max)
        self._batches_max = settings.window_frames

    # -- taking writes

    def execute(self, text: bytes, params: Any, op: Op, flags: int) -> bool:
        """One cheap statement of this process, encoded straight into the batch of this turn; this node leads, its gate
        is open, and its session has room.

        Returns:
            False: its data is more than goes unjudged; nothing was taken.
        """
        self._admit(0)
        if not self.buffer.execute(text, params, op, self._cheap_bytes_max, self.session.window, flags):
            return False
        self._wake()
        return True

    def write(self, record: bytes, op: Op) -> None:
        """A complete record of this process, for whoever leads now or soon."""
        self._admit(len(record))
        self.session.write(record, op)

    def put(self, record: bytes, waiting: Waiting) -> None:
        """A complete record of a peer; this node leads."""
        self._admit(len(record))
        self.gate.take(record, waiting)
        self._wake()

    def mark(self, record: bytes, op: Op) -> None:
        """An entry of this leader that changes nothing: it is taken whatever is refused now. Raises NotLeader."""
        if self.failure is not None:
            raise with_outcome(self.failure, "not_applied")
        if not self._leads():
            raise NotLeader("this node does not lead any more", outcome="not_applied")
        self._marks.add(op)
        op.add_done_callback(self._marks.discard)
        self.gate.take(record, op)
        self._wake()

    def _route(self, record: bytes, op: Op) -> None:
        if self._leads() and not self.forwarder.holds:
            self.gate.take(record, op)
        else:
            self.forwarder.put(record, op)
        self._wake()

    @property
    def taking(self) -> bool:
        """Whether writes are taken at all: the node works and is not shutting down."""
        return self.failure is None and not self._closing

    def _admit(self, size_bytes: int) -> None:
        if self.failure is not None:
            raise with_outcome(self.failure, "not_applied")
        if self._closing:
            raise ShuttingDown("the node is shutting down", outcome="not_applied")
        if self.refusal is not None:
            raise with_outcome(self.refusal, "not_applied")
        queued_bytes = self.buffer.queued_bytes + self.gate.queued_bytes + self.session.held_bytes
        if queued_bytes + size_bytes > self._queue_bytes_max:
            raise Overloaded("too many bytes of writes wait to be proposed", hint="await earlier writes first")

    # -- leading

    def batches(self) -> Iterator[Batch]:
        """Batches to propose now; each is taken by `proposed`.

        Few in flight keep each as large as the concurrency; deep pipelines spoil batching.
        """
        while self.pending.batch_count < self._batches_max and (batch := self.buffer.peek()) is not None:
            yield batch

    def proposed(self, batch: Batch, first: int) -> None:
        """The batch of the last `batches()` stands in the log from `first` on."""
        self.buffer.pop()
        self.pending.add(first, batch.ops, batch.data)
        self.flow.proposed(first, batch.count, batch.size_bytes)

    def applied(self, run: Run) -> None:
        """Resolve all that wait for this run."""
        self.gate.applied(run)
        self.flow.applied(run.last)  # first: who waits runs in the next line, and may look
        self.pending.complete(run.last, run)

    def truncated(self, last_kept: int) -> None:
        """Entries above are gone from this log; they may still exist elsewhere."""
        self._lost(last_kept + 1, "leadership was lost before the write was confirmed")

    def passed_over(self) -> None:
        """An image took the place of entries that were pending here: it may hold them, their answers are gone."""
        self._lost(1, "an image of the database came in place of the write's answer")

    def _lost(self, first: int, why: str) -> None:
        """Nobody here will answer what waits for `first` and above. What may be sent again is, before all that was
        issued later."""
        self.flow.dropped()
        self.follow()  # what was never proposed comes behind what was
        lost = self.pending.cut_from(first)
        again = [(record, waiting) for record, waiting in lost if record]
        for _, waiting in again:
            waiting.uncertain = True
        self.forwarder.put_first(again)
        for record, waiting in lost:  # last: whoever is told may write again at once
            if not record:
                waiting.set_exception(LeadershipLost(why, outcome="unknown"))
        self._wake()

    # -- changing sides

    def pass_on(self, leads: bool, leader_id: int, term: int, now_ns: int) -> bool:
        """Send what waits for a leader to that of `term`, or propose it here if this node `leads`.

        Returns: whether there are new proposals. What no other leader has applied is proposed in the order in which it
        was issued. Nothing leaves while the fate of what this node proposed is open: that may have to go first.
        """
        if not leads:
            if leader_id and not self.pending:
                self.forwarder.flush(leader_id, now_ns, term=term)
            return False
        queued = self.forwarder.take_queued(now_ns)
        for record, op in queued:
            self.gate.take(record, op)
        return bool(queued)

    @property
    def waits(self) -> bool:
        """Whether anything is here that this node is to propose."""
        return bool(self.buffer) or len(self.gate) > 0

    def follow(self) -> None:
        """Leadership went before these were proposed: they are not applied, so the new leader may have them."""
        writes: list[tuple[bytes, Waiting]] = []
        while self.buffer.peek() is not None:
            batch = self.buffer.pop()
            starts = [*offsets(batch.data), len(batch.data)]
            writes += [(batch.data[starts[n] : starts[n + 1]], waiting) for n, waiting in enumerate(batch.ops)]
        writes += self.gate.take_all()
        for _, waiting in writes:
            if not isinstance(waiting, Op):
                waiting.set_exception(NOT_HERE)
            elif waiting in self._marks:
                waiting.set_exception(with_outcome(NOT_HERE, "not_applied"))
        # Before what was issued since: one client's writes keep their order.
        own = [(record, op) for record, op in writes if isinstance(op, Op) and op not in self._marks]
        self.forwarder.put_first(own)

    # -- ends

    def expire(self, now_ns: int) -> None:
        """Callers whose deadline has passed stop waiting; what they wrote may still happen."""
        for op in (*self.pending.expired(now_ns), *self.buffer.expired(now_ns)):
            op.set_exception(RequestTimeout("the write was not confirmed in time", outcome="unknown"))
        self.gate.expire(now_ns)
        self.forwarder.expire(now_ns)
        self.session.expire(now_ns)

    def fail(self, error: HiqliteError) -> None:
        """Nothing is taken any more; every waiting caller is told what is known of its write, by an error of its own:
        what each does with one adds to its traceback and to what it is raised from."""
        self.failure = self.failure or error
        for _, waiting in self.pending.cut_from(1):
            waiting.set_exception(with_outcome(error, "unknown") if isinstance(waiting, Op) else LOST_HERE)
        while self.buffer.peek() is not None:
            for waiting in self.buffer.pop().ops:
                waiting.set_exception(with_outcome(error, "not_applied") if isinstance(waiting, Op) else NOT_HERE)
        for _, waiting in self.gate.take_all():
            waiting.set_exception(with_outcome(error, "not_applied") if isinstance(waiting, Op) else NOT_HERE)
        self.forwarder.fail(error)
        self.session.fail(error)

    def close_intake(self) -> None:
        """Take no new writes from now on."""
        self._closing = True

    async def drain(self, timeout_s: float) -> None:
        """Take no new writes and wait for those under way, for `timeout_s` at most."""
        self.close_intake()
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        # Each look costs nothing beside the flush it waits for; an event would cost every completed run.
        while self.busy and self.failure is None and loop.time() < end:  # noqa: ASYNC110  (see above)
            await asyncio.sleep(0.002)

    @property
    def busy(self) -> bool:
        return self.waits or len(self.pending) > 0 or len(self.forwarder) > 0 or len(self.session) > 0
