"""The way of a leader's writes into its log: in the order in which they were issued, and none that may never end.

What is known to be cheap passes at once. A write that has to be tried waits until all before it is applied, so that it
is tried on what it will meet; a change of the schema makes what follows wait until it is applied, since all judgements
are by that schema. What was issued later waits behind either. Must not know SQL. Invariants: while `closed` is False
nothing waits; a write leaves once, by `propose`, an error, or `take_all`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

from hiqlite._accel.batch import Op
from hiqlite.engine.ports import Cost, Judge, Run, Verdict
from hiqlite.errors import RequestTimeout, StorageError

from .forwarding import Waiting

# Writes that are tried together: so many wait for one round through the log instead of one each.
TRIED_MAX = 64
TRIED_BYTES_MAX = 1 << 20


class Gate:
    """Of one group.

    Args:
        judge: None: there is nothing to judge, every write passes.
        propose: takes a write that may stand in the log next.
        is_level: whether everything that was proposed is applied here.
        wake: asks for a turn, in which `turn` is called.
    """

    def __init__(
        self,
        judge: Judge | None,
        loop: asyncio.AbstractEventLoop,
        *,
        propose: Callable[[bytes, Waiting], None],
        is_level: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self.closed = False  # whether a write that is issued now has to wait
        self.queued_bytes = 0
        self._judge = judge
        self._loop = loop
        self._propose = propose
        self._is_level = is_level
        self._wake = wake
        self._queue: deque[tuple[bytes, Waiting]] = deque()
        self._trial: asyncio.Task[None] | None = None  # of the first in the queue
        self._wants_level = False  # nothing passes before all that was proposed is applied

    def __len__(self) -> int:
        return len(self._queue)

    def take(self, record: bytes, waiting: Waiting) -> None:
        """A write that was issued after all others."""
        if not self.closed and self._passes(record, waiting):
            return
        self.closed = True
        self.queued_bytes += len(record)
        self._queue.append((record, waiting))
        self._wake()

    def begin(self) -> None:
        """This node leads from now on: it judges by what it has applied once that is all of its log."""
        if self._judge is not None:
            self._end_trial()
            self._judge.forget()
            self.closed = self._wants_level = True

    def turn(self) -> None:
        """Something was applied, or a trial has ended: let pass what may."""
        if self._trial is not None or (self._wants_level and not self._is_level()):
            return
        self._wants_level = False
        while self._queue:
            record, waiting = self._queue[0]
            if is_over(waiting):
                self._leave()
                continue
            cost = self._cost(record)
            if cost is Cost.UNKNOWN:
                self._wants_level = not self._is_level()
                if not self._wants_level:
                    self._trial = self._loop.create_task(self._try(self._first()), name="hiqlite-trial")
                return
            self._leave()
            self._propose(record, waiting)
            if cost is Cost.CHANGES_SCHEMA:
                self._wants_level = True
                return
        self.closed = False

    def applied(self, run: Run) -> None:
        if self._judge is not None:
            self._judge.applied(run)

    # -- ends

    def take_all(self) -> list[tuple[bytes, Waiting]]:
        """Everything that waits, in order: it may not be proposed here any more."""
        self._end_trial()
        waiting = list(self._queue)
        self._queue.clear()
        self.queued_bytes = 0
        return waiting

    def expire(self, now_ns: int) -> None:
        """Callers whose deadline has passed stop waiting; what they wrote is not proposed."""
        late = [waiting for _, waiting in self._queue if isinstance(waiting, Op) and 0 < waiting.deadline_ns <= now_ns]
        for waiting in late:  # not in the queue itself: whoever is told may write again at once
            waiting.set_exception(RequestTimeout("the write was not proposed in time", outcome="not_applied"))

    # -- inside

    def _cost(self, record: bytes) -> Cost:
        return self._judge.cost(record) if self._judge is not None else Cost.CHEAP

    def _passes(self, record: bytes, waiting: Waiting) -> bool:
        cost = self._cost(record)
        if cost is Cost.UNKNOWN:
            return False
        self._propose(record, waiting)
        self.closed = self._wants_level = cost is Cost.CHANGES_SCHEMA
        return True

    def _leave(self) -> None:
        record, _ = self._queue.popleft()
        self.queued_bytes -= len(record)

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.cancel()
            self._trial = None

    def _first(self) -> list[tuple[bytes, Waiting]]:
        """What is tried together: cheap writes too, where they stand between others, but nothing that never is."""
        first: list[tuple[bytes, Waiting]] = []
        size_bytes = 0
        for record, waiting in islice(self._queue, TRIED_MAX):
            size_bytes += len(record)
            if first and (size_bytes > TRIED_BYTES_MAX or self._cost(record) is Cost.CHANGES_SCHEMA):
                break
            first.append((record, waiting))
        return first

    async def _try(self, first: list[tuple[bytes, Waiting]]) -> None:
        """Tries the first of the queue; they leave, one way or the other. A cancelled trial has no say any more."""
        assert self._judge is not None
        deadlines_ns = [waiting.deadline_ns for _, waiting in first]
        try:
            verdict = await self._judge.try_out([record for record, _ in first], deadlines_ns)
        except Exception as error:
            verdict = Verdict((), refusal=StorageError(f"internal error: {error!r}", outcome="not_applied"))
        self._trial = None
        self._end(first, verdict)
        self._wake()

    def _end(self, first: list[tuple[bytes, Waiting]], verdict: Verdict) -> None:
        for tried, (_, waiting) in zip(verdict.passed, first, strict=False):
            self._leave()
            if is_over(waiting):
                return  # what follows was tried on what it left: tried again
            self._propose(tried, waiting)
        self._wants_level = verdict.changes_schema
        if verdict.refusal is not None:
            self._leave()
            first[len(verdict.passed)][1].set_exception(verdict.refusal)

def is_over(waiting: Waiting) -> bool:
    """Whether its caller was told that it did not happen. One who left by himself was not."""
    return isinstance(waiting, Op) and waiting.done() and not waiting.cancelled()
