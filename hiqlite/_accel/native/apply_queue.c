/* apply_queue.c: jobs in, runs out; see apply_queue.h for the contract. The thread stands in apply_thread.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "apply_queue.h"
#include "apply_thread.h"

enum { RUN_COST_NS = 15000 }; /* BEGIN, bookkeeping row and COMMIT, whatever stands between */

hq_queue *hq_queue_open(hq_apply *worker) {
    hq_queue *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->worker = worker;
    q->submitted_index = worker->applied_index;
    q->ns_per_byte = 10.0;
    q->entries = malloc(HQ_RUN_ENTRIES_MAX * sizeof *q->entries);
    q->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!q->entries || q->event_fd < 0) {
        if (q->event_fd >= 0)
            close(q->event_fd);
        free(q->entries);
        free(q);
        return NULL;
    }
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->wake, NULL);
    pthread_cond_init(&q->checkpointer.wake, NULL);
    return q;
}

hq_job *hq_job_new(uint32_t piece_count) {
    hq_job *job = calloc(1, sizeof *job + piece_count * sizeof(hq_piece));
    if (job)
        job->piece_count = piece_count;
    return job;
}

/* ------------------------------------------------------------------ in */

static void push(hq_queue *q, hq_job *job) {
    job->next = NULL;
    if (q->tail)
        q->tail->next = job;
    else
        q->head = job;
    q->tail = job;
    q->submitted_index = job->last;
    __atomic_add_fetch(&q->queued_bytes, job->size, __ATOMIC_RELAXED);
}

void hq_queue_submit(hq_queue *q, hq_job *job) {
    pthread_mutex_lock(&q->mutex);
    push(q, job);
    pthread_mutex_unlock(&q->mutex);
    pthread_cond_signal(&q->wake);
}

/* Applies the job on this thread if nobody else is at it and nothing waits before it. */
int hq_queue_inline(hq_queue *q, hq_job *job, int only_cheap) {
    pthread_mutex_lock(&q->mutex);
    int free_ = !q->busy && !q->failed && !q->stop && !q->head && !q->active && !hq_queue_waits_for_sync(q) &&
                !hq_checkpoint_blocks(q);
    free_ = free_ && (!only_cheap || hq_job_is_cheap(q->worker, job));
    push(q, job);
    if (free_) {
        q->busy = 1;
        while (!q->failed && (q->head || q->active) && !hq_queue_waits_for_sync(q)) {
            hq_queue_work(q, 0);
            hq_count(&q->inline_runs, 1);
        }
        q->busy = 0;
    }
    /* The parked thread does not know yet: let set_synced wake it. One that is busy owns the worker, and looks afterwards. */
    if (!q->busy && hq_checkpoint_wanted(q))
        __atomic_store_n(&q->wants_sync, 1, __ATOMIC_SEQ_CST);
    int signal = q->head || q->active || hq_checkpoint_has_step(q) || hq_trial_waits(q); /* its own found us busy */
    pthread_mutex_unlock(&q->mutex);
    if (signal)
        pthread_cond_signal(&q->wake);
    return free_;
}

int64_t hq_queue_predict_ns(hq_queue *q, size_t size) {
    double per_byte;
    __atomic_load(&q->ns_per_byte, &per_byte, __ATOMIC_RELAXED);
    return RUN_COST_NS + (int64_t)(per_byte * (double)size);
}

void hq_queue_learn(hq_queue *q, size_t size, int64_t spent_ns) {
    double now = size ? (double)(spent_ns > RUN_COST_NS ? spent_ns - RUN_COST_NS : 0) / (double)size : q->ns_per_byte;
    /* Up quickly, down slowly: a wrong guess upwards costs a wake-up, downwards it blocks the loop. */
    double share = now > q->ns_per_byte ? 0.5 : 0.1;
    now = q->ns_per_byte * (1 - share) + now * share;
    __atomic_store(&q->ns_per_byte, &now, __ATOMIC_RELAXED);
    __atomic_add_fetch(&q->busy_ns, spent_ns, __ATOMIC_RELAXED);
}

void hq_queue_set_synced(hq_queue *q, uint64_t index) {
    __atomic_store_n(&q->synced_index, index, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&q->wants_sync, __ATOMIC_SEQ_CST))
        return;
    pthread_mutex_lock(&q->mutex); /* so that the signal cannot fall between its look and its wait */
    pthread_mutex_unlock(&q->mutex);
    pthread_cond_signal(&q->wake);
}

/* ------------------------------------------------------------------ out */

void hq_queue_notify(hq_queue *q) {
    uint64_t one = 1;
    if (q->notified)
        return;
    q->notified = 1;
    while (write(q->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

hq_run_result *hq_queue_take(hq_queue *q, hq_job **finished) {
    uint64_t count;
    pthread_mutex_lock(&q->mutex);
    if (q->notified) {
        while (read(q->event_fd, &count, sizeof count) < 0 && errno == EINTR)
            ;
        q->notified = 0;
    }
    hq_run_result *done = q->done;
    *finished = q->finished;
    q->done = q->done_tail = NULL;
    q->finished = NULL;
    pthread_mutex_unlock(&q->mutex);
    return done;
}

int hq_queue_failure(hq_queue *q, hq_failure *failure) {
    pthread_mutex_lock(&q->mutex);
    int failed = q->failed;
    if (failed)
        *failure = q->failure;
    pthread_mutex_unlock(&q->mutex);
    return failed;
}

/* The cause is gone: apply again from the first entry that is not in the database. That a sync failed stays so. */
void hq_queue_resume(hq_queue *q) {
    pthread_mutex_lock(&q->mutex);
    if (!q->busy && q->worker->failure.code != SQLITE_IOERR_FSYNC) {
        q->failed = 0;
        q->worker->failure.code = 0;
    }
    pthread_mutex_unlock(&q->mutex);
    pthread_cond_signal(&q->wake);
}

/* ------------------------------------------------------------------ the end */

void hq_queue_stop(hq_queue *q, enum hq_stop_mode mode) {
    pthread_mutex_lock(&q->mutex);
    if (mode > (enum hq_stop_mode)q->stop)
        q->stop = mode;
    int interrupt = q->stop == HQ_STOP_NOW && q->busy && q->started && !q->stopped;
    pthread_mutex_unlock(&q->mutex);
    pthread_cond_signal(&q->wake);
    if (interrupt)
        sqlite3_interrupt(q->worker->db);
    if (mode == HQ_STOP_NOW)
        hq_checkpointer_interrupt(q);
}

int hq_queue_stopped(hq_queue *q) {
    pthread_mutex_lock(&q->mutex);
    int stopped = q->stopped || !q->started;
    pthread_mutex_unlock(&q->mutex);
    return stopped;
}

void hq_queue_join(hq_queue *q) {
    if (q->started)
        pthread_join(q->thread, NULL);
    q->started = 0;
    hq_checkpointer_join(q);
}

static hq_job *append(hq_job *list, hq_job *more) {
    if (!more)
        return list;
    hq_job *last = more;
    while (last->next)
        last = last->next;
    last->next = list;
    return more;
}

hq_job *hq_queue_close(hq_queue *q) {
    hq_job *left = append(append(append(NULL, q->finished), q->head), q->active);
    while (q->done) {
        hq_run_result *next = q->done->next;
        hq_run_result_free(q->done);
        q->done = next;
    }
    free(q->trial.records);
    close(q->event_fd);
    pthread_mutex_destroy(&q->mutex);
    pthread_cond_destroy(&q->wake);
    pthread_cond_destroy(&q->checkpointer.wake);
    free(q->entries);
    free(q);
    return left;
}
