"""Feeds committed entries to the state machine, in order, from memory or from the log, bounded in bytes.

Knows indexes and bytes. Invariant: `submitted` only grows, by ranges without gaps, and never passes what the engine
has released.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hiqlite._accel.records import slice_records
from hiqlite.engine.ports import LogStore, Run, StateMachine
from hiqlite.errors import StorageError

from .marks import Marks
from .window import Window

# Bytes handed over as one submission; the state machine cuts its transactions itself.
SUBMIT_BYTES = 1 << 20
# Where nobody waits for an entry, runs are at least this far apart: a page that several batches touch is then written
# once (performance.md, "pages, not rows"), and the processor is left to the acknowledgements. It bounds how much later
# than its log a follower's local reads see a write under load; a write that comes alone is applied at once.
UNHURRIED_S = 0.005
UNHURRIED_ENTRIES = 1024
# A state machine that stopped by itself (a full disk, no memory) is asked to go on this often.
RETRY_S = 1.0


class Applier:
    """One state machine's feed.

    Args:
        queue_bytes_max: what may wait in the state machine before this feed pauses.
        fail: told once when a read of the log failed.
        stopped: told why the state machine stopped by itself, again at each failed retry; None once it goes on.
    """

    def __init__(
        self,
        machine: StateMachine,
        log_store: LogStore,
        window: Window,
        queue_bytes_max: int,
        loop: asyncio.AbstractEventLoop,
        *,
        fail: Callable[[StorageError], None],
        stopped: Callable[[StorageError | None], None],
    ) -> None:
        self._machine = machine
        self._log_store = log_store
        self._window = window
        self._queue_bytes_max = queue_bytes_max
        self._loop = loop
        self._fail = fail
        self._stopped = stopped
        self._retry: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._fed_at = 0.0  # loop time of the last submission
        self._target = machine.applied_index
        self._held_from = 0  # nothing is handed over from here on; 0: no bound
        self.marks = Marks()
        self._answers = False
        self.has_runs = False  # the machine applied within `feed`: `take` gives it without another turn of the loop
        self._term_at: Callable[[int], int] = lambda index: 0
        self._replay: asyncio.Task[None] | None = None
        self._closed = False
        self._paused = False
        self.marks.forget()
        self.submitted = machine.applied_index
        self.applied_index = machine.applied_index

    def begin(self, term_at: Callable[[int], int]) -> None:
        """The engine is there: `term_at` tells the term of an index of its log. The feed begins behind the machine."""
        self._term_at = term_at
        self.submitted = self.applied_index = self._target = self._machine.applied_index

    def commit(self, index: int, *, answers: bool) -> None:
        """Everything up to `index` is committed and written here."""
        if index > self._target:
            self._target = index
        self._answers = answers

    def hold(self, index: int) -> None:
        """Hand over nothing from `index` on until it is called again; 0: all that is committed."""
        self._held_from = index
        self._feed()

    def feed(self, *, urgent: bool) -> None:
        """Hand over what is committed: now, or, when nobody waits for it here, once a little more has gathered."""
        if self.submitted >= self._target:
            return
        waiting = self._limit - self.submitted
        if urgent or waiting > UNHURRIED_ENTRIES:
            self._feed()
        elif waiting > 0 and self._later is None and not self._closed:
            pause_s = self._fed_at + UNHURRIED_S - self._loop.time()
            if pause_s > 0:
                self._later = self._loop.call_later(pause_s, self._feed)
            else:
                self._feed()

    def take(self) -> Sequence[Run]:
        """Runs that were applied since the last call; whoever takes feeds on, when it knows who waits."""
        self.has_runs = False
        runs = self._machine.take()
        if runs:
            # Runs of a database that an image has replaced may still come: the index never goes back.
            self.applied_index = max(self.applied_index, runs[-1].last)
            self.marks.applied(self.applied_index)
        if self._machine.failure is not None and self._retry is None and not (self._closed or self._paused):
            self._say_why()
        return runs

    async def pause(self) -> None:
        """Feed nothing until `go_on`: the state machine is about to be another database."""
        self._paused = True
        if self._retry is not None:  # why it stopped is a matter of the database that it leaves
            self._retry.cancel()
            self._retry = None
            self._stopped(None)
        if self._replay is not None:
            self._replay.cancel()
            await asyncio.gather(self._replay, return_exceptions=True)
            self._replay = None  # a task that never began does not say so itself

    def go_on(self) -> None:
        """Feed on behind where the state machine stands now: an image took the place of what came before."""
        self._paused = False
        self.marks.forget()
        self.submitted = self.applied_index = self._machine.applied_index
        self._target = max(self._target, self.submitted)
        self._feed()

    async def close(self) -> None:
        """Feed no more; what was handed over is applied by the state machine's own close."""
        self._closed = True
        for timer in (self._retry, self._later):
            if timer is not None:
                timer.cancel()
        if self._replay is not None:
            self._replay.cancel()
            await asyncio.gather(self._replay, return_exceptions=True)

    def _try_again(self) -> None:
        """Until a whole pause has passed without a failure: nothing is lost, the machine repeats the run it undid."""
        if self._machine.failure is None:
            self._retry = None
            self._stopped(None)
            self._feed()
            return
        if self._say_why():
            self._machine.resume()

    def _say_why(self) -> bool:
        """Whether it is to be tried again, soon."""
        failure = self._machine.failure
        error = failure if isinstance(failure, StorageError) else StorageError(str(failure))
        if self._machine.broken:
            self._fail(error)
            return False
        self._stopped(error)
        self._retry = self._loop.call_later(RETRY_S, self._try_again)
        return True

    @property
    def _limit(self) -> int:
        limit = min(self._target, self._held_from - 1) if self._held_from else self._target
        return min(limit, self.marks.stops_at or limit)

    def _feed(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        while self._replay is None and self.submitted < self._limit and not (self._closed or self._paused):
            if self._machine.queued_bytes > self._queue_bytes_max:
                return  # the next `take` feeds on
            first = self.submitted + 1
            if not self._window.covers(first):
                self._replay = self._loop.create_task(self._read_log())
                return
            last = min(self._window.last_within(first, SUBMIT_BYTES), self._limit)
            pieces = self._window.pieces(first, last)
            if self.marks.expected and 0 < (mark := self.marks.find(pieces)) < last:
                last, pieces = mark, self._window.pieces(first, mark)
            self._submit(first, last, pieces)

    def _submit(self, first: int, last: int, pieces: list[bytes]) -> None:
        self._fed_at = self._loop.time()
        if self._machine.submit(first, last, self._term_at(last), pieces, self._answers):
            self.has_runs = True
        self.submitted = last

    async def _read_log(self) -> None:
        """Entries that are no longer in memory: after a start, or when the window was evicted under load."""
        try:
            first = self.submitted + 1
            last, records = await self._log_store.read(first, SUBMIT_BYTES)
            if last > self._limit:
                last = self._limit  # it only grows: a bound is set before anything from it on is committed
                records = slice_records(records, first, first, last)
            if self.marks.expected and 0 < (mark := self.marks.find([records])) < last:
                last, records = mark, slice_records(records, first, first, mark)
            self._submit(first, last, [records])
        except Exception as error:
            self._fail(error if isinstance(error, StorageError) else StorageError(f"committed entries: {error!r}"))
            return
        finally:
            self._replay = None
        self._feed()
