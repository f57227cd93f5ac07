"""Futures in bulk, and the log batching: one buffer per loop turn.

`Op` is the future of one write; it keeps asyncio's future protocol and also passes for a coroutine, so it can be
awaited, gathered, given to `create_task` or `wait_for`. `ProposalBuffer` collects the encoded records of all writes
that were issued in one turn; `Batch` is what one turn gave to the log.

Must not know: Raft, sockets, files; it starts no event loop. Invariant: every Op that was put into a buffer is
resolved exactly once, by completion, failure or its own cancellation.
"""

import asyncio
from asyncio import CancelledError, InvalidStateError
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t

from hiqlite._accel.answers import decode_execute
from hiqlite._accel.commands cimport append_execute
from hiqlite._accel.records cimport seal_run
from hiqlite._accel.session cimport SessionWindow
from hiqlite._accel.values cimport Encoder

from hiqlite.errors import SessionExpired, with_outcome

cdef extern from "forks.h" nogil:
    int hq_forks
    int hq_forks_watch()

if hq_forks_watch():
    raise MemoryError

cdef enum:
    UNKNOWN = -1

cdef enum:
    PENDING = 0
    DONE = 1
    CANCELLED = 2


cdef class Op:
    """The future of one write.

    Args:
        loop: the running event loop.
        decode: turns (answer bytes, log index, detail) into the value, or raises; None for a single `execute`.
        detail: handed to `decode` as it is.
        deadline_ns: monotonic time after which the caller no longer waits; 0 for none.
    """

    def __init__(self, loop, decode=None, detail=None, long long deadline_ns=0):
        self.loop = loop
        self.decode = decode
        self.detail = detail
        self.deadline_ns = deadline_ns

    # -- awaiting: as a future for `await`, as a coroutine for `create_task`
    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.state == PENDING:
            self._asyncio_future_blocking = True
            return self
        raise StopIteration(self.result())

    def send(self, value):
        return self.__next__()

    def throw(self, kind, value=None, traceback=None):
        if value is None:
            value = kind if isinstance(kind, BaseException) else kind()
        raise value

    def close(self):
        """Part of the coroutine protocol; a write that was issued is not taken back."""

    # -- asyncio's future protocol
    def get_loop(self):
        return self.loop

    def done(self):
        return self.state != PENDING

    def cancelled(self):
        return self.state == CANCELLED

    def result(self):
        if self.state == DONE:
            if self.error is not None:
                raise self.error
            return self.value
        if self.state == CANCELLED:
            raise CancelledError()
        raise InvalidStateError("the write has not been answered yet")

    def exception(self):
        if self.state == DONE:
            return self.error
        if self.state == CANCELLED:
            raise CancelledError()
        raise InvalidStateError("the write has not been answered yet")

    def add_done_callback(self, callback, *, context=None):
        if self.state != PENDING:
            self.loop.call_soon(callback, self, context=context)
        elif self.callback is None:
            self.callback = callback
            self.context = context
        else:
            if self.more is None:
                self.more = []
            self.more.append((callback, context))

    def remove_done_callback(self, callback):
        cdef int removed = 0
        if self.callback == callback:
            self.callback = None
            self.context = None
            removed = 1
        if self.more is not None:
            kept = [pair for pair in self.more if pair[0] != callback]
            removed += len(self.more) - len(kept)
            self.more = kept
        return removed

    def cancel(self, msg=None):
        """Stop waiting. The write itself goes on; whether it happens is unknown to the caller."""
        if self.state != PENDING:
            return False
        self.state = CANCELLED
        self.leave()
        # Called from inside a task step (Task.cancel), so the waiters run in a turn of their own.
        self.schedule()
        return True

    # -- its session
    def keep_in(self, SessionWindow session not None):
        """It is a write of `session` from now on; its sequence."""
        return self.take_place(session)

    cdef uint64_t take_place(self, SessionWindow session) except 0:
        self.sequence = session.take()
        self.session = session
        if self.state != PENDING:
            self.leave()
        return self.sequence

    @property
    def retries(self):
        """Whether it may be sent again though an earlier try may have been applied."""
        return self.state == PENDING and (self.repeatable or (self.session is not None and self.session.id != 0))

    cdef int leave(self) except -1:
        cdef SessionWindow session = self.session
        if session is not None:
            self.session = None
            session.over(self.sequence)
        return 0

    # -- resolving
    def set_result(self, value):
        if self.state == PENDING:
            self.value = value
            self.state = DONE
            self.leave()
            self.wake()

    def set_exception(self, error):
        """What is not applied by this try may be by an earlier one: then its outcome is unknown."""
        if self.state == PENDING:
            if self.uncertain and getattr(error, "outcome", None) == "not_applied":
                error = with_outcome(error, "unknown")
            self.error = error
            self.state = DONE
            self.leave()
            self.wake()

    def answer(self, bytes answer, uint64_t log_index):
        """Resolve with what applying the entry at `log_index` gave."""
        self.take_answer(answer, log_index, UNKNOWN)

    cdef int take_answer(self, bytes answer, uint64_t log_index, int in_task) except -1:
        if self.state != PENDING:
            return 0
        try:
            if self.decode is None:
                self.value = decode_execute(answer, log_index, self.detail)
            else:
                self.value = self.decode(answer, log_index, self.detail)
        except BaseException as error:  # whatever a caller's own `into` raises is that caller's
            if self.session is not None and isinstance(error, SessionExpired):
                self.session.end()
                if not self.uncertain:  # there was this try only, and it did nothing
                    error.outcome, error.retryable = "not_applied", True
            self.error = error
        self.state = DONE
        self.leave()
        return self.wake(in_task)

    def schedule(self):
        callback, context, more = self.callback, self.context, self.more
        self.callback = self.context = self.more = None
        if callback is not None:
            self.loop.call_soon(callback, self, context=context)
        if more is not None:
            for callback, context in more:
                self.loop.call_soon(callback, self, context=context)

    cdef int wake(self, int in_task=UNKNOWN) except -1:
        """Run the waiters now: all waiters of a run resume in the turn that completed it.

        Only a loop callback may do so; inside a task's step another task cannot be stepped. What a waiter raises, and
        be it SystemExit, is raised by the loop's next turn: here it would leave all others of the run untold.
        `in_task`: whether a task is being stepped, if the caller knows.
        """
        cdef object callback = self.callback
        cdef object context = self.context
        if callback is None and self.more is None:
            return 0
        if in_task == UNKNOWN:
            in_task = asyncio.current_task(self.loop) is not None
        if self.more is not None or context is None or in_task:
            self.schedule()
            return 0
        cdef int process = hq_forks
        self.callback = None
        self.context = None
        try:
            context.run(callback, self)
        except BaseException as error:
            if process != hq_forks:
                raise  # in a child that was forked by it: whoever else waits here is the parent's
            self.loop.call_soon(raise_again, error)
        return 0


