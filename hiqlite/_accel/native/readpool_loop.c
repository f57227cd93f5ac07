/* The loop's side of the reader pool: jobs in, chunks of rows and one eventfd that says "news" out.
 *
 * Nothing here waits for SQLite; the mutex is held for moments only. Rules of the data: readpool.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "readpool_inside.h"

static void monotonic_condition(pthread_cond_t *condition) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

hq_job *hq_job_new(const char *sql, int sql_size, const uint8_t *parameters, size_t parameters_size) {
    hq_job *job = calloc(1, sizeof *job);
    char *bytes = malloc((size_t)sql_size + 1 + parameters_size + 1);
    if (job == NULL || bytes == NULL) {
        free(job);
        free(bytes);
        return NULL;
    }
    memcpy(bytes, sql, (size_t)sql_size);
    bytes[sql_size] = 0;
    if (parameters_size > 0)
        memcpy(bytes + sql_size + 1, parameters, parameters_size);
    job->sql = bytes;
    job->sql_size = sql_size;
    job->parameters = (const uint8_t *)bytes + sql_size + 1;
    job->parameters_size = parameters_size;
    job->cost_bytes = (size_t)sql_size + parameters_size + sizeof *job;
    atomic_init(&job->references, 1);
    atomic_init(&job->stop, HQ_STOP_NONE);
    monotonic_condition(&job->wanted);
    return job;
}

void hq_job_release(hq_job *job) {
    if (atomic_fetch_sub(&job->references, 1) != 1)
        return;
    while (job->first != NULL) {
        hq_chunk *chunk = job->first;
        job->first = chunk->next;
        free(chunk);
    }
    pthread_cond_destroy(&job->wanted);
    free(job->names);
    free(job->sql);
    free(job);
}

/* Mutex held. Chunks that nobody will fetch. */
static void drop_chunks(hq_pool *pool, hq_job *job) {
    while (job->first != NULL) {
        hq_chunk *chunk = job->first;
        job->first = chunk->next;
        free(chunk);
    }
    job->last = NULL;
    pool->counts.waiting_bytes -= job->bytes_waiting;
    job->bytes_waiting = 0;
}

void hq_pool_wake(hq_pool *pool) {
    uint64_t one = 1;
    ssize_t written;
    do
        written = write(pool->wake_fd, &one, sizeof one);
    while (written < 0 && errno == EINTR); /* EAGAIN: the counter is full, so the loop is awake already */
}

void hq_pool_notify(hq_pool *pool, hq_job *job) {
    if (job->signalled)
        return;
    job->signalled = 1;
    atomic_fetch_add(&job->references, 1);
    int first = pool->news == NULL;
    job->next_signalled = pool->news;
    pool->news = job;
    if (first)
        hq_pool_wake(pool);
}

void hq_pool_finish(hq_pool *pool, hq_job *job) {
    job->state = HQ_JOB_DONE;
    if (job->abandoned)
        drop_chunks(pool, job);
    if (job->error.kind == HQ_READ_STOPPED)
        pool->counts.stopped++;
    else if (job->error.kind != HQ_READ_OK)
        pool->counts.failed++;
    hq_pool_notify(pool, job);
}

hq_pool *hq_pool_new(int queue_max, size_t queue_bytes_max, size_t waiting_bytes_max) {
    hq_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    pool->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->wake_fd < 0) {
        free(pool);
        return NULL;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    monotonic_condition(&pool->work);
    monotonic_condition(&pool->ended);
    pool->references = 1;
    pool->queue_max = queue_max;
    pool->queue_bytes_max = queue_bytes_max;
    pool->waiting_bytes_max = waiting_bytes_max;
    return pool;
}

int hq_pool_fileno(const hq_pool *pool) { return pool->wake_fd; }

int hq_pool_submit(hq_pool *pool, hq_job *job) {
    int answer = HQ_SUBMITTED;
    pthread_mutex_lock(&pool->mutex);
    if (pool->closing) {
        answer = HQ_CLOSED;
    } else if (pool->counts.queued >= pool->queue_max ||
               pool->counts.queued_bytes + job->cost_bytes > pool->queue_bytes_max) {
        answer = HQ_OVERLOADED;
        pool->counts.overloads++;
    } else {
        atomic_fetch_add(&job->references, 1); /* the queue's, later the thread's */
        job->next = NULL;
        if (pool->last == NULL)
            pool->first = job;
        else
            pool->last->next = job;
        pool->last = job;
        pool->counts.queued++;
        pool->counts.queued_bytes += job->cost_bytes;
        pool->counts.jobs++;
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->mutex);
    return answer;
}

