# native/readpool.h, for readpool.pyx only.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from hiqlite._accel.reads cimport hq_guard_api, hq_read_error, sqlite3


cdef extern from "readpool.h" nogil:
    int HQ_STOP_CANCELLED, HQ_STOP_DEADLINE
    int HQ_JOB_QUERY, HQ_JOB_ITERATE, HQ_JOB_DONE
    int HQ_SUBMITTED, HQ_OVERLOADED, HQ_CLOSED

    ctypedef struct hq_chunk:
        size_t size
        uint32_t rows
        uint8_t data[1]
    ctypedef struct hq_job:
        uint64_t token
        int kind
        int state
        int demand
        uint8_t *names
        size_t names_size
        hq_read_error error
        int64_t deadline_ns
        int64_t idle_ns
        size_t chunk_bytes
        size_t result_bytes_max
        uint32_t parameter_count
        int named
    ctypedef struct hq_pool:
        pass
    ctypedef struct hq_pool_counts:
        uint64_t jobs
        uint64_t stopped
        uint64_t failed
        uint64_t overloads
        int threads
        int busy
        int queued
        int iterating
        size_t queued_bytes
        size_t waiting_bytes

    hq_job *hq_job_new(const char *sql, int sql_size, const uint8_t *parameters, size_t parameters_size)
    void hq_job_release(hq_job *)
    void hq_job_touch(hq_job *)
    hq_pool *hq_pool_new(int queue_max, size_t queue_bytes_max, size_t waiting_bytes_max)
    int hq_pool_add_thread(hq_pool *, sqlite3 *, const hq_guard_api *, int statements_max)
    int hq_pool_fileno(const hq_pool *)
    int hq_pool_submit(hq_pool *, hq_job *)
    void hq_pool_stop_job(hq_pool *, hq_job *, int reason)
    void hq_pool_stop_queued(hq_pool *, hq_job *, int reason)
    hq_chunk *hq_pool_fetch(hq_pool *, hq_job *, int *state)
    void hq_pool_demand(hq_pool *, hq_job *, int chunks)
    int hq_pool_news(hq_pool *, uint64_t *tokens, int tokens_max)
    void hq_pool_close(hq_pool *)
    int hq_pool_join(hq_pool *, int64_t limit_ns)
    void hq_pool_count(hq_pool *, hq_pool_counts *)
    void hq_pool_release(hq_pool *)