def raise_again(error):
    """The loop does with it what it does with what any callback raises: SystemExit and KeyboardInterrupt end it."""
    raise error


cdef class Batch:
    """Records that go to the log and to the peers together; `seal` fills in what the leader sets."""

    @property
    def data(self):
        return self.data

    def seal(self, uint64_t term, uint64_t first, int64_t group_time_ns, int64_t wall_time_ns, uint64_t seed):
        """The records as they will be replicated. Called once; the bytes object is patched while nobody shares it."""
        if self.sealed:
            raise ValueError("a batch is sealed once")
        self.sealed = True
        seal_run(<uint8_t*>PyBytes_AS_STRING(self.data), PyBytes_GET_SIZE(self.data), term, first, group_time_ns,
                 wall_time_ns, seed)
        return self.data


cdef class ProposalBuffer:
    """Records waiting to be proposed, cut into batches of at most `batch_bytes_max` (a single larger record stands alone)."""

    def __init__(self, Py_ssize_t batch_bytes_max):
        self.encoder = Encoder()
        self.ops = []
        self.ready = deque()
        self.batch_bytes_max = batch_bytes_max

    def execute(self, bytes text, params, Op op, Py_ssize_t size_max=0x7FFFFFFF, SessionWindow session=None, int flags=0):
        """Encode one statement in place, as a write of `session` if there is one; `flags` of its command.

        Returns:
            False when its record is larger than `size_max`: then nothing was added, as after an error.

        Raises:
            ParameterError, UsageError: it cannot be encoded.
        """
        cdef Py_ssize_t start = self.encoder.size
        if session is None:
            append_execute(self.encoder, text, params, flags, 0, 0, 0)
        else:
            append_execute(self.encoder, text, params, flags, session.id, session.next, session.low)
        if self.encoder.size - start > size_max:
            self.encoder.size = start
            return False
        if session is not None:
            op.take_place(session)
        self.after_record(start, op)
        return True

    def put(self, bytes record, op):
        """Add a complete record, encoded elsewhere."""
        cdef Py_ssize_t start = self.encoder.size
        self.encoder.put_raw(<const uint8_t*>PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record))
        self.after_record(start, op)

    cdef int after_record(self, Py_ssize_t start, object op) except -1:
        cdef bytes tail
        self.queued_bytes += self.encoder.size - start
        if self.encoder.size > self.batch_bytes_max and start > 0:
            tail = PyBytes_FromStringAndSize(<char*>self.encoder.data + start, self.encoder.size - start)
            self.encoder.size = start
            self.close_batch()
            self.encoder.put_raw(<const uint8_t*>PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail))
        self.ops.append(op)
        return 0

    cdef int close_batch(self) except -1:
        cdef Batch batch = Batch.__new__(Batch)
        batch.ops = self.ops
        batch.count = <int>len(self.ops)
        batch.size_bytes = self.encoder.size
        batch.data = PyBytes_FromStringAndSize(<char*>self.encoder.data, self.encoder.size)
        self.ready.append(batch)
        self.ops = []
        self.encoder.size = 0
        return 0

    def __len__(self):
        cdef int total = <int>len(self.ops)
        for batch in self.ready:
            total += (<Batch>batch).count
        return total

    def __bool__(self):
        return bool(self.ops) or bool(self.ready)

    def peek(self):
        """The next batch, or None; it stays in the buffer until `pop`."""
        if not self.ready:
            if not self.ops:
                return None
            self.close_batch()
        return self.ready[0]

    def pop(self):
        cdef Batch batch = self.ready.popleft()
        self.queued_bytes -= batch.size_bytes
        return batch

    def expired(self, long long now_ns):
        """Futures whose deadline has passed while they wait here; their records stay and are still proposed."""
        cdef list late = []
        for batch in self.ready:
            add_late(late, (<Batch>batch).ops, now_ns)
        add_late(late, self.ops, now_ns)
        return late


cdef int add_late(list late, list ops, long long now_ns) except -1:
    for op in ops:
        if isinstance(op, Op) and (<Op>op).state == PENDING and 0 < (<Op>op).deadline_ns <= now_ns:
            late.append(op)
    return 0
