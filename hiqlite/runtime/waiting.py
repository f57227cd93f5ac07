"""Who waits for what on this node: for an applied index, or for the answer of the next quorum round.

Knows integers and futures only. Invariant: every future handed out is resolved once, by progress, failure or close.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any

from hiqlite._accel.batch import Op
from hiqlite.engine.model import Ready
from hiqlite.errors import HiqliteError, LeadershipLost, NoLeader, RequestTimeout, with_outcome

# Who gave up waiting is forgotten once there are so many of them, and more than of those who still wait.
LEFT_MAX = 64
EXPIRY_S = 0.01  # so much longer one may wait whose time was not over with the first one's


class AppliedWaiters:
    """Callbacks and futures for the moment when this node has applied an index."""

    __slots__ = ("_futures", "_heap", "_left", "_number")

    def __init__(self) -> None:
        # The future is that of a callback which `future` made.
        self._heap: list[tuple[int, int, Callable[[], None], asyncio.Future[None] | None]] = []
        self._futures: set[asyncio.Future[None]] = set()
        self._left = 0  # in the heap, but nobody waits any more
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, index: int, callback: Callable[[], None], future: asyncio.Future[None] | None = None) -> None:
        self._number += 1
        heapq.heappush(self._heap, (index, self._number, callback, future))

    def future(self, index: int, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """A future that is resolved by `reached`, or fails with `fail`."""
        future: asyncio.Future[None] = loop.create_future()
        self._futures.add(future)
        future.add_done_callback(self._done)

        def applied() -> None:
            if not future.done():
                future.set_result(None)

        self.add(index, applied, future)
        return future

    def _done(self, future: asyncio.Future[None]) -> None:
        self._futures.discard(future)
        if future.cancelled():
            self._left += 1
            if self._left > LEFT_MAX and self._left > len(self._heap) // 2:
                self._heap[:] = [one for one in self._heap if one[3] is None or not one[3].cancelled()]
                heapq.heapify(self._heap)
                self._left = 0

    def reached(self, applied_index: int) -> None:
        heap = self._heap
        while heap and heap[0][0] <= applied_index:
            heapq.heappop(heap)[2]()

    def fail(self, error: HiqliteError) -> None:
        """Nothing is applied any more. Callbacks are forgotten: their owners are told in their own way."""
        self._heap.clear()
        for future in list(self._futures):
            if not future.done():
                future.set_exception(own(error))


def own(error: Exception) -> Exception:
    """For one of several who are told the same: what each does with it adds to its traceback."""
    return with_outcome(error, error.outcome) if isinstance(error, HiqliteError) else error


def not_in_time(op: Op, troubles: str) -> HiqliteError:
    """Of a write that waits for a leader."""
    if op.uncertain:
        return RequestTimeout("the write was not confirmed in time", outcome="unknown")
    return no_leader(troubles)


def no_leader(troubles: str) -> NoLeader:
    """Of what waited for one in vain; `troubles`: which peers are not reached, and why."""
    return NoLeader("no leader was known in time", hint=troubles)


class ReadTokens:
    """Reads that this leader's engine is confirming, by their tokens."""

    __slots__ = ("_futures", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: dict[int, asyncio.Future[int]] = {}

    def add(self, token: int) -> asyncio.Future[int]:
        """A future of the read index; it fails at once for token 0: this node does not lead."""
        future: asyncio.Future[int] = self._loop.create_future()
        if token:
            self._futures[token] = future
        else:
            future.set_exception(LeadershipLost("this node does not lead", outcome=None))
        return future

    def settle(self, ready: Ready) -> None:
        """What the engine says of them."""
        for confirmed in ready.reads:
            future = self._futures.pop(confirmed.token, None)
            if future is not None and not future.done():
                future.set_result(confirmed.read_index)
        for token in ready.failed_reads:
            future = self._futures.pop(token, None)
            if future is not None and not future.done():
                future.set_exception(LeadershipLost("leadership was lost before the read was confirmed", outcome=None))

    def fail(self, error: HiqliteError) -> None:
        for future in self._futures.values():
            if not future.done():
                future.set_exception(own(error))
        self._futures.clear()


class ReadRound:
    """Linearizable reads that share one round: those that arrive while one is under way wait for the next.

    They share a timer, too: it is set for the one whose time is over first.

    Args:
        ask: starts a round; resolves with the read index, or raises.
    """

    __slots__ = ("_ask", "_joined", "_loop", "_next", "_task", "_timer", "_timer_at")

    def __init__(self, ask: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._ask = ask
        self._loop = loop
        self._next: dict[asyncio.Future[int], float] = {}  # each with the end of its time
        self._joined: dict[asyncio.Future[int], float] = {}
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    async def index(self, end_s: float = inf) -> int:
        """The read index of a round that starts after this call.

        Args:
            end_s: when it has to be known, in the loop's time.

        Raises:
            RequestTimeout: it was not. What the round fails with, or what the node closes with.
        """
        future: asyncio.Future[int] = self._loop.create_future()
        self._next[future] = end_s
        if end_s < self._timer_at:
            self._set_timer(end_s)
        if self._task is None:
            self._task = self._loop.create_task(self._run())
        try:
            return await future
        except BaseException:
            self._forget(future)
            raise

    @property
    def waiting(self) -> int:
        """How many reads wait for a round, or for the end of one."""
        return len(self._next) + len(self._joined)

    def _forget(self, future: asyncio.Future[int]) -> None:
        """A round may last as long as there is no leader: who has given up is not kept until then."""
        self._next.pop(future, None)
        self._joined.pop(future, None)

    def _set_timer(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at_s
        self._timer = self._loop.call_at(at_s, self._expire) if at_s < inf else None

    def _expire(self) -> None:
        """Whose time is over is told so; the timer is set for the next one."""
        now_s = self._loop.time()
        waiting = [*self._joined.items(), *self._next.items()]
        for future, end_s in waiting:
            if end_s <= now_s and not future.done():
                future.set_exception(RequestTimeout("the call did not end in time"))
        next_s = min((end_s for _, end_s in waiting if end_s > now_s), default=inf)
        self._set_timer(max(next_s, now_s + EXPIRY_S))  # not once for each of thousands that came one after the other

    async def _run(self) -> None:
        try:
            while self._next:
                # Everything that became ready in this turn may still join; the round itself starts after that.
                await asyncio.sleep(0)
                self._joined, self._next = self._next, {}
                try:
                    index = await self._ask()
                except Exception as error:  # whatever it is, those who wait are told
                    for future in self._joined:
                        if not future.done():
                            future.set_exception(own(error))
                else:
                    for future in self._joined:
                        if not future.done():
                            future.set_result(index)
                self._joined = {}
        finally:
            self._task = None

    async def close(self, error: HiqliteError) -> None:
        self._set_timer(inf)
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.fail(error)

    def fail(self, error: HiqliteError) -> None:
        """Who waits now gets `error`."""
        for future in (*self._joined, *self._next):
            if not future.done():
                future.set_exception(own(error))
                future.exception()  # the caller may be gone; a close is no reason for a warning about it
        self._joined, self._next = {}, {}


async def until_next(event: asyncio.Event, timeout_s: float) -> None:
    """Until `event` is set from now on, or the time is over."""
    event.clear()
    # Not `wait_for`: until Python 3.12 that loses a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