/* Mutex held. Takes a queued job out; its reference of the queue goes. */
static void withdraw(hq_pool *pool, hq_job *job, int reason) {
    hq_job *before = NULL, *at = pool->first;
    while (at != NULL && at != job) {
        before = at;
        at = at->next;
    }
    if (at == NULL)
        return;
    if (before == NULL)
        pool->first = job->next;
    else
        before->next = job->next;
    if (pool->last == job)
        pool->last = before;
    job->next = NULL;
    pool->counts.queued--;
    pool->counts.queued_bytes -= job->cost_bytes;
    hq_read_fail(&job->error, HQ_READ_STOPPED, reason, "%s", "");
    hq_pool_finish(pool, job);
    hq_job_release(job);
}

static void stop_locked(hq_pool *pool, hq_job *job, int reason) {
    int none = HQ_STOP_NONE;
    atomic_compare_exchange_strong(&job->stop, &none, reason);
    if (job->state == HQ_JOB_QUEUED) {
        withdraw(pool, job, reason);
    } else if (job->state == HQ_JOB_RUNNING) {
        /* The progress handler sees `stop`; this reaches what runs inside one opcode (count(*), a sort). */
        sqlite3_interrupt(job->running_on);
        pthread_cond_signal(&job->wanted);
    }
}

void hq_pool_stop_job(hq_pool *pool, hq_job *job, int reason) {
    pthread_mutex_lock(&pool->mutex);
    job->abandoned |= reason == HQ_STOP_CANCELLED;
    stop_locked(pool, job, reason);
    if (job->abandoned)
        drop_chunks(pool, job);
    pthread_mutex_unlock(&pool->mutex);
}

void hq_pool_stop_queued(hq_pool *pool, hq_job *job, int reason) {
    pthread_mutex_lock(&pool->mutex);
    if (job->state == HQ_JOB_QUEUED)
        stop_locked(pool, job, reason);
    pthread_mutex_unlock(&pool->mutex);
}

hq_chunk *hq_pool_fetch(hq_pool *pool, hq_job *job, int *state) {
    pthread_mutex_lock(&pool->mutex);
    hq_chunk *chunk = job->first;
    if (chunk != NULL) {
        job->first = chunk->next;
        if (job->first == NULL)
            job->last = NULL;
        chunk->next = NULL;
        job->bytes_waiting -= sizeof *chunk + chunk->capacity;
        pool->counts.waiting_bytes -= sizeof *chunk + chunk->capacity;
    }
    *state = job->state;
    pthread_mutex_unlock(&pool->mutex);
    return chunk;
}

void hq_pool_demand(hq_pool *pool, hq_job *job, int chunks) {
    pthread_mutex_lock(&pool->mutex);
    job->demand += chunks;
    pthread_cond_signal(&job->wanted);
    pthread_mutex_unlock(&pool->mutex);
}

int hq_pool_news(hq_pool *pool, uint64_t *tokens, int tokens_max) {
    uint64_t drained;
    int count = 0;
    pthread_mutex_lock(&pool->mutex);
    while (read(pool->wake_fd, &drained, sizeof drained) < 0 && errno == EINTR)
        ;
    while (pool->news != NULL && count < tokens_max) {
        hq_job *job = pool->news;
        pool->news = job->next_signalled;
        job->next_signalled = NULL;
        job->signalled = 0;
        tokens[count++] = job->token;
        hq_job_release(job);
    }
    if (pool->news != NULL)
        hq_pool_wake(pool);
    pthread_mutex_unlock(&pool->mutex);
    return count;
}

void hq_pool_close(hq_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pool->closing = 1;
    while (pool->first != NULL)
        stop_locked(pool, pool->first, HQ_STOP_CLOSING);
    for (int i = 0; i < pool->started; i++)
        if (pool->running[i] != NULL)
            stop_locked(pool, pool->running[i], HQ_STOP_CLOSING);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}

int hq_pool_join(hq_pool *pool, int64_t limit_ns) {
    struct timespec until = hq_as_timespec(hq_reads_now_ns() + limit_ns);
    pthread_mutex_lock(&pool->mutex);
    while (pool->counts.threads > 0)
        if (pthread_cond_timedwait(&pool->ended, &pool->mutex, &until) == ETIMEDOUT)
            break;
    int alive = pool->counts.threads;
    pthread_mutex_unlock(&pool->mutex);
    return alive;
}

void hq_pool_count(hq_pool *pool, hq_pool_counts *counts) {
    pthread_mutex_lock(&pool->mutex);
    *counts = pool->counts;
    pthread_mutex_unlock(&pool->mutex);
}

void hq_pool_release(hq_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    int left = --pool->references;
    pthread_mutex_unlock(&pool->mutex);
    if (left > 0)
        return;
    while (pool->news != NULL) {
        hq_job *job = pool->news;
        pool->news = job->next_signalled;
        hq_job_release(job);
    }
    close(pool->wake_fd);
    pthread_cond_destroy(&pool->ended);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}
