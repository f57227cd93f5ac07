/* apply_thread.c: the thread that owns the writer connection, and the work that it shares with hq_queue_inline.

   It never takes the GIL, handles no signal, and holds nothing that the process needs in order to exit.
   It also takes the steps of a checkpoint that are its own (apply_checkpoint.c), only when everything applied here is also
   synced in this node's own log. If the log's sync lags for long, runs are cut at the synced index, so that the
   condition comes true. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "apply_thread.h"

/* ------------------------------------------------------------------ sync and checkpoint */

static uint64_t synced(hq_queue *q) { return __atomic_load_n(&q->synced_index, __ATOMIC_SEQ_CST); }

static int overdue(hq_queue *q) { return synced(q) > 0 && hq_checkpoint_due_pages(q->worker) >= HQ_CHECKPOINT_OVERDUE; }

/* No run may begin: a checkpoint is overdue and the next entry is not synced. */
int hq_queue_waits_for_sync(hq_queue *q) { return overdue(q) && synced(q) <= q->worker->applied_index; }

void hq_queue_fail(hq_queue *q) {
    q->failed = 1;
    q->failure = q->worker->failure;
    hq_queue_notify(q);
}

/* ------------------------------------------------------------------ cursor */

static void take_jobs(hq_queue *q) {
    if (!q->head)
        return;
    if (q->active)
        q->active_tail->next = q->head;
    else
        q->active = q->head;
    q->active_tail = q->tail;
    q->head = q->tail = NULL;
}

/* The record at (job, piece, offset), or NULL at the end of the job; skips empty pieces. */
static const uint8_t *record_at(const hq_job *job, uint32_t *piece, size_t *offset, size_t *left) {
    while (*piece < job->piece_count) {
        if (*offset < job->pieces[*piece].size) {
            *left = job->pieces[*piece].size - *offset;
            return job->pieces[*piece].data + *offset;
        }
        ++*piece;
        *offset = 0;
    }
    return NULL;
}

/* Collects the next entries, at most one run's worth; -1: a record is not what was submitted (worker->failure). */
static int gather(hq_queue *q, uint64_t index_max, size_t *size) {
    uint64_t index = q->worker->applied_index + 1;
    uint32_t piece = q->piece, count = 0;
    size_t offset = q->offset;
    *size = 0;
    for (hq_job *job = q->active; job; job = job->next, piece = 0, offset = 0) {
        const uint8_t *record;
        size_t left;
        while ((record = record_at(job, &piece, &offset, &left)) != NULL) {
            if (count == HQ_RUN_ENTRIES_MAX || *size >= HQ_RUN_BYTES_MAX || index > index_max)
                return (int)count;
            uint8_t kind = left >= HQ_RECORD_HEADER ? hq_record_kind_of(record) : 0;
            if (hq_record_check(record, left, 0) != HQ_RECORD_OK || hq_record_index(record) != index ||
                (kind != HQ_KIND_ENTRY && kind != HQ_KIND_REPAIR)) {
                char text[80];
                snprintf(text, sizeof text, "the record of entry %llu is not what was committed", (unsigned long long)index);
                q->worker->index = index;
                hq_stop(q->worker, SQLITE_INTERNAL, text);
                return -1;
            }
            q->entries[count++] = (hq_run_entry){record, job->want_answers};
            *size += hq_record_length(record);
            offset += hq_record_length(record);
            index++;
        }
    }
    if (count == 0) {
        hq_stop(q->worker, SQLITE_INTERNAL, "a submission holds fewer entries than it says");
        return -1;
    }
    return (int)count;
}

/* Moves the cursor behind `last`; jobs that are used up go to `finished`. Under the mutex. */
static void advance(hq_queue *q, uint64_t count) {
    while (q->active) {
        size_t left;
        const uint8_t *record = record_at(q->active, &q->piece, &q->offset, &left);
        if (record && count == 0)
            return;
        if (record) {
            q->offset += hq_record_length(record);
            count--;
            continue;
        }
        hq_job *job = q->active;
        q->active = job->next;
        q->piece = 0;
        q->offset = 0;
        job->next = q->finished;
        q->finished = job;
        __atomic_sub_fetch(&q->queued_bytes, job->size, __ATOMIC_RELAXED);
    }
}

