"""Native reader threads: a read is handed over as bytes and comes back as chunks of encoded rows.

The threads never take the GIL and never make a Python object; rows are decoded here, on the loop's thread, in
slices. Must not know the event loop: it watches `fileno()` and asks for `news()`. Invariant: a job that nobody
holds any more is stopped, and its memory is freed when its thread is done with it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free

from hiqlite._accel.reads cimport HQ_READ_OK, hq_guard_api, hq_reads_have_api, hq_reads_now_ns, sqlite3
from hiqlite._accel.values cimport Columns, hq_cursor, hq_get_u16, hq_get_u32, read_rows

import os

from hiqlite._accel.plain.read_errors import of_read, read_error
from hiqlite._accel.plain.read_params import checked_text, encoded
from hiqlite.errors import Overloaded, ShuttingDown, StorageError, UsageError

cdef extern from "forks.h" nogil:
    int hq_forks
    int hq_forks_watch()

__all__ = ["CHUNK", "ENDED", "LATER", "MORE", "ReadJob", "ReaderPool", "have_api"]

# What `ReadJob.take` answers: MORE can be taken at once, LATER after the next news, a CHUNK is complete (when asked
# for chunks), or the read has ENDED.
MORE, LATER, CHUNK, ENDED = range(4)


cdef enum:
    CELLS_PER_LOOK = 256         # decoded between two looks at the clock
    BYTES_PER_LOOK = 65536
    NEWS_MAX = 64
    STATEMENTS_PER_THREAD = 32   # few: what comes here is long, so preparing it is not what costs


def have_api():
    """Whether SQLite's API was handed over (a connection has loaded this module as an extension)."""
    return bool(hq_reads_have_api())


