"""The native log of one group, as Python sees it: submit, look at what is published, read back, scan.

Bytes and integers only: must not know Raft, LMDB or an event loop (the descriptor of the wake-up is handed out, waiting
for it is somebody else's work). The threads behind it never take the GIL. Invariant: a bytes object given to `append`
is held until the log thread has given its job back, and no call here waits for a disk, save `read`, `stop`, `resume`.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free

from hiqlite._accel.wal_native cimport (
    HQ_KIND_ENTRY, HQ_KIND_HARD_STATE, HQ_KIND_PURGE_MARK, HQ_KIND_REPAIR, HQ_KIND_SEGMENT_END, HQ_KIND_TRUNCATE,
    HQ_READ_ABSENT, HQ_READ_DAMAGED, HQ_READ_MEMORY, HQ_READ_OK, hq_crc32c, hq_event, hq_hard_state, hq_job,
    hq_published, hq_scan_result, hq_wal, hq_wal_answer, hq_wal_begin, hq_wal_close_files, hq_wal_extent_add,
    hq_wal_free_jobs, hq_wal_index_add, hq_wal_index_base, hq_wal_index_truncate, hq_wal_last_index, hq_wal_local_batch,
    hq_wal_look, hq_wal_new, hq_wal_held_bytes, hq_wal_progress_address, hq_wal_queued_address, hq_wal_read,
    hq_wal_recycle, hq_wal_release,
    hq_wal_repair_add, hq_wal_repair_run, hq_wal_resume, hq_wal_scan, hq_wal_segment_recorded, hq_wal_start,
    hq_wal_stop, hq_wal_submit, hq_wal_submit_local, hq_wal_synced, hq_wal_take_finished, hq_wal_take_segment,
    hq_wal_written,
)
from hiqlite.errors import StorageError, UsageError

cdef extern from "forks.h" nogil:
    int hq_forks
    int hq_forks_watch()

cdef extern from "unistd.h" nogil:
    int usleep(unsigned int microseconds)

SEGMENT_HEADER_BYTES = 4096
LOCAL_BATCH_BYTES = 112
JOB_BYTES_MAX = 0xFFFFF000
_WHERE = ("", "write to", "fsync of", "make a segment of", "index entries of", "recycle a segment of")


class ReadAbsent(LookupError):
    """The index is not in this log, or not written yet."""


class ReadDamaged(ValueError):
    """The record is there and its bytes are not what was written."""


def crc32c(const uint8_t[::1] data not None, uint32_t seed=0):
    """CRC32C of `data`, going on from `seed`."""
    cdef size_t size = data.shape[0]
    return hq_crc32c(seed, &data[0] if size > 0 else NULL, size)


def end_batch(uint64_t salt, uint64_t io_sequence, uint64_t synced, uint32_t last_crc):
    """The batch that ends a segment: written by recovery where it cuts."""
    cdef uint8_t[112] out
    hq_wal_local_batch(out, HQ_KIND_SEGMENT_END, salt, io_sequence, synced, last_crc)
    return PyBytes_FromStringAndSize(<char *> out, 112)


def scan(const uint8_t[::1] data not None, uint64_t salt, uint64_t first_io, uint64_t io_limit):
    """What a whole segment holds.

    Returns: (events, synced, last_io, last_crc, end_offset, ended, unproven_offset); an event is (kind, io, term,
    first, last, offset) with the meanings of native/wal_log.h.
    """
    cdef hq_scan_result result
    cdef uint64_t size = data.shape[0]
    cdef size_t i
    if size < <uint64_t> SEGMENT_HEADER_BYTES:
        return [], 0, first_io - 1, 0, SEGMENT_HEADER_BYTES, False, SEGMENT_HEADER_BYTES
    with nogil:
        hq_wal_scan(&data[0], size, salt, first_io, io_limit, &result)
    try:
        if result.no_memory:
            raise MemoryError
        events = [
            (result.events[i].kind, result.events[i].io, result.events[i].term, result.events[i].first,
             result.events[i].last, result.events[i].offset)
            for i in range(result.count)
        ]
    finally:
        free(result.events)
    return events, result.synced, result.last_io, result.last_crc, result.end, bool(result.ended), result.unproven


cdef class NativeLog:
    """The threads, the queue and the files of one group's log. Owned by one event loop's thread."""

    cdef hq_wal *log
    cdef int forks
    cdef uint64_t submitted
    cdef bint started, stopping

    def __cinit__(self, int dir_fd, uint32_t group, uint64_t node_id, uint64_t incarnation, uint64_t segment_bytes,
                  int mode, uint64_t interval_ns):
        if segment_bytes < 16384:
            raise UsageError("a log segment has at least 16384 bytes")
        cdef int own_fd = os.dup(dir_fd)
        self.log = hq_wal_new(own_fd, group, node_id, incarnation, segment_bytes, mode, interval_ns)
        self.forks = hq_forks
        if self.log is NULL or hq_forks_watch():
            os.close(own_fd)
            raise MemoryError("no memory or no descriptor for a log")

    def __dealloc__(self):
        if self.log is NULL or self.forks != hq_forks:
            return  # after a fork the threads live in the parent only: nothing here may be touched
        hq_wal_stop(self.log)
        if self.started and not self._join(2_000_000):
            return  # a disk that does not answer: the memory stays with the threads
        self.release_finished()
        hq_wal_release(self.log)

    cdef bint _join(self, int64_t limit_us):
        cdef hq_published seen
        cdef int64_t waited = 0
        with nogil:
            hq_wal_look(self.log, &seen)
            while not seen.threads_ended and waited < limit_us:
                usleep(500)
                waited += 500
                hq_wal_look(self.log, &seen)
        return seen.threads_ended != 0

    cdef void release_finished(self) noexcept:
        cdef hq_job *jobs = hq_wal_take_finished(self.log)
        cdef hq_job *job = jobs
        while job is not NULL:
            if job.owner is not NULL:
                Py_DECREF(<object> job.owner)
            job = job.next
        hq_wal_free_jobs(jobs)

    cdef int _check(self, uint64_t io_sequence) except -1:
        if self.forks != hq_forks:
            raise UsageError("this log was opened before a fork; open it in the process that uses it")
        if not self.started or self.stopping:
            raise UsageError("the log is not open")
        if io_sequence <= self.submitted:
            raise UsageError(f"io sequence {io_sequence} after {self.submitted}")
        return 0

    # ------------------------------------------------------------------ before the start

    def resume(self, uint64_t number, uint64_t generation, uint64_t offset, uint32_t last_crc):
        """Goes on in an existing segment at `offset`."""
        cdef int error
        with nogil:
            error = hq_wal_resume(self.log, number, generation, offset, last_crc)
        if error:
            raise OSError(error, os.strerror(error))

    def add_span(self, uint64_t first, uint64_t last, uint64_t segment, uint64_t offset):
        """Tells the index of entries found by recovery; ascending."""
        hq_wal_index_truncate(self.log, first - 1)  # begins a span of its own: a cut may lie between
        if hq_wal_index_add(self.log, first, last, segment, offset):
            raise MemoryError

    def add_repair(self, uint64_t index, uint64_t segment, uint64_t offset):
        """The copy of an entry that cannot be read where its span says; after the spans."""
        if hq_wal_repair_add(self.log, index, segment, offset):
            raise MemoryError

    def add_segment(self, uint64_t number, uint64_t top):
        """A segment of the log, and the highest index of an entry in it (0: none); ascending."""
        if hq_wal_extent_add(self.log, number, top):
            raise MemoryError

    def set_base(self, uint64_t base_index):
        """The log begins behind `base_index`."""
        hq_wal_index_base(self.log, base_index)

    def start(self, uint64_t io_sequence, uint64_t last_io, uint64_t said, uint64_t next_number):
        """Starts the threads.

        Args:
            io_sequence: highest one ever seen; new ones lie above it.
            last_io: of the last batch kept.
            said: highest `synced up to` that a kept header holds.
            next_number: of the next segment; 0 when one was resumed.
        """
        cdef int error
        if next_number:
            self.log.next_number = next_number
        hq_wal_begin(self.log, io_sequence, last_io, said)
        self.submitted = io_sequence
        error = hq_wal_start(self.log)
        if error:
            raise OSError(error, os.strerror(error))
        self.started = True

    # ------------------------------------------------------------------ work

    def append(self, uint64_t io_sequence, uint64_t first, uint64_t last, bytes records not None):
        """Entries [first, last] as whole sealed records."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(records)
        self._check(io_sequence)
        if last < first or size < <Py_ssize_t> (64 * (last - first + 1)) or size % 8 or size > JOB_BYTES_MAX:
            raise UsageError(f"{size} bytes are no records for entries {first} to {last}")
        self._submit(HQ_KIND_ENTRY, io_sequence, first, last, records)

    def truncate(self, uint64_t io_sequence, uint64_t last_kept):
        """A record that cuts every entry behind `last_kept`."""
        self._local(HQ_KIND_TRUNCATE, io_sequence, 0, last_kept, NULL, NULL)

    def hard_state(self, uint64_t io_sequence, uint64_t term, uint64_t vote, uint64_t vote_incarnation):
        """Term and vote (0: none)."""
        self._local(HQ_KIND_HARD_STATE, io_sequence, term, vote, &vote_incarnation, NULL)

    def restart(self, uint64_t io_sequence, uint64_t term, uint64_t index, uint64_t state_term, uint64_t vote,
                uint64_t vote_incarnation):
        """The hard state again, as `purge` does; then a record that says: the log is empty and begins behind (index,
        term)."""
        cdef hq_hard_state state = [state_term, vote, vote_incarnation]
        cdef uint64_t anew = 1
        self._local(HQ_KIND_PURGE_MARK, io_sequence, term, index, &anew, &state)

    def purge(self, uint64_t term, uint64_t index, uint64_t state_term, uint64_t vote, uint64_t vote_incarnation):
        """Records without an io sequence of their own: the hard state again, for the one that holds it may go; then
        that the log begins behind (index, term). They share a batch, and so a segment: that of the hard state alone
        would be free to go. `purge_marked` tells when they are durable."""
        cdef hq_hard_state state = [state_term, vote, vote_incarnation]
        self._local(HQ_KIND_PURGE_MARK, 0, term, index, NULL, &state)

    def recycle(self, uint64_t index):
        """The metadata name `index` as purged too: files of segments that hold nothing above it go, one by one."""
        hq_wal_recycle(self.log, index)

    def append_repair(self, uint64_t io_sequence, uint64_t first, uint64_t last, bytes records not None):
        """Entries [first, last], which the log holds and cannot read, as whole sealed records."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(records)
        cdef bytes repairs = PyBytes_FromStringAndSize(PyBytes_AS_STRING(records), size)
        self._check(io_sequence)
        if last < first or size > JOB_BYTES_MAX or \
                hq_wal_repair_run(<uint8_t *> PyBytes_AS_STRING(repairs), size, first) != <int64_t> (last - first + 1):
            raise UsageError(f"{size} bytes are not the entries {first} to {last}")
        self._submit(HQ_KIND_REPAIR, io_sequence, first, last, repairs)

    cdef int _submit(self, uint8_t kind, uint64_t io_sequence, uint64_t first, uint64_t last, bytes records) except -1:
        cdef const uint8_t *start = <const uint8_t *> PyBytes_AS_STRING(records)
        cdef int now = 0
        Py_INCREF(records)
        cdef int error = hq_wal_submit(self.log, kind, io_sequence, first, last, start, PyBytes_GET_SIZE(records),
                                       <void *> records, &now)
        if error or now:
            Py_DECREF(records)
        if error:
            raise MemoryError
        self.submitted = io_sequence
        return 0

    cdef int _local(self, uint8_t kind, uint64_t io_sequence, uint64_t term, uint64_t index, const uint64_t *payload,
                    const hq_hard_state *before) except -1:
        self._check(io_sequence if io_sequence else self.submitted + 1)
        if hq_wal_submit_local(self.log, kind, io_sequence, term, index, payload, before):
            raise MemoryError
        if io_sequence:
            self.submitted = io_sequence
        return 0

    def drain(self):
        """Answers the wake-up: releases what was written, so that the next flush wakes again."""
        hq_wal_answer(self.log)
        self.release_finished()

    def read(self, uint64_t first, uint64_t size_max):
        """(last index, records) from `first` on; blocks on the disk, without the GIL, on any thread."""
        cdef uint8_t *data = NULL
        cdef size_t size = 0
        cdef uint64_t last = 0
        cdef int error = 0, code
        with nogil:
            code = hq_wal_read(self.log, first, size_max, &data, &size, &last, &error)
        if code == HQ_READ_OK:
            try:
                return last, PyBytes_FromStringAndSize(<char *> data, size)
            finally:
                free(data)
        if code == HQ_READ_ABSENT:
            raise ReadAbsent(f"entry {first} is not in the log")
        if code == HQ_READ_DAMAGED:
            raise ReadDamaged(f"entry {first} is damaged on disk")
        if code == HQ_READ_MEMORY:
            raise MemoryError
        raise OSError(error, os.strerror(error))

    def stop(self, int64_t limit_us):
        """Empties the queue, syncs, ends the threads. True when they ended in time. Blocks without the GIL."""
        if self.forks != hq_forks:
            raise UsageError("this log was opened before a fork; only the parent may stop it")
        self.stopping = True
        hq_wal_stop(self.log)
        return not self.started or self._join(limit_us)

    def close_files(self):
        """After `stop` gave True: the descriptors go back at once, not when this object is collected."""
        hq_wal_close_files(self.log)

    # ------------------------------------------------------------------ what is published

    def fileno(self):
        """Becomes readable once per flush, failure, or change of `disk_full`."""
        return self.log.wake_fd

    @property
    def written(self):
        return hq_wal_written(self.log)

    @property
    def synced(self):
        """Durable by the meaning of the mode, and below every segment that the metadata does not name yet."""
        return hq_wal_synced(self.log)

    @property
    def disk_synced(self):
        return self._look().disk_synced

    @property
    def queued_bytes(self):
        return self._look().queued_bytes

    @property
    def disk_full(self):
        return self._look().full != 0

    @property
    def progress_stamp_ns(self):
        """Boot clock at the last progress; counts only while `queued_bytes` is not zero."""
        return self._look().progress_ns

    @property
    def progress_address(self):
        """Address of the progress stamp (int64), for a native thread that gates on it."""
        return <uintptr_t> hq_wal_progress_address(self.log)

    @property
    def queued_address(self):
        """Address of the number of queued bytes (uint64): work waits while it is not zero."""
        return <uintptr_t> hq_wal_queued_address(self.log)

    @property
    def purge_marked(self):
        """Index of the newest purge mark that is durable in this life; 0: none."""
        return self._look().purge_marked

    @property
    def last_index(self):
        return hq_wal_last_index(self.log)

    @property
    def held_bytes(self):
        """What the log's segments take on the disk, but for those of giant entries."""
        return hq_wal_held_bytes(self.log)

    @property
    def counters(self):
        """(flushes, fsyncs, bytes of records written)."""
        cdef hq_published seen = self._look()
        return seen.flushes, seen.fsyncs, seen.batch_bytes

    @property
    def failure(self):
        cdef hq_published seen = self._look()
        if seen.fault_errno == 0:
            return None
        reason = os.strerror(seen.fault_errno)
        return StorageError(
            f"could not {_WHERE[seen.fault]} the log: {reason}",
            hint="the node stops; what was acknowledged is safe; check the disk, then start it again",
        )

    cdef hq_published _look(self):
        cdef hq_published seen
        hq_wal_look(self.log, &seen)
        return seen

    def take_segment(self):
        """Number of a segment that the metadata has to name next; 0: none, or the last one is not recorded yet."""
        return hq_wal_take_segment(self.log)

    def segment_recorded(self):
        """The metadata names, durably, the segment last taken."""
        hq_wal_segment_recorded(self.log)
