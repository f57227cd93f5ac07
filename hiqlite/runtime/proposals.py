"""The writes of a group: which wait to be proposed, which wait for which log index, which travel to the leader.

Batching needs no timer: what was issued in one turn of the loop leaves together. Must not know the log, the engine's
messages or SQL. Invariant: every write that was taken is resolved once, with an answer or with what is known of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

from hiqlite._accel.batch import Batch, Op, Pending, ProposalBuffer
from hiqlite._accel.records import offsets
from hiqlite.config import RaftSettings
from hiqlite.engine.ports import Run
from hiqlite.errors import HiqliteError, LeadershipLost, NotLeader, Overloaded, RequestTimeout, ShuttingDown

from .forwarding import Forwarder, Waiting

# What a peer is told of its writes; only their wire form is used, so one object serves all.
NOT_HERE = NotLeader("the node no longer leads", outcome="not_applied")
LOST_HERE = LeadershipLost("the leader was lost before the write was confirmed", outcome="unknown")


class Proposals:
    """Back-pressure, batching, and who gets which answer.

    Args:
        send_forward, when_applied: see `Forwarder`.
        wake: asks for a turn of the group.
    """

    def __init__(
        self,
        settings: RaftSettings,
        loop: asyncio.AbstractEventLoop,
        *,
        send_forward: Callable[[int, bytes], bool],
        when_applied: Callable[[int, Callable[[], None]], None],
        wake: Callable[[], None],
    ) -> None:
        self.buffer = ProposalBuffer(settings.frame_bytes_max, settings.entry_bytes_max)
        self.pending = Pending()
        self.forwarder = Forwarder(
            loop,
            send=send_forward,
            when_applied=when_applied,
            queue_bytes_max=settings.proposal_queue_bytes,
            patience_ns=settings.election_timeout_min_ms * 1_000_000,
            number=random.SystemRandom().getrandbits(62),
        )
        self.failure: HiqliteError | None = None
        self.refusal: HiqliteError | None = None  # why nothing new is taken for now; may end by itself
        self._closing = False
        self._wake = wake
        self._queue_bytes_max = settings.proposal_queue_bytes
        self._batches_max = settings.window_frames

    # -- taking writes

    def execute(self, text: bytes, params: Any, op: Op) -> None:
        """One statement of this process, encoded straight into the batch of this turn; this node leads."""
        self._admit(0)
        self.buffer.execute(text, params, op)
        self._wake()

    def put(self, record: bytes, waiting: Waiting) -> None:
        """A complete record; this node leads."""
        self._admit(len(record))
        self.buffer.put(record, waiting)
        self._wake()

    def forward(self, record: bytes, op: Op) -> None:
        """A complete record for whoever leads, now or soon."""
        self._admit(len(record))
        self.forwarder.put(record, op)
        self._wake()

    @property
    def taking(self) -> bool:
        """Whether writes are taken at all: the node works and is not shutting down."""
        return self.failure is None and not self._closing

    def _admit(self, size_bytes: int) -> None:
        if self.failure is not None:
            raise told(self.failure, "not_applied")
        if self._closing:
            raise ShuttingDown("the node is shutting down", outcome="not_applied")
        if self.refusal is not None:
            raise told(self.refusal, "not_applied")
        if self.buffer.queued_bytes + size_bytes > self._queue_bytes_max:
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
        self.pending.add(first, batch.ops)

    def applied(self, run: Run) -> None:
        """Resolve all that wait for this run."""
        self.pending.complete(run.last, run)

    def truncated(self, last_kept: int) -> None:
        """Entries above are gone from this log; they may still exist elsewhere."""
        for op in self.pending.cut_from(last_kept + 1):
            op.set_exception(LeadershipLost("leadership was lost before the write was confirmed", outcome="unknown"))

    def passed_over(self) -> None:
        """An image took the place of entries that were pending here: it may hold them, their answers are gone."""
        for waiting in self.pending.cut_from(1):
            lost = LeadershipLost("an image of the database came in place of the write's answer", outcome="unknown")
            waiting.set_exception(lost if isinstance(waiting, Op) else LOST_HERE)

    # -- changing sides

    def pass_on(self, leads: bool, leader_id: int, term: int, now_ns: int) -> bool:
        """Send what waits for a leader to that of `term`, or propose it here if this node `leads`.

        Returns: whether there are new proposals. What no other leader has applied is proposed in the order in which it
        was issued.
        """
        if not leads:
            if leader_id:
                self.forwarder.flush(leader_id, now_ns, term=term)
            return False
        queued = self.forwarder.take_queued(now_ns)
        for record, op in queued:
            self.buffer.put(record, op)
        return bool(queued)

    def follow(self) -> None:
        """Leadership went before these were proposed: they are not applied, so the new leader may have them."""
        own: list[tuple[bytes, Op]] = []
        while self.buffer.peek() is not None:
            batch = self.buffer.pop()
            starts = [*offsets(batch.data), len(batch.data)]
            for number, waiting in enumerate(batch.ops):
                if isinstance(waiting, Op):
                    own.append((batch.data[starts[number] : starts[number + 1]], waiting))
                else:
                    waiting.set_exception(NOT_HERE)
        # Before what was issued since: one client's writes keep their order.
        self.forwarder.put_first(own)

    # -- ends

    def expire(self, now_ns: int) -> None:
        """Callers whose deadline has passed stop waiting; what they wrote may still happen."""
        for op in (*self.pending.expired(now_ns), *self.buffer.expired(now_ns)):
            op.set_exception(RequestTimeout("the write was not confirmed in time", outcome="unknown"))
        self.forwarder.expire(now_ns)

    def fail(self, error: HiqliteError) -> None:
        """Nothing is taken any more; every waiting caller is told what is known of its write."""
        self.failure = self.failure or error
        unknown, refused = told(error, "unknown"), told(error, "not_applied")
        for waiting in self.pending.cut_from(1):
            waiting.set_exception(unknown if isinstance(waiting, Op) else LOST_HERE)
        while self.buffer.peek() is not None:
            for waiting in self.buffer.pop().ops:
                waiting.set_exception(refused if isinstance(waiting, Op) else NOT_HERE)
        self.forwarder.fail(error)

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
        return bool(self.buffer) or len(self.pending) > 0 or len(self.forwarder) > 0


def told(error: HiqliteError, outcome: Any) -> HiqliteError:
    """The same error, about a write with this outcome."""
    return type(error)(error.message, hint=error.hint, outcome=outcome)
