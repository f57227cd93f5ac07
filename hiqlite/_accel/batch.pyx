"""Futures in bulk, and the log batching: one buffer per loop turn.

`Op` is the future of one write; it keeps asyncio's future protocol and also passes for a coroutine, so it can be
awaited, gathered, given to `create_task` or `wait_for`. `ProposalBuffer` collects the encoded records of all writes
that were issued in one turn; `Batch` is what one turn gave to the log; `Pending` knows which futures wait for which
log index and resolves those of a whole applied run in one pass.

Must not know: Raft, sockets, files; it starts no event loop. Invariant: every Op that was put into a buffer is
resolved exactly once, by completion, failure or its own cancellation.
"""

import asyncio
from asyncio import CancelledError, InvalidStateError
from collections import deque

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t

from hiqlite._accel.answers import decode_execute
from hiqlite._accel.commands cimport append_execute
from hiqlite._accel.records cimport seal_run
from hiqlite._accel.values cimport Encoder

from hiqlite.errors import UsageError

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
        # Called from inside a task step (Task.cancel), so the waiters run in a turn of their own.
        self.schedule()
        return True

    # -- resolving
    def set_result(self, value):
        if self.state == PENDING:
            self.value = value
            self.state = DONE
            self.wake()

    def set_exception(self, error):
        if self.state == PENDING:
            self.error = error
            self.state = DONE
            self.wake()

    def answer(self, bytes answer, uint64_t log_index):
        """Resolve with what applying the entry at `log_index` gave."""
        if self.state != PENDING:
            return
        try:
            if self.decode is None:
                self.value = decode_execute(answer, log_index, self.detail)
            else:
                self.value = self.decode(answer, log_index, self.detail)
        except Exception as error:
            self.error = error
        self.state = DONE
        self.wake()

    def schedule(self):
        callback, context, more = self.callback, self.context, self.more
        self.callback = self.context = self.more = None
        if callback is not None:
            self.loop.call_soon(callback, self, context=context)
        if more is not None:
            for callback, context in more:
                self.loop.call_soon(callback, self, context=context)

    cdef int wake(self) except -1:
        """Run the waiters now: all waiters of a run resume in the turn that completed it.

        Only a loop callback may do so; inside a task's step another task cannot be stepped.
        """
        cdef object callback = self.callback
        cdef object context = self.context
        if callback is None and self.more is None:
            return 0
        if self.more is not None or context is None or asyncio.current_task(self.loop) is not None:
            self.schedule()
            return 0
        self.callback = None
        self.context = None
        try:
            context.run(callback, self)
        except Exception as error:
            self.loop.call_exception_handler({"message": "callback of a write failed", "exception": error})
        return 0


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

    def __init__(self, Py_ssize_t batch_bytes_max, Py_ssize_t entry_bytes_max=0x7FFFFFFF):
        self.encoder = Encoder()
        self.ops = []
        self.ready = deque()
        self.batch_bytes_max = batch_bytes_max
        self.entry_bytes_max = entry_bytes_max

    def execute(self, bytes text, params, Op op):
        """Encode one statement in place. Raises ParameterError or UsageError, and then nothing was added."""
        cdef Py_ssize_t start = self.encoder.size
        cdef Py_ssize_t size
        append_execute(self.encoder, text, params, 0)
        size = self.encoder.size - start
        if size > self.entry_bytes_max:
            self.encoder.size = start
            raise UsageError(f"the write has {size} bytes, the limit is {self.entry_bytes_max}",
                             hint="split it, or raise max_entry_size")
        self.after_record(start, op)

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


cdef class Pending:
    """Which futures wait for which log indexes: closed ranges, ascending, never overlapping."""

    def __init__(self):
        self.batches = deque()

    def __len__(self):
        return self.count

    @property
    def batch_count(self):
        return len(self.batches)

    def add(self, uint64_t first, list ops):
        self.batches.append((first, ops))
        self.count += <int>len(ops)

    def complete(self, uint64_t last, run):
        """Resolve all that wait for an index `<= last`, with the answers of `run`."""
        cdef uint64_t first, index
        cdef uint64_t run_first = run.first, run_last = run.last
        cdef list ops
        answer = run.answer
        while self.batches:
            first, ops = self.batches[0]
            if first > last:
                break
            self.batches.popleft()
            if first + len(ops) - 1 > last:
                self.batches.appendleft((last + 1, ops[last + 1 - first:]))
                ops = ops[:last + 1 - first]
            self.count -= <int>len(ops)
            index = first
            for op in ops:
                if op is not None and run_first <= index <= run_last:
                    op.answer(answer(index), index)
                index += 1

    @cython.wraparound(True)
    def cut_from(self, uint64_t index):
        """Take out all that wait for an index `>= index`; their entries are gone. Returns the futures."""
        cdef uint64_t first
        cdef list ops, lost = []
        while self.batches:
            first, ops = self.batches[-1]
            if first + len(ops) <= index:
                break
            self.batches.pop()
            if first < index:
                self.batches.append((first, ops[:index - first]))
                ops = ops[index - first:]
            self.count -= <int>len(ops)
            lost[:0] = [op for op in ops if op is not None]
        return lost

    def expired(self, long long now_ns):
        """Futures whose deadline has passed; they stay in place, resolving them twice does nothing."""
        cdef list late = []
        for _, ops in self.batches:
            add_late(late, ops, now_ns)
        return late


cdef int add_late(list late, list ops, long long now_ns) except -1:
    for op in ops:
        if isinstance(op, Op) and (<Op>op).state == PENDING and 0 < (<Op>op).deadline_ns <= now_ns:
            late.append(op)
    return 0
