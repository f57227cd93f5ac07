/* apply_trial.c: writes are run once and undone before they are proposed, to learn whether they end.

   What is committed has to be applied to its end, however long that takes, so a statement without an end must not come so
   far. A trial runs on the writer's connection between two runs, as entries in a transaction of its own that is rolled
   back, each under a limit of time. Their answers are thrown away: what a write gives is found out when it is applied.
   Invariant: a trial leaves database, bookkeeping and what is known of failed entries as they were; an environmental
   error in it stops the trial, not the worker (unless the trial cannot be undone). */
#include <stdlib.h>
#include <string.h>

#include "apply_queue.h"
#include "apply_thread.h"

enum {
    LOOK_EVERY = 100,                 /* opcodes between two looks at clock, memory and disk */
    CACHE_BYTES_MAX = 64 << 20,       /* what a write may change that was told FULL, and does not blame the disk */
};

/* ------------------------------------------------------------------ asking */

int hq_queue_try(hq_queue *q, const hq_trial *asked, size_t size) {
    hq_trial *t = &q->trial;
    uint8_t *copy = malloc(size);
    if (!copy)
        return HQ_TRY_MEMORY;
    memcpy(copy, asked->records, size);
    pthread_mutex_lock(&q->mutex);
    int free_ = t->state == HQ_TRIAL_NONE && !q->stop && !q->stopped;
    if (free_) {
        *t = *asked;
        t->records = copy;
        t->state = HQ_TRIAL_ASKED;
    }
    pthread_mutex_unlock(&q->mutex);
    if (free_)
        pthread_cond_signal(&q->wake);
    else
        free(copy);
    return free_ ? HQ_TRY_ASKED : HQ_TRY_BUSY;
}

void hq_queue_cancel_trial(hq_queue *q) { __atomic_store_n(&q->trial.cancelled, 1, __ATOMIC_RELAXED); }

int hq_queue_trial_ended(hq_queue *q, hq_trial *ended) {
    pthread_mutex_lock(&q->mutex);
    int has_ended = q->trial.state == HQ_TRIAL_ENDED;
    if (has_ended) {
        free(q->trial.records);
        *ended = q->trial;
        ended->records = NULL;
        memset(&q->trial, 0, sizeof q->trial);
    }
    pthread_mutex_unlock(&q->mutex);
    return has_ended;
}

/* ------------------------------------------------------------------ trying */

typedef struct trying {
    hq_apply *w;
    hq_trial *t;
} trying;

static int64_t status_of(hq_apply *w, int what) {
    int now = 0, highest = 0;
    sqlite3_db_status(w->db, what, &now, &highest, 0);
    return now;
}

/* What the transaction has put on the disk before its time, because it did not fit into the cache. */
static int64_t spilled_bytes(hq_apply *w) { return status_of(w, SQLITE_DBSTATUS_CACHE_SPILL) * w->page_bytes; }

static int is_over(const hq_trial *t) {
    return t->late || t->out_of || __atomic_load_n(&t->cancelled, __ATOMIC_RELAXED);
}

static int look(void *both) {
    hq_apply *w = ((trying *)both)->w;
    hq_trial *t = ((trying *)both)->t;
    if (hq_now_ns() >= t->end_ns)
        t->late = 1;
    else if (sqlite3_memory_used() - t->memory_before > t->memory_bytes_max)
        t->out_of = HQ_OUT_OF_MEMORY;
    else if (t->looks_for_full ? status_of(w, SQLITE_DBSTATUS_CACHE_USED) > CACHE_BYTES_MAX
                               : spilled_bytes(w) > t->disk_bytes_max)
        t->out_of = HQ_OUT_OF_DISK;
    return is_over(t);
}

/* The writes one after the other, until one does not end, or changes the schema, or all of them have taken long enough. */
static hq_outcome try_each(hq_apply *w, hq_trial *t) {
    int64_t all_ns = 0;
    hq_outcome outcome = HQ_OK;
    t->changes_schema = 0;
    for (t->passed = 0; t->passed < t->count && all_ns < HQ_RUN_NS_MAX && !w->changed_schema;) {
        hq_tried *tried = &t->writes[t->passed];
        const uint8_t *record = t->records + tried->at;
        if (t->passed > 0 && hq_entry_wants_foreign_keys_off(record))
            break; /* it runs alone */
        int64_t begin_ns = hq_now_ns();
        t->end_ns = begin_ns + tried->limit_ns - tried->spent_ns; /* what an attempt before this one took counts */
        outcome = hq_entry_apply(w, record, t->passed);
        int64_t spent_ns = hq_now_ns() - begin_ns;
        tried->spent_ns += spent_ns;
        all_ns += spent_ns;
        t->late = t->late || tried->spent_ns >= tried->limit_ns; /* one opcode may be long */
        if (outcome != HQ_OK || is_over(t))
            break;
        t->passed++;
        t->changes_schema = w->changed_schema;
        w->answers.size = 0;
    }
    return outcome;
}

/* REPLAY as for a run, any other outcome is the end. */
static hq_outcome attempt(hq_apply *w, hq_trial *t) {
    trying both = {w, t};
    int now, highest;
    hq_outcome outcome = hq_run_open(w);
    if (outcome == HQ_OK) {
        sqlite3_db_status(w->db, SQLITE_DBSTATUS_CACHE_SPILL, &now, &highest, 1);
        sqlite3_progress_handler(w->db, LOOK_EVERY, look, &both);
        outcome = try_each(w, t);
        sqlite3_progress_handler(w->db, 0, NULL, NULL);
    }
    t->why = w->failure;
    w->failure.code = 0; /* what stopped the trial does not stop the worker ... */
    hq_run_undo(w, outcome);
    return w->failure.code ? HQ_STOP : outcome; /* ... but what keeps it from being undone does */
}

static void try_writes(hq_apply *w, hq_trial *t) {
    sqlite3_mutex *mutex = sqlite3_db_mutex(w->db);
    sqlite3_mutex_enter(mutex);
    w->foreign_keys_off = hq_entry_wants_foreign_keys_off(t->records + t->writes[0].at);
    w->spill_off = 0;
    t->memory_before = sqlite3_memory_used();
    w->trying = 1;
    while (attempt(w, t) == HQ_REPLAY && !is_over(t))
        t->looks_for_full = w->spill_off = w->spill_off || w->full_seen;
    w->foreign_keys_off = w->spill_off = w->trying = 0;
    hq_recorded_clear(w);
    hq_slow_clear(w);
    free(w->answers.data);
    w->answers = (hq_buffer){NULL, 0, 0};
    sqlite3_mutex_leave(mutex);
}

/* ------------------------------------------------------------------ on the thread */

int hq_trial_waits(const hq_queue *q) { return q->trial.state == HQ_TRIAL_ASKED && !q->busy; }

void hq_trial_step(hq_queue *q) {
    hq_trial *t = &q->trial;
    t->state = HQ_TRIAL_RUNS;
    if (q->failed) {
        t->why = q->failure;
    } else {
        pthread_mutex_unlock(&q->mutex);
        try_writes(q->worker, t);
        pthread_mutex_lock(&q->mutex);
        if (q->worker->failure.code)
            hq_queue_fail(q);
    }
    t->state = HQ_TRIAL_ENDED;
    hq_queue_notify(q);
}

void hq_trial_give_up(hq_queue *q) {
    if (q->trial.state != HQ_TRIAL_ASKED)
        return;
    q->trial.cancelled = 1;
    q->trial.state = HQ_TRIAL_ENDED;
}
