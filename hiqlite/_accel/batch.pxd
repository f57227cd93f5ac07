# Futures and buffers of one loop turn; the meaning stands in batch.pyx.
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
    cdef int wake(self) except -1


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
    cdef readonly Py_ssize_t entry_bytes_max
    cdef int close_batch(self) except -1
    cdef int after_record(self, Py_ssize_t start, object op) except -1


cdef class Pending:
    cdef object batches
    cdef readonly int count
