/* The pool's inside, shared by readpool_loop.c (the loop's side), readpool_threads.c and readpool_run.c (the threads').
 *
 * Must not be included by anything else; the rules of the data stand in readpool.h. */
#ifndef HQ_READPOOL_INSIDE_H
#define HQ_READPOOL_INSIDE_H

#include <time.h>

#include "readpool.h"

enum { THREADS_MAX = 64 };

struct hq_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;   /* a job was queued, or the pool closes */
    pthread_cond_t ended;  /* a thread ended */
    int references;
    int closing;
    int wake_fd;
    int queue_max;
    size_t queue_bytes_max, waiting_bytes_max;
    hq_job *first, *last;   /* queued */
    hq_job *news;           /* signalled and not yet told, newest first */
    hq_job *running[THREADS_MAX]; /* by thread number */
    int started;            /* threads ever started */
    hq_pool_counts counts;
};

static inline struct timespec hq_as_timespec(int64_t ns) {
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

/* The mutex is held by the caller of all of these. */
void hq_pool_wake(hq_pool *pool);
void hq_pool_notify(hq_pool *pool, hq_job *job); /* the job has news for the loop */
void hq_pool_finish(hq_pool *pool, hq_job *job); /* its last change of state */

/* Between readpool_threads.c and readpool_run.c only. */
typedef struct hq_worker hq_worker;
hq_worker *hq_worker_new(hq_pool *pool, sqlite3 *db, const hq_guard_api *guard, int statements_max);
void hq_worker_free(hq_worker *worker); /* finalizes its statements; leaves the connection to its owner */
void hq_worker_run(hq_worker *worker, hq_job *job);
sqlite3 *hq_worker_db(const hq_worker *worker);
/* The worker hands a chunk over (freed here when refused). HQ_READ_OK, or HQ_READ_CROWDED: the job must end. */
int hq_pool_publish(hq_pool *pool, hq_job *job, hq_chunk *chunk);
/* Before the next chunk of an iteration: waits until one is wanted, at most idle_ns. 0 or the reason to stop. */
int hq_pool_await_demand(hq_pool *pool, hq_job *job);
void hq_pool_set_names(hq_pool *pool, hq_job *job, uint8_t *names, size_t size);

#endif