@cython.final
@cython.no_gc_clear  # it needs its connections to the end
cdef class ReaderPool:
    """Threads with a connection each, and one bounded queue before them.

    Args:
        queue_max, queue_bytes_max: jobs that wait for a thread, and the bytes of their texts and parameters.
        waiting_bytes_max: encoded rows that wait to be taken, of all jobs together.
    """

    cdef hq_pool *pool
    cdef object __weakref__
    cdef list connections        # kept open until the threads have ended
    cdef uint64_t last_token
    cdef readonly bint closed
    cdef int forks

    def __cinit__(self, *, int queue_max=1024, size_t queue_bytes_max=64 << 20, size_t waiting_bytes_max=512 << 20):
        if not hq_reads_have_api():
            raise StorageError("the readpool extension was not loaded into SQLite")
        if hq_forks_watch():
            raise MemoryError()
        self.forks = hq_forks
        self.connections = []
        self.pool = hq_pool_new(queue_max, queue_bytes_max, waiting_bytes_max)
        if self.pool == NULL:
            raise MemoryError()

    def __dealloc__(self):
        if self.pool == NULL:
            return
        if self.forks != hq_forks:
            Py_INCREF(self.connections)  # the parent's, like the threads
            return
        hq_pool_close(self.pool)
        if hq_pool_join(self.pool, 0) > 0:
            Py_INCREF(self.connections)  # a thread still steps: its connection must outlive it, so it is never freed
        hq_pool_release(self.pool)

    def add_thread(self, connection, uintptr_t db_pointer, uintptr_t guard_address=0):
        """One more thread, to which `connection` (its `sqlite3*` is `db_pointer`) belongs until it has ended."""
        cdef int failure = hq_pool_add_thread(
            self.pool, <sqlite3 *>db_pointer, <const hq_guard_api *>guard_address, STATEMENTS_PER_THREAD
        )
        if failure:
            raise StorageError(f"cannot start a reader thread: {os.strerror(failure)}")
        self.connections.append(connection)

    cdef int check(self) except -1:
        if self.forks != hq_forks:
            raise of_read(UsageError("these readers were opened before a fork; only the parent may use them"))
        return 0

    def fileno(self):
        """Readable when there is news."""
        return hq_pool_fileno(self.pool)

    def submit(
        self, sql, params, *, bint iterate=False, int64_t limit_ns=0, int64_t idle_ns=0, size_t chunk_bytes=262144,
        size_t result_bytes_max=256 << 20, bint bytes_for_bad_text=False,
    ):
        """Hands a read over; a job comes back at once.

        Args:
            limit_ns: time until the deadline, 0 for none; idle_ns: of an iteration.
            chunk_bytes: rows come in chunks of about this size; result_bytes_max: of all of them.

        Raises:
            UsageError, ParameterError: what is wrong is known before SQLite is asked.
            Overloaded: the queue is full. ShuttingDown: the pool is closed.
        """
        self.check()
        cdef bytes text = checked_text(sql)
        cdef ReadJob handle = ReadJob.__new__(ReadJob)
        cdef hq_job *job
        cdef int answer
        body, count, named = encoded(params)
        job = hq_job_new(
            PyBytes_AS_STRING(text), <int>PyBytes_GET_SIZE(text),
            <const uint8_t *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body),
        )
        if job == NULL:
            raise MemoryError()
        self.last_token += 1
        handle.job = job
        handle.pool = self
        handle.sql = sql
        handle.bytes_for_bad_text = bytes_for_bad_text
        job.token = self.last_token
        job.kind = HQ_JOB_ITERATE if iterate else HQ_JOB_QUERY
        job.demand = 1
        job.deadline_ns = hq_reads_now_ns() + limit_ns if limit_ns > 0 else 0
        job.idle_ns = idle_ns
        job.chunk_bytes = max(chunk_bytes, <size_t>1024)
        job.result_bytes_max = result_bytes_max
        job.parameter_count = count
        job.named = named
        answer = hq_pool_submit(self.pool, job)
        if answer == HQ_OVERLOADED:
            raise of_read(Overloaded("too many reads wait for a reader thread"))
        if answer != HQ_SUBMITTED:
            raise of_read(ShuttingDown("the readers are closed"))
        return handle

    def news(self):
        """Tokens of the jobs that have rows or have ended since the last call."""
        cdef uint64_t tokens[NEWS_MAX]
        cdef int i, count
        cdef list found = []
        self.check()
        while True:
            count = hq_pool_news(self.pool, tokens, NEWS_MAX)
            for i in range(count):
                found.append(tokens[i])
            if count < NEWS_MAX:
                return found

    def close(self):
        """Refuses new jobs, stops the others; the threads end. Does not wait. In a forked child nothing happens."""
        self.closed = True
        if self.forks == hq_forks:
            hq_pool_close(self.pool)

    def join(self, double limit_s):
        """Waits for the threads; how many are still alive. Connections of a pool without threads may be closed.

        In a forked child all of them are, for ever: in the parent.
        """
        cdef int64_t limit_ns = <int64_t>(limit_s * 1e9)
        cdef int alive
        if self.forks != hq_forks:
            return len(self.connections)
        with nogil:
            alive = hq_pool_join(self.pool, limit_ns)
        return alive

    def take_connections(self):
        """The connections, to be closed by the caller, once no thread is alive; else none."""
        if self.forks != hq_forks or hq_pool_join(self.pool, 0) > 0:
            return []
        taken, self.connections = self.connections, []
        return taken

    def counts(self):
        """Numbers for metrics."""
        cdef hq_pool_counts counts
        self.check()
        hq_pool_count(self.pool, &counts)
        return counts


