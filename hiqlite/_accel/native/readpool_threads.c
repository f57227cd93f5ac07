/* The threads' side of the reader pool.
 *
 * The threads are detached, never take the GIL and block all signals: a process that exits does not wait for
 * them. Rules of the data: readpool.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "readpool_inside.h"

typedef struct {
    hq_pool *pool;
    hq_worker *worker;
    int number;
} thread_start;

/* Mutex held. The first job that may run: an iteration only while one thread stays free for queries. */
static hq_job *next_job(hq_pool *pool) {
    int iterations_max = pool->counts.threads > 1 ? pool->counts.threads - 1 : 1;
    hq_job *before = NULL;
    for (hq_job *job = pool->first; job != NULL; before = job, job = job->next) {
        if (job->kind == HQ_JOB_ITERATE && pool->counts.iterating >= iterations_max)
            continue;
        if (before == NULL)
            pool->first = job->next;
        else
            before->next = job->next;
        if (pool->last == job)
            pool->last = before;
        job->next = NULL;
        pool->counts.queued--;
        pool->counts.queued_bytes -= job->cost_bytes;
        return job;
    }
    return NULL;
}

static void run_one(hq_pool *pool, thread_start *start, hq_job *job) {
    job->state = HQ_JOB_RUNNING;
    job->running_on = hq_worker_db(start->worker);
    pool->running[start->number] = job;
    pool->counts.busy++;
    pool->counts.iterating += job->kind == HQ_JOB_ITERATE;
    pthread_mutex_unlock(&pool->mutex);
    hq_worker_run(start->worker, job);
    pthread_mutex_lock(&pool->mutex);
    job->running_on = NULL;
    pool->running[start->number] = NULL;
    pool->counts.busy--;
    pool->counts.iterating -= job->kind == HQ_JOB_ITERATE;
    if (job->kind == HQ_JOB_ITERATE)
        pthread_cond_broadcast(&pool->work); /* another iteration may have waited for this one's place */
    hq_pool_finish(pool, job);
    hq_job_release(job);
}

static void *thread_main(void *argument) {
    thread_start start = *(thread_start *)argument;
    hq_pool *pool = start.pool;
    char name[16];
    free(argument);
    snprintf(name, sizeof name, "hq-read-%d", start.number);
    prctl(PR_SET_NAME, (unsigned long)name, 0, 0, 0);
    pthread_mutex_lock(&pool->mutex);
    while (!pool->closing) {
        hq_job *job = next_job(pool);
        if (job == NULL)
            pthread_cond_wait(&pool->work, &pool->mutex);
        else
            run_one(pool, &start, job);
    }
    pthread_mutex_unlock(&pool->mutex);
    hq_worker_free(start.worker);
    pthread_mutex_lock(&pool->mutex);
    pool->counts.threads--;
    hq_pool_wake(pool);
    pthread_cond_broadcast(&pool->ended);
    pthread_mutex_unlock(&pool->mutex);
    hq_pool_release(pool);
    return NULL;
}

int hq_pool_add_thread(hq_pool *pool, sqlite3 *db, const hq_guard_api *guard, int statements_max) {
    thread_start *start = malloc(sizeof *start);
    hq_worker *worker = start == NULL ? NULL : hq_worker_new(pool, db, guard, statements_max);
    if (worker == NULL || pool->started >= THREADS_MAX) {
        if (worker != NULL)
            hq_worker_free(worker);
        free(start);
        return worker == NULL ? ENOMEM : EAGAIN;
    }
    *start = (thread_start){pool, worker, pool->started};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to Python's main thread */
    pthread_mutex_lock(&pool->mutex);
    pthread_t thread;
    int failure = pthread_create(&thread, &attributes, thread_main, start);
    if (failure == 0) {
        pool->started++;
        pool->references++;
        pool->counts.threads++;
    }
    pthread_mutex_unlock(&pool->mutex);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failure) {
        hq_worker_free(worker);
        free(start);
    }
    return failure;
}

int hq_pool_publish(hq_pool *pool, hq_job *job, hq_chunk *chunk) {
    int refused = HQ_READ_OK;
    size_t bytes = sizeof *chunk + chunk->capacity;
    pthread_mutex_lock(&pool->mutex);
    if (pool->counts.waiting_bytes + bytes > pool->waiting_bytes_max) {
        refused = HQ_READ_CROWDED;
        free(chunk);
    } else {
        pool->counts.waiting_bytes += bytes;
        job->bytes_waiting += bytes;
        if (job->last == NULL)
            job->first = chunk;
        else
            job->last->next = chunk;
        job->last = chunk;
        job->demand--;
        hq_pool_notify(pool, job);
    }
    pthread_mutex_unlock(&pool->mutex);
    return refused;
}

void hq_job_touch(hq_job *job) {
    atomic_store_explicit(&job->touched_ns, hq_reads_now_ns(), memory_order_relaxed);
}

/* Rows of the chunk before may be taken meanwhile, one by one: who takes them is not idle. */
int hq_pool_await_demand(hq_pool *pool, hq_job *job) {
    int64_t begun_ns = hq_reads_now_ns();
    pthread_mutex_lock(&pool->mutex);
    while (job->demand <= 0 && !atomic_load(&job->stop)) {
        int64_t touched_ns = atomic_load_explicit(&job->touched_ns, memory_order_relaxed);
        int64_t idle_until = (touched_ns > begun_ns ? touched_ns : begun_ns) + job->idle_ns;
        int total_first = job->deadline_ns && job->deadline_ns < idle_until;
        int64_t until_ns = total_first ? job->deadline_ns : idle_until;
        if (hq_reads_now_ns() >= until_ns) {
            int none = HQ_STOP_NONE;
            atomic_compare_exchange_strong(&job->stop, &none, total_first ? HQ_STOP_DEADLINE : HQ_STOP_IDLE);
            break;
        }
        struct timespec until = hq_as_timespec(until_ns);
        pthread_cond_timedwait(&job->wanted, &pool->mutex, &until);
    }
    pthread_mutex_unlock(&pool->mutex);
    return atomic_load(&job->stop);
}

void hq_pool_set_names(hq_pool *pool, hq_job *job, uint8_t *names, size_t size) {
    pthread_mutex_lock(&pool->mutex);
    job->names = names;
    job->names_size = size;
    pthread_mutex_unlock(&pool->mutex);
}

