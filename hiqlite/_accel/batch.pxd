# Futures and buffers of one loop turn; the meaning stands in batch.pyx.
from libc.stdint cimport uint64_t

from hiqlite._accel.session cimport SessionWindow
from hiqlite._accel.values cimport Encoder


cdef class Op:
    cdef public bint _asyncio_future_blocking  # asyncio's own protocol for awaitables it did not make
    cdef readonly object loop
    cdef object callback                       # first waiter and its context: nearly always the only one
    cdef object context
    cdef list more                             # further (callback, context) pairs
    cdef object value
    cdef object error
    cdef int state                             # PENDING, DONE, CANCELLED
    cdef readonly long long deadline_ns        # monotonic; 0: none
    cdef readonly object decode                # (answer, log_index, detail) -> value; None: a single execute
    cdef readonly object detail                # what decode needs: the SQL text, the texts of a txn ...
    cdef SessionWindow session                 # while the write waits for an answer, if it is one of a session
    cdef uint64_t sequence
    cdef public bint uncertain                 # a try before this one may stand in a log
    cdef public bint repeatable                # may be tried again outside of a session, too
    cdef uint64_t take_place(self, SessionWindow session) except 0
    cdef int leave(self) except -1
    cdef int take_answer(self, bytes answer, uint64_t log_index, int in_task) except -1
    cdef int wake(self, int in_task=*) except -1


cdef class Batch:
    cdef readonly int count
    cdef readonly Py_ssize_t size_bytes
    cdef readonly list ops
    cdef bytes data
    cdef bint sealed


cdef class ProposalBuffer:
    cdef Encoder encoder
    cdef list ops
    cdef object ready
    cdef readonly Py_ssize_t queued_bytes
    cdef readonly Py_ssize_t batch_bytes_max
    cdef int close_batch(self) except -1
    cdef int after_record(self, Py_ssize_t start, object op) except -1


cdef int add_late(list late, list ops, long long now_ns) except -1