/* ------------------------------------------------------------------ work */

static void publish(hq_queue *q, hq_run_result *result) {
    if (q->done_tail)
        q->done_tail->next = result;
    else
        q->done = result;
    q->done_tail = result;
}

void hq_queue_work(hq_queue *q, int notify) {
    hq_apply *w = q->worker;
    hq_run_result *result = NULL;
    size_t size = 0;
    take_jobs(q);
    uint64_t index_max = overdue(q) ? synced(q) : UINT64_MAX;
    pthread_mutex_unlock(&q->mutex);
    int64_t begin_ns = hq_now_ns();
    int count = gather(q, index_max, &size);
    hq_outcome outcome = count < 0 ? HQ_STOP : hq_run_apply(w, q->entries, (uint32_t)count, &result);
    int64_t spent_ns = hq_now_ns() - begin_ns;
    if (outcome == HQ_OK && result->last - result->first + 1 < (uint64_t)count)
        size = size / (size_t)count * (size_t)(result->last - result->first + 1);
    hq_queue_learn(q, size, spent_ns);
    pthread_mutex_lock(&q->mutex);
    if (outcome == HQ_OK) {
        advance(q, result->last - result->first + 1);
        publish(q, result);
        if (notify)
            hq_queue_notify(q);
    }
    if (w->failure.code)
        hq_queue_fail(q);
}

/* ------------------------------------------------------------------ thread */

static int can_work(hq_queue *q) {
    return !q->busy && !q->failed && (q->head || q->active) && !hq_queue_waits_for_sync(q) && !hq_checkpoint_blocks(q);
}

static int may_leave(hq_queue *q) {
    if (q->checkpointer.state != HQ_COPY_IDLE)
        return 0;
    return q->stop == HQ_STOP_NOW || (q->stop == HQ_STOP_DRAINED && !can_work(q) && !q->busy);
}

static void *run(void *queue) {
    hq_queue *q = queue;
#ifdef __linux__
    prctl(PR_SET_NAME, "hq-apply", 0, 0, 0);
#endif
    pthread_mutex_lock(&q->mutex);
    while (!may_leave(q)) {
        /* First, for under load the moment in which all that is applied is synced is short; most steps are too. */
        if (hq_checkpoint_step(q)) {
            if (q->worker->failure.code && !q->failed)
                hq_queue_fail(q);
            continue;
        }
        if (can_work(q)) {
            q->busy = 1;
            hq_queue_work(q, 1);
            q->busy = 0;
        }
        if (can_work(q) || may_leave(q) || hq_checkpoint_has_step(q))
            continue;
        if (hq_trial_waits(q)) {
            q->busy = 1;
            hq_trial_step(q);
            q->busy = 0;
            continue;
        }
        int wants_sync = !q->busy && !q->failed && hq_checkpoint_wanted(q);
        __atomic_store_n(&q->wants_sync, wants_sync, __ATOMIC_SEQ_CST);
        /* Looked at again after wants_sync is up: a set_synced before it did not signal. */
        if (wants_sync && (can_work(q) || hq_checkpoint_has_step(q)))
            continue;
        pthread_cond_wait(&q->wake, &q->mutex);
    }
    q->stopped = 1;
    hq_trial_give_up(q);
    hq_queue_notify(q);
    pthread_mutex_unlock(&q->mutex);
    return NULL;
}

int hq_queue_start(hq_queue *q, const int *cpus, int cpu_count) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    q->started = 1;
    int rc = pthread_create(&q->thread, NULL, run, q);
    if (rc != 0)
        q->started = 0;
    else
        rc = hq_checkpointer_start(q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
#ifdef __linux__
    if (rc == 0 && cpu_count > 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        for (int i = 0; i < cpu_count; i++)
            if (cpus[i] >= 0 && cpus[i] < CPU_SETSIZE)
                CPU_SET(cpus[i], &set);
        rc = pthread_setaffinity_np(q->thread, sizeof set, &set);
    }
#endif
    return rc;
}
