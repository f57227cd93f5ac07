# The native log of native/wal_log.h, as wal.pyx uses it; the comments on each stand there.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "wal_log.h" nogil:
    enum:
        HQ_KIND_ENTRY
        HQ_KIND_HARD_STATE
        HQ_KIND_TRUNCATE
        HQ_KIND_PURGE_MARK
        HQ_KIND_REPAIR
        HQ_KIND_SEGMENT_END
        HQ_READ_OK
        HQ_READ_ABSENT
        HQ_READ_DAMAGED
        HQ_READ_MEMORY
    ctypedef struct hq_job:
        hq_job *next
        void *owner
    ctypedef struct hq_event:
        uint64_t kind, io, term, first, last, offset
    ctypedef struct hq_hard_state:
        uint64_t term, vote, incarnation

    ctypedef struct hq_scan_result:
        hq_event *events
        size_t count
        uint64_t synced, last_io, end, unproven
        uint32_t last_crc
        int ended, no_memory
    ctypedef struct hq_published:
        uint64_t written, synced, disk_synced, queued_bytes, held_io, flushes, fsyncs, batch_bytes, purge_marked
        int64_t progress_ns
        int fault, fault_errno, full, threads_ended
    ctypedef struct hq_wal:
        int wake_fd
        uint64_t next_number
    hq_wal *hq_wal_new(int dir_fd, uint32_t group, uint64_t node_id, uint64_t incarnation, uint64_t segment_bytes,
                       int mode, uint64_t interval_ns)
    void hq_wal_close_files(hq_wal *log)
    void hq_wal_release(hq_wal *log)
    int hq_wal_submit(hq_wal *log, uint8_t kind, uint64_t io_sequence, uint64_t first, uint64_t last,
                      const uint8_t *data, size_t size, void *owner, int *now)
    int hq_wal_submit_local(hq_wal *log, uint8_t kind, uint64_t io_sequence, uint64_t term, uint64_t index,
                            const uint64_t *payload, const hq_hard_state *before)
    hq_job *hq_wal_take_finished(hq_wal *log)
    void hq_wal_free_jobs(hq_job *jobs)
    void hq_wal_answer(hq_wal *log)
    void hq_wal_stop(hq_wal *log)
    int hq_wal_start(hq_wal *log)
    int hq_wal_resume(hq_wal *log, uint64_t number, uint64_t generation, uint64_t offset, uint32_t last_crc)
    void hq_wal_begin(hq_wal *log, uint64_t io_sequence, uint64_t last_io, uint64_t said)
    uint64_t hq_wal_take_segment(hq_wal *log)
    void hq_wal_segment_recorded(hq_wal *log)
    uint64_t hq_wal_written(hq_wal *log)
    uint64_t hq_wal_synced(hq_wal *log)
    void hq_wal_look(hq_wal *log, hq_published *seen)
    void *hq_wal_progress_address(hq_wal *log)
    void *hq_wal_queued_address(hq_wal *log)
    int hq_wal_index_add(hq_wal *log, uint64_t first, uint64_t last, uint64_t segment, uint64_t offset)
    uint64_t hq_wal_last_index(hq_wal *log)
    void hq_wal_index_truncate(hq_wal *log, uint64_t last_kept)
    void hq_wal_index_base(hq_wal *log, uint64_t base_index)
    int hq_wal_extent_add(hq_wal *log, uint64_t segment, uint64_t top)
    void hq_wal_recycle(hq_wal *log, uint64_t index)
    uint64_t hq_wal_held_bytes(hq_wal *log)
    int64_t hq_wal_repair_run(uint8_t *records, size_t size, uint64_t first)
    int hq_wal_repair_add(hq_wal *log, uint64_t index, uint64_t segment, uint64_t offset)
    int hq_wal_read(hq_wal *log, uint64_t first, uint64_t size_max, uint8_t **data, size_t *size, uint64_t *last,
                    int *error)
    void hq_wal_scan(const uint8_t *data, uint64_t size, uint64_t salt, uint64_t first_io, uint64_t io_limit,
                     hq_scan_result *result)
    void hq_wal_local_batch(uint8_t *out, uint8_t kind, uint64_t salt, uint64_t io_sequence, uint64_t synced,
                            uint32_t last_crc)
    uint32_t hq_crc32c(uint32_t seed, const void *data, size_t size)
