"""Applies committed entries to a SQLite connection on a native thread, without the GIL (native/apply.h).

This very module is a SQLite extension: `load(connection)` makes the SQLite inside apsw hand it its table of functions.
An `Applier` owns the connection from `__init__` to `close`: nobody else may step a statement on it meanwhile.

Must not know: asyncio, Raft, what becomes of an answer. Invariant: the bytes objects of a submission are kept alive until
no native code looks at them any more; they are let go in `take`, `close` or deallocation, under the GIL.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint32_t, uint8_t, uint64_t, uintptr_t
from libc.string cimport memset
from posix.unistd cimport usleep

from hiqlite._accel.apply_native cimport (
    HQ_ANSWER_BYTES_MAX, HQ_CHECKPOINT_OVERDUE, HQ_CHECKPOINT_PAGES, HQ_GUARD_API_VERSION, HQ_HASH_EVERY,
    HQ_HASH_KEPT, HQ_STOP_DRAINED, HQ_STOP_NOW, HQ_TRIAL_WRITES_MAX, HQ_TRY_ASKED, HQ_TRY_MEMORY, HQ_OUT_OF_DISK,
    HQ_OUT_OF_MEMORY, SQLITE_CHECKPOINT_TRUNCATE, free, hq_apply, hq_apply_close, hq_apply_loaded, hq_apply_open,
    hq_checkpoint, hq_checkpoint_ask, hq_checkpointer_use, hq_failure, hq_forks, hq_forks_watch, hq_guard_api, hq_job,
    hq_job_new, hq_look, hq_queue, hq_queue_close, hq_queue_failure, hq_queue_cancel_trial, hq_queue_inline,
    hq_queue_join, hq_queue_open, hq_queue_predict_ns, hq_queue_resume, hq_queue_set_synced, hq_queue_start,
    hq_queue_stop, hq_queue_stopped, hq_queue_submit, hq_queue_take, hq_queue_trial_ended, hq_queue_try,
    hq_run_result, hq_run_result_free, hq_trial, hq_tried, sqlite3,
)
from hiqlite.errors import UsageError

ANSWER_BYTES_MAX = HQ_ANSWER_BYTES_MAX
HASH_EVERY = HQ_HASH_EVERY
TRIAL_WRITES_MAX = HQ_TRIAL_WRITES_MAX
CHECKPOINT_PAGES = HQ_CHECKPOINT_PAGES
CHECKPOINT_OVERDUE_PAGES = HQ_CHECKPOINT_OVERDUE

cdef enum:
    CPUS_MAX = 256


def extension_path():
    """Path of the shared library that SQLite loads."""
    return __file__


def load(connection):
    """Loads this module as a SQLite extension through an `apsw.Connection`; needed once per process, harmless again."""
    connection.enable_load_extension(True)
    try:
        connection.load_extension(__file__, "sqlite3_apply_init")
    finally:
        connection.enable_load_extension(False)


include "apply_jobs.pxi"


@cython.no_gc_clear  # it needs its connection to the end
cdef class Applier:
    """Owner of the writer connection: applies runs of committed entries, each run one transaction.

    Args:
        db_pointer: the `sqlite3 *` of a connection opened by `statemachine.connection.open_writer`; it must stay open
            until `close`.
        guard_address: `guard.api_address()`.
        statement_cache: how many prepared statements are kept.
        connection: kept alive until this object goes, so that the pointer cannot dangle.

    Raises:
        RuntimeError: the extension was not loaded, or the guard speaks another version.
        OSError: the internal tables cannot be read or created; `errno` is SQLite's extended code.
    """

    cdef hq_apply *worker
    cdef hq_queue *queue
    cdef object connection
    cdef int forks

    def __cinit__(self):
        self.worker = NULL
        self.queue = NULL
        if hq_forks_watch():
            raise MemoryError
        self.forks = hq_forks

    def __init__(self, uintptr_t db_pointer, uintptr_t guard_address, uint32_t statement_cache=1000, connection=None):
        cdef const hq_guard_api *guard = <const hq_guard_api *>guard_address
        cdef hq_failure why
        if self.queue != NULL:
            raise RuntimeError("an Applier is initialised once")
        if not hq_apply_loaded():
            raise RuntimeError("the apply extension was not loaded into SQLite")
        if guard == NULL or guard.version != HQ_GUARD_API_VERSION:
            raise RuntimeError("the guard extension is of another version")
        why.code = 0
        self.connection = connection
        self.worker = hq_apply_open(<sqlite3 *>db_pointer, guard, statement_cache, &why)
        if self.worker == NULL:
            if why.code == 0:
                raise MemoryError
            raise OSError(why.code, text_of(why.message))
        self.queue = hq_queue_open(self.worker)
        if self.queue == NULL:
            hq_apply_close(self.worker)
            self.worker = NULL
            raise MemoryError

    def __dealloc__(self):
        if self.queue != NULL and self.forks == hq_forks:  # else its threads, and the connection, are the parent's
            self.finish()

    cdef hq_queue *open_queue(self) except NULL:
        if self.queue == NULL:
            raise ValueError("the applier is closed")
        if self.forks != hq_forks:
            raise UsageError("this database was opened before a fork; only the parent may use it")
        return self.queue

    cdef int finish(self) except -1:
        """Ends the thread, whatever it does, and gives up everything that is of this connection."""
        cdef hq_queue *queue = self.open_queue()
        cdef hq_apply *worker = self.worker
        self.queue = NULL
        self.worker = NULL
        with nogil:
            hq_queue_stop(queue, HQ_STOP_NOW)
            while not hq_queue_stopped(queue):  # an interrupt between two statements is lost, so it is repeated
                usleep(1000)
                hq_queue_stop(queue, HQ_STOP_NOW)
            hq_queue_join(queue)
            hq_apply_close(worker)
        forget_jobs(hq_queue_close(queue))
        return 0

    # -- life

    def checkpoint_beside(self, copier):
        """Before `start`: one more connection to the same database, on which a thread of its own checkpoints while entries
        are applied. It is kept alive until this object is closed, and is nobody else's meanwhile."""
        cdef uintptr_t address = copier.sqlite3_pointer()
        hq_checkpointer_use(self.open_queue(), <sqlite3 *>address)
        self.connection = (self.connection, copier)

    def start(self, cpus=()):
        """Starts the thread, on the given CPUs if any are named. Without it only `apply_inline` applies."""
        cdef int numbers[CPUS_MAX]
        cdef int count = 0, rc
        for cpu in cpus:
            if count == CPUS_MAX:
                raise ValueError("too many CPUs")
            numbers[count] = cpu
            count += 1
        rc = hq_queue_start(self.open_queue(), numbers, count)
        if rc:
            raise OSError(rc, "the apply thread could not be started or pinned")

    def stop(self, *, bint now=False):
        """Asks the thread to end: after the queue is empty, or `now`, which interrupts a running statement.

        `fileno` becomes readable when it has ended; see `stopped`.
        """
        hq_queue_stop(self.open_queue(), HQ_STOP_NOW if now else HQ_STOP_DRAINED)

    @property
    def stopped(self):
        return self.queue == NULL or bool(hq_queue_stopped(self.open_queue()))

    def close(self):
        """Ends the thread and finalizes every statement; the connection may be closed afterwards. Idempotent."""
        if self.queue != NULL:
            self.finish()

    # -- in

    def submit(self, uint64_t first, uint64_t last, uint64_t last_term, list records not None, bint want_answers):
        """Hands over the entries `[first, last]`: bytes objects that hold them as whole records, in order."""
        hq_queue_submit(self.open_queue(), self.job(first, last, records, want_answers))

    def apply_inline(self, uint64_t first, uint64_t last, uint64_t last_term, list records not None, bint want_answers,
                     bint only_cheap=False):
        """As `submit`, but applies here and now if the thread is parked and nothing waits.

        Args:
            only_cheap: and only if every statement has run before, quickly, under this schema.

        Returns:
            True when it was applied (or failed: see `failure`) here; `fileno` is not made readable then.
        """
        cdef hq_queue *queue = self.open_queue()
        cdef hq_job *job = self.job(first, last, records, want_answers)
        cdef int done
        with nogil:
            done = hq_queue_inline(queue, job, only_cheap)
        return bool(done)

    cdef hq_job *job(self, uint64_t first, uint64_t last, list records, bint want_answers) except NULL:
        if first != self.queue.submitted_index + 1 or last < first:
            raise ValueError(f"entries [{first}, {last}] cannot follow entry {self.queue.submitted_index}")
        return make_job(first, last, records, want_answers)

    def predict_ns(self, size_t size_bytes):
        """How long a run of records of that size would take, by a moving average."""
        return hq_queue_predict_ns(self.open_queue(), size_bytes)

    def set_synced_index(self, uint64_t index):
        """This node's own log is durable up to `index`: checkpoints may reach it."""
        hq_queue_set_synced(self.open_queue(), index)

    def ask_checkpoint(self):
        """What is applied shall be durable soon: once it is synced in the own log. `durable_index` tells when."""
        hq_checkpoint_ask(self.open_queue())

    # -- trials

    def try_out(self, list records not None, list limits_ns not None, *, int64_t disk_bytes_max,
                int64_t memory_bytes_max):
        """Runs writes on the thread, each on what those before it leave, and undoes all; `fileno` becomes readable when
        that is done (`trial_ended`). It ends early once they have taken as long as a run may.

        Args:
            records: whole ones with wall time and seed, at most TRIAL_WRITES_MAX.
            limits_ns: after this time each is ended.
            disk_bytes_max, memory_bytes_max: what all of them may take of these before they are ended.

        Returns:
            False: another trial is under way, or the thread ends.
        """
        cdef hq_trial asked
        cdef bytes together = records[0] if len(records) == 1 else b"".join(records)
        cdef int rc
        memset(&asked, 0, sizeof(asked))
        asked.count = limits_of(records, limits_ns, asked.writes)
        asked.records = <uint8_t *>PyBytes_AS_STRING(together)
        asked.disk_bytes_max, asked.memory_bytes_max = disk_bytes_max, memory_bytes_max
        rc = hq_queue_try(self.open_queue(), &asked, PyBytes_GET_SIZE(together))
        if rc == HQ_TRY_MEMORY:
            raise MemoryError
        return rc == HQ_TRY_ASKED

    def cancel_trial(self):
        """Ends the one under way early; it still has to be taken by `trial_ended`."""
        hq_queue_cancel_trial(self.open_queue())

    def trial_ended(self):
        """The `Trial` that has ended since the last call, or None."""
        cdef hq_trial ended
        return trial_of(&ended) if hq_queue_trial_ended(self.open_queue(), &ended) else None

    # -- out

    @property
    def fileno(self):
        """An eventfd: readable when there is something to take, after a failure, and when the thread has ended."""
        return self.open_queue().event_fd

    def take(self):
        """Runs that were finished since the last call, in order."""
        cdef hq_job *finished = NULL
        cdef hq_run_result *result = hq_queue_take(self.open_queue(), &finished)
        cdef AppliedRun run
        cdef list runs = []
        while result != NULL:
            run = AppliedRun.__new__(AppliedRun)
            run.result = result
            result = result.next
            runs.append(run)
        forget_jobs(finished)
        return runs

    @property
    def failure(self):
        """(extended SQLite code, message, index of the entry or 0) once the applier stopped by itself, else None."""
        cdef hq_failure failure
        if self.queue == NULL or not hq_queue_failure(self.open_queue(), &failure):
            return None
        return failure.code, text_of(failure.message), failure.index

    def resume(self):
        """Goes on after a failure, from the first entry that is not in the database."""
        hq_queue_resume(self.open_queue())

    def checkpoint(self):
        """Moves everything into the database file and empties SQLite's log, as far as readers allow.

        Only after the thread has ended, and only by who knows that the own log is synced up to `applied_index`.

        Returns:
            False when readers stood in the way.
        """
        cdef int rc
        if not hq_queue_stopped(self.open_queue()):
            raise ValueError("the apply thread still runs")
        with nogil:
            rc = hq_checkpoint(self.worker, SQLITE_CHECKPOINT_TRUNCATE)
        if self.worker.failure.code:
            raise OSError(self.worker.failure.code, text_of(self.worker.failure.message))
        return rc == 0

    # -- where it stands

    @property
    def applied_index(self):
        """Index of the last entry that is committed in the database."""
        self.open_queue()
        return hq_look(&self.worker.applied_index)

    @property
    def durable_index(self):
        """Everything up to this entry is on the disk, whatever becomes of SQLite's log; never above `applied_index`.
        What stood there when it was opened counts: its owner has synced it before."""
        self.open_queue()
        return hq_look(&self.worker.durable_index)

    @property
    def applied_term(self):
        self.open_queue()
        return hq_look(&self.worker.applied_term)

    @property
    def group_time_ns(self):
        """The newest group time of an applied entry; it never goes back."""
        self.open_queue()
        return <int64_t>hq_look(<const uint64_t *>&self.worker.group_time_ns)

    @property
    def has_sessions(self):
        """Whether a session was ever opened in this database."""
        self.open_queue()
        return hq_look(&self.worker.session_count) > 0

    @property
    def equality_hash(self):
        """Running hash over what all nodes must agree on, at `applied_index`. Of meaning while nothing is applied."""
        self.open_queue()
        return self.worker.equality_hash

    def hash_at(self, uint64_t index):
        """The running hash at `index`, a multiple of HASH_EVERY, or None when it is not remembered (any more)."""
        self.open_queue()
        cdef uint64_t slot = index // <uint64_t>HQ_HASH_EVERY % <uint64_t>HQ_HASH_KEPT
        cdef uint64_t value = hq_look(&self.worker.hash_value[slot])
        if index == 0 or index > hq_look(&self.worker.applied_index) or hq_look(&self.worker.hash_index[slot]) != index:
            return None
        return value

    @property
    def queued_bytes(self):
        return 0 if self.queue == NULL else hq_look(&self.queue.queued_bytes)

    def stats(self):
        """Counters since the start, by name."""
        cdef hq_queue *queue = self.open_queue()
        return {
            "runs": hq_look(&self.worker.run_count),
            "entries": hq_look(&self.worker.entry_count),
            "replays": hq_look(&self.worker.replay_count),
            "checkpoints": hq_look(&self.worker.checkpoint_count),
            "wal_pages": hq_look(&self.worker.wal_pages),
            "inline_runs": hq_look(&queue.inline_runs),
            "busy_ns": <int64_t>hq_look(<const uint64_t *>&queue.busy_ns),
            "synced_index": hq_look(&queue.synced_index),
        }


cdef str text_of(const char *text):
    return (<bytes>text).decode("utf-8", "replace")