@cython.final
@cython.no_gc_clear  # it needs its pool to the end
cdef class ReadJob:
    """One read under way on a reader thread."""

    cdef hq_job *job
    cdef ReaderPool pool
    cdef Columns columns
    cdef hq_chunk *chunk      # being decoded
    cdef hq_cursor at         # in its bytes
    cdef uint32_t rows_left   # in it
    cdef str sql
    cdef bint bytes_for_bad_text

    def __dealloc__(self):
        if self.pool is not None and self.pool.forks != hq_forks:
            return
        free(self.chunk)
        if self.job != NULL:
            hq_pool_stop_job(self.pool.pool, self.job, HQ_STOP_CANCELLED)
            hq_job_release(self.job)

    @property
    def token(self):
        """By which `news()` calls it."""
        return self.job.token

    def demand(self):
        """One more chunk may be produced (iterations only)."""
        self.pool.check()
        hq_pool_demand(self.pool.pool, self.job, 1)

    def touch(self):
        """A row is taken: who iterates is not idle."""
        hq_job_touch(self.job)

    def cancel(self):
        """Stops it: SQLite is interrupted, rows not taken are dropped."""
        self.stop(HQ_STOP_CANCELLED)

    def expire(self):
        """Stops it because its time limit has passed."""
        self.stop(HQ_STOP_DEADLINE)

    def expire_queued(self):
        """The same, if no thread has begun it."""
        if self.pool.forks == hq_forks:
            hq_pool_stop_queued(self.pool.pool, self.job, HQ_STOP_DEADLINE)

    cdef void stop(self, int why) noexcept:
        if self.pool.forks == hq_forks:  # else it goes on, in the parent
            hq_pool_stop_job(self.pool.pool, self.job, why)

    def take(self, list rows not None, int64_t slice_ns, bint one_chunk=False):
        """Decodes rows that have come into `rows`, for about `slice_ns`.

        Args:
            one_chunk: stop with CHUNK at the end of each chunk, so that the caller can hand it on.

        Returns:
            MORE, LATER, CHUNK or ENDED.

        Raises:
            HiqliteError: the read has failed; everything taken so far is to be thrown away.
        """
        cdef int64_t until = hq_reads_now_ns() + slice_ns
        cdef bint finished
        self.pool.check()
        while True:
            if self.chunk == NULL:
                finished = self.next_chunk()
                if self.chunk == NULL:
                    return self.outcome() if finished else LATER
            self.decode(rows)
            if self.rows_left == 0:
                free(self.chunk)
                self.chunk = NULL
                if one_chunk:
                    return CHUNK
            if hq_reads_now_ns() >= until:
                return MORE

    cdef bint next_chunk(self) except -1:
        """Makes the next chunk current, if one has come; whether the job is done (and no other can follow)."""
        cdef int state = 0
        self.chunk = hq_pool_fetch(self.pool.pool, self.job, &state)
        if self.chunk == NULL:
            return state == HQ_JOB_DONE
        if self.columns is None:
            self.columns = column_names(self.job.names, self.job.names_size)
        self.at.p = self.chunk.data
        self.at.end = self.chunk.data + self.chunk.size
        self.rows_left = self.chunk.rows
        return False

    cdef int decode(self, list rows) except -1:
        cdef uint64_t count = self.rows_left
        cdef uint64_t by_cells = CELLS_PER_LOOK // <uint64_t>max(1, len(self.columns))
        cdef uint64_t by_bytes = BYTES_PER_LOOK // (self.chunk.size // self.chunk.rows + 1)
        count = min(count, max(<uint64_t>1, min(by_cells, by_bytes)))
        rows.extend(read_rows(&self.at, count, self.columns, self.bytes_for_bad_text))
        self.rows_left -= <uint32_t>count
        return 0

    cdef int outcome(self) except -1:
        if self.job.error.kind == HQ_READ_OK:
            return ENDED
        text = self.job.error.text.decode("utf-8", "replace")
        raise read_error(self.job.error.kind, self.job.error.code, text, self.sql)


cdef Columns column_names(const uint8_t *at, size_t size):
    """Column names as hq_column_names wrote them."""
    cdef const uint8_t *end = at + size
    cdef list names = []
    cdef uint32_t count = hq_get_u32(at), length
    at += 4
    for _ in range(count):
        assert end - at >= 2
        length = hq_get_u16(at)
        assert end - at - 2 >= length
        names.append((<const char *>at + 2)[:length].decode("utf-8", "replace"))
        at += 2 + length
    return Columns(names)
