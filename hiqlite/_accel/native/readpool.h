/* Reader threads: jobs go in, chunks of encoded rows and one eventfd that says "news" come out.
 *
 * Knows SQLite's C API and bytes; knows no Python object and no event loop. Invariant: all fields of a job below its
 * `state` and all of the pool are touched with the pool's mutex held, except that a running job's `error` belongs to
 * its thread until `state` is HQ_JOB_DONE. Who holds a reference keeps the memory; each thread holds one on the pool. */
#ifndef HQ_READPOOL_H
#define HQ_READPOOL_H

#include <pthread.h>
#include <stdatomic.h>

#include "reads.h"

/* ---------------------------------------------------------------- parameters and rows as bytes (docs/formats.md 1) */

/* Parameters of one call: `count` values; each behind u16 size and UTF-8 name when `named`. The bytes must outlive
 * the step: values are bound in place. */
int hq_reads_bind(sqlite3 *db, sqlite3_stmt *statement, const uint8_t *data, size_t size, uint32_t count, int named,
                  hq_read_error *error);

typedef struct hq_chunk {
    struct hq_chunk *next;
    size_t size; /* bytes used */
    size_t capacity;
    uint32_t rows;
    uint8_t data[];
} hq_chunk;

enum { HQ_ROW_ADDED = 0, HQ_ROW_NO_ROOM = 1, HQ_ROW_MEMORY = 2 };
/* Appends the current row. HQ_ROW_NO_ROOM: nothing was written, `*need` bytes are wanted. */
int hq_chunk_add_row(hq_chunk *chunk, sqlite3_stmt *statement, int columns, size_t *need);
hq_chunk *hq_chunk_new(size_t capacity);
/* Column names: u32 count, then u16 size and UTF-8 each; NULL without memory. */
uint8_t *hq_column_names(sqlite3_stmt *statement, size_t *size);

/* ---------------------------------------------------------------- jobs and the pool of reader threads */

enum { HQ_JOB_QUERY = 0, HQ_JOB_ITERATE = 1 };
enum { HQ_JOB_QUEUED = 0, HQ_JOB_RUNNING = 1, HQ_JOB_DONE = 2 };

struct hq_pool;

typedef struct hq_job {
    struct hq_job *next;           /* in the queue */
    struct hq_job *next_signalled; /* among those with news for the loop */
    atomic_int references;
    atomic_int stop; /* HQ_STOP_*; set once */
    _Atomic int64_t touched_ns; /* when a row was taken last, as far as that was told (iterations) */
    uint64_t token;  /* by which the loop knows it */
    int kind;
    int state;     /* below the pool's mutex, as all that follows */
    int signalled; /* stands in the list of news */
    int abandoned; /* nobody will fetch its chunks */
    int demand;    /* chunks that may still be produced (iterations) */
    struct sqlite3 *running_on; /* connection to interrupt; NULL when not running */
    pthread_cond_t wanted;
    hq_chunk *first, *last; /* produced, not fetched */
    size_t bytes_waiting;   /* in these chunks */
    uint8_t *names;         /* column names, once known */
    size_t names_size;
    hq_read_error error;
    /* constant after creation */
    int64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
    int64_t idle_ns;     /* an iteration ends when nothing was asked of it for so long */
    size_t chunk_bytes;
    size_t result_bytes_max;
    size_t cost_bytes; /* text and parameters: what the queue's limit counts */
    char *sql;
    int sql_size;
    const uint8_t *parameters;
    size_t parameters_size;
    uint32_t parameter_count;
    int named;
} hq_job;

hq_job *hq_job_new(const char *sql, int sql_size, const uint8_t *parameters, size_t parameters_size);
void hq_job_release(hq_job *job);
void hq_job_touch(hq_job *job); /* a row is taken */

typedef struct hq_pool_counts {
    uint64_t jobs, stopped, failed, overloads;
    int threads, busy, queued, iterating;
    size_t queued_bytes, waiting_bytes;
} hq_pool_counts;

typedef struct hq_pool hq_pool;
hq_pool *hq_pool_new(int queue_max, size_t queue_bytes_max, size_t waiting_bytes_max);
/* One more thread, owning `db` from now on until it has ended. 0 or an errno. */
int hq_pool_add_thread(hq_pool *pool, sqlite3 *db, const hq_guard_api *guard, int statements_max);
int hq_pool_fileno(const hq_pool *pool);

enum { HQ_SUBMITTED = 0, HQ_OVERLOADED = 1, HQ_CLOSED = 2 };
int hq_pool_submit(hq_pool *pool, hq_job *job);
void hq_pool_stop_job(hq_pool *pool, hq_job *job, int reason);
void hq_pool_stop_queued(hq_pool *pool, hq_job *job, int reason); /* only while no thread has begun it */
/* The next chunk (now the caller's, to be freed with free) or NULL; `*state` tells whether more can come. */
hq_chunk *hq_pool_fetch(hq_pool *pool, hq_job *job, int *state);
void hq_pool_demand(hq_pool *pool, hq_job *job, int chunks);
/* Tokens of jobs with news since the last call; returns how many were written. */
int hq_pool_news(hq_pool *pool, uint64_t *tokens, int tokens_max);
void hq_pool_close(hq_pool *pool);               /* refuses new jobs, stops all others, threads end */
int hq_pool_join(hq_pool *pool, int64_t limit_ns); /* threads still alive when the limit has passed */
void hq_pool_count(hq_pool *pool, hq_pool_counts *counts);
void hq_pool_release(hq_pool *pool);

#endif
