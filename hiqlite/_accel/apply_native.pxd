# native/apply.h and native/apply_queue.h for Cython; what the names mean stands there.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "guard.h" nogil:
    enum:
        HQ_GUARD_API_VERSION
    ctypedef struct hq_guard_api:
        int version
        int size

cdef extern from "apply_queue.h" nogil:
    enum:
        HQ_HASH_KEPT, HQ_HASH_EVERY
        HQ_CHECKPOINT_PAGES, HQ_CHECKPOINT_OVERDUE
        HQ_STOP_DRAINED, HQ_STOP_NOW
        HQ_ANSWER_BYTES_MAX
        HQ_TRIAL_WRITES_MAX
        HQ_TRY_ASKED, HQ_TRY_BUSY, HQ_TRY_MEMORY, HQ_OUT_OF_DISK, HQ_OUT_OF_MEMORY
        SQLITE_CHECKPOINT_TRUNCATE
    ctypedef struct sqlite3:
        pass
    ctypedef int hq_stop_mode
    ctypedef struct hq_failure:
        int code
        uint64_t index
        char message[1024]
    ctypedef struct hq_apply:
        uint64_t applied_index, applied_term, equality_hash, durable_index
        int64_t group_time_ns
        uint64_t session_count
        uint64_t hash_index[64]
        uint64_t hash_value[64]
        uint64_t wal_pages
        uint64_t run_count, entry_count, replay_count, checkpoint_count
        hq_failure failure
    ctypedef struct hq_piece:
        const uint8_t *data
        size_t size
    ctypedef struct hq_job:
        hq_job *next
        uint64_t first, last
        int want_answers
        uint32_t piece_count
        size_t size
        void *owner
        hq_piece *pieces
    ctypedef struct hq_queue:
        int event_fd
        uint64_t queued_bytes, submitted_index, inline_runs, synced_index
        int64_t busy_ns
    ctypedef struct hq_run_result:
        hq_run_result *next
        uint64_t first, last, last_term  # closed range of log indexes; term of the last
        uint8_t *answers                 # of all entries behind one another; NULL when none was wanted
        size_t *offsets                  # one more than there are entries
        int changed_schema
        uint32_t slow_count
        char *slow_texts[8]
    ctypedef struct hq_tried:
        size_t at
        int64_t limit_ns, spent_ns
    ctypedef struct hq_trial:
        uint8_t *records
        hq_tried *writes
        uint32_t count, passed
        int64_t disk_bytes_max, memory_bytes_max
        int cancelled, late, out_of, changes_schema
        hq_failure why
    hq_apply *hq_apply_open(sqlite3 *, const hq_guard_api *, uint32_t, hq_failure *)
    void hq_apply_close(hq_apply *)
    int hq_checkpoint(hq_apply *, int)
    void hq_run_result_free(hq_run_result *)
    hq_queue *hq_queue_open(hq_apply *)
    int hq_queue_start(hq_queue *, const int *, int)
    void hq_checkpointer_use(hq_queue *, sqlite3 *)
    void hq_checkpoint_ask(hq_queue *)
    hq_job *hq_job_new(uint32_t)
    void hq_queue_submit(hq_queue *, hq_job *)
    int hq_queue_inline(hq_queue *, hq_job *, int)
    int64_t hq_queue_predict_ns(hq_queue *, size_t)
    void hq_queue_set_synced(hq_queue *, uint64_t)
    int hq_queue_try(hq_queue *, const hq_trial *, size_t)
    void hq_queue_cancel_trial(hq_queue *)
    int hq_queue_trial_ended(hq_queue *, hq_trial *)
    hq_run_result *hq_queue_take(hq_queue *, hq_job **)
    int hq_queue_failure(hq_queue *, hq_failure *)
    void hq_queue_resume(hq_queue *)
    void hq_queue_stop(hq_queue *, hq_stop_mode)
    int hq_queue_stopped(hq_queue *)
    void hq_queue_join(hq_queue *)
    hq_job *hq_queue_close(hq_queue *)
    int hq_apply_loaded()
    uint64_t hq_look(const uint64_t *)

cdef extern from "stdlib.h" nogil:
    void free(void *)

cdef extern from "forks.h" nogil:
    int hq_forks
    int hq_forks_watch()
