/* apply_checkpoint.c: moving SQLite's log into the database file, beside running writes.

   A checkpoint syncs megabytes of SQLite's log and writes pages all over the database; done by the thread that applies it
   stops every write for that long. So a thread of its own does it, on a connection of its own:

     1. It begins when enough pages wait, and everything applied is synced in this node's own log: so, but for what is
        applied while it runs, the database never knows durably what the log may still lose. (Nothing can exclude that,
        the system writes SQLite's log whenever it likes; a start that finds the database ahead of its log knows what to
        do, semantics.md section 3.)
     2. It reaches what was committed when it began. What was written meanwhile is less. Again from 1, until few pages are
        left; those the apply thread moves itself, so that for once nothing is left and SQLite starts its log from the
        beginning. Else the log would grow for ever.
     3. Where the disk is slower than the writes, few are never left. From HQ_CHECKPOINT_OVERDUE pages on writes wait for the
        copy under way, and the apply thread moves the rest whatever it is.

   Without a second connection (hq_checkpointer_use) the apply thread moves all of it.
   Invariants: one checkpoint at a time; the copier's connection is touched by its thread only, while state is RUNNING;
   everything else here is guarded by the queue's mutex. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "apply_thread.h"

enum { MISSES_MAX = 3 };

static int synced_past_applied(hq_queue *q) {
    return __atomic_load_n(&q->synced_index, __ATOMIC_SEQ_CST) >= q->worker->applied_index;
}

/* Pages enough for a checkpoint, whether or not it may be made yet. */
int hq_checkpoint_wanted(hq_queue *q) {
    const hq_checkpointer *c = &q->checkpointer;
    return c->state == HQ_COPY_IDLE &&
           (c->asked || c->closing_in || hq_checkpoint_due_pages(q->worker) >= HQ_CHECKPOINT_PAGES);
}

static int too_long(hq_queue *q) { return q->worker->wal_pages >= HQ_CHECKPOINT_OVERDUE; }

/* No run may begin: SQLite's log is long, and a copy is under way that makes it shorter. */
int hq_checkpoint_blocks(hq_queue *q) { return q->checkpointer.state == HQ_COPY_RUNNING && too_long(q); }

/* Whether the apply thread can take a step now. */
int hq_checkpoint_has_step(hq_queue *q) {
    if (q->busy)
        return 0;
    if (q->checkpointer.state == HQ_COPY_DONE) /* adopted in any case: a sync that failed is not told again */
        return 1;
    return !q->stop && !q->failed && hq_checkpoint_wanted(q) && synced_past_applied(q);
}

/* ------------------------------------------------------------------ steps of the apply thread */

/* The copying thread has ended its checkpoint: what did it reach? */
static void adopt(hq_queue *q) {
    hq_checkpointer *c = &q->checkpointer;
    hq_apply *w = q->worker;
    c->state = HQ_COPY_IDLE;
    int missed = (c->code & 0xff) == SQLITE_BUSY;
    if (c->code != SQLITE_OK && !missed) {
        c->closing_in = 0;
        int is_sync = c->code == SQLITE_IOERR_FSYNC; /* nothing tells of it twice */
        if ((c->code & 0xff) != SQLITE_INTERRUPT && (!w->failure.code || is_sync)) {
            hq_stop(w, c->code, "the checkpoint failed");
            q->failed = 0; /* whoever was told of another cause is told of this one */
        }
        return;
    }
    if (!missed) {
        hq_count(&w->checkpoint_count, 1);
        /* Fewer pages than when it began: SQLite has begun its log anew since, which it does when all of it was moved. */
        if (c->copied >= c->from_pages || w->wal_pages < c->from_pages)
            hq_durable_up_to(w, c->from_index);
        if (c->copied > w->wal_pages || w->wal_pages < c->from_pages)
            c->copied = c->from_pages = 0; /* none of what is in the new one was moved */
        missed = c->copied < c->from_pages;
        w->checkpoint_seen_pages = c->copied;
    }
    /* Once that is chance, a commit at that very moment: tried again at once, or the log would go on growing. Again and
       again it is an older reader, or somebody else's checkpoint: the next attempt is after as many pages again. */
    c->misses = missed ? c->misses + 1 : 0;
    int waits = c->misses >= MISSES_MAX;
    if (waits)
        w->checkpoint_seen_pages = w->wal_pages;
    c->closing_in = !waits && w->wal_pages > w->checkpoint_seen_pages;
}

/* One step; gives up the mutex meanwhile. 0: there was none. */
int hq_checkpoint_step(hq_queue *q) {
    hq_checkpointer *c = &q->checkpointer;
    if (!hq_checkpoint_has_step(q))
        return 0;
    if (c->state == HQ_COPY_DONE) {
        adopt(q);
        return 1;
    }
    c->asked = 0;
    int few = hq_checkpoint_due_pages(q->worker) <= HQ_CHECKPOINT_REST;
    if (c->started && !(c->closing_in && (few || too_long(q)))) {
        c->from_pages = q->worker->wal_pages;
        c->from_index = q->worker->applied_index;
        c->state = HQ_COPY_RUNNING;
        pthread_cond_signal(&c->wake);
        return 1;
    }
    q->busy = 1;
    pthread_mutex_unlock(&q->mutex);
    hq_checkpoint(q->worker, SQLITE_CHECKPOINT_PASSIVE);
    pthread_mutex_lock(&q->mutex);
    q->busy = 0;
    c->closing_in = 0;
    return 1;
}

/* Make what is applied durable soon: when it is synced in this node's own log. */
void hq_checkpoint_ask(hq_queue *q) {
    pthread_mutex_lock(&q->mutex);
    q->checkpointer.asked = hq_look(&q->worker->applied_index) > hq_look(&q->worker->durable_index);
    pthread_mutex_unlock(&q->mutex);
    pthread_cond_signal(&q->wake);
}

/* ------------------------------------------------------------------ the copying thread */

static void *copy(void *queue) {
    hq_queue *q = queue;
    hq_checkpointer *c = &q->checkpointer;
#ifdef __linux__
    prctl(PR_SET_NAME, "hq-checkpoint", 0, 0, 0);
#endif
    pthread_mutex_lock(&q->mutex);
    while (c->state == HQ_COPY_RUNNING || !c->stop) {
        if (c->state != HQ_COPY_RUNNING) {
            pthread_cond_wait(&c->wake, &q->mutex);
            continue;
        }
        pthread_mutex_unlock(&q->mutex);
        int pages = 0, copied = 0;
        int code = hq_mark_begun(q->worker, c->from_index);
        if (code == SQLITE_OK) {
            code = sqlite3_wal_checkpoint_v2(c->copier, "main", SQLITE_CHECKPOINT_PASSIVE, &pages, &copied);
            if (code != SQLITE_OK)
                code = sqlite3_extended_errcode(c->copier);
            else
                code = hq_mark_ended(q->worker, c->from_index, (uint64_t)copied >= c->from_pages, c->copier);
        }
        pthread_mutex_lock(&q->mutex);
        c->code = code;
        c->copied = copied > 0 ? (uint64_t)copied : 0;
        c->state = HQ_COPY_DONE;
        pthread_cond_signal(&q->wake);
    }
    pthread_mutex_unlock(&q->mutex);
    return NULL;
}

/* ------------------------------------------------------------------ life */

/* Before the start: a connection to the same database, used for nothing else. */
void hq_checkpointer_use(hq_queue *q, sqlite3 *copier) { q->checkpointer.copier = copier; }

/* Signals are blocked by the caller. 0 or an errno. */
int hq_checkpointer_start(hq_queue *q) {
    hq_checkpointer *c = &q->checkpointer;
    if (!c->copier)
        return 0;
    int error = pthread_create(&c->thread, NULL, copy, q);
    c->started = error == 0;
    return error;
}

/* Asks a checkpoint under way to end; nothing is lost, the next one goes on. */
void hq_checkpointer_interrupt(hq_queue *q) {
    if (q->checkpointer.started)
        sqlite3_interrupt(q->checkpointer.copier);
}

/* Not under the mutex. */
void hq_checkpointer_join(hq_queue *q) {
    hq_checkpointer *c = &q->checkpointer;
    if (!c->started)
        return;
    pthread_mutex_lock(&q->mutex);
    c->stop = 1;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&q->mutex);
    pthread_join(c->thread, NULL);
    c->started = 0;
}
