/* The log thread: takes all that waits, flushes it, says so; marks what is synced when it falls idle.
 *
 * Never takes the GIL. Lives until `stop`, then empties the queue, syncs, and leaves a last mark, so that a clean stop
 * leaves no unproven tail. A full disk makes it wait (nothing was written yet, nothing is lost); any other error ends
 * its work for ever: what the kernel did with pages whose fsync failed is unknown. */
#include "wal_log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>

static int disk_is_full(int error) { return error == ENOSPC || error == EDQUOT; }

/* Sleeps until there is work, `stop`, or `until_ns` (0: no limit). `synced`: what the disk held when the thread decided
 * that it has nothing to say. */
static void park(hq_wal *log, int64_t until_ns, uint64_t synced) {
    struct timespec until = hq_after_ns(until_ns);
    pthread_mutex_lock(&log->park_mutex);
    atomic_store(&log->parked, 1);
    if (atomic_load(&log->queue) == NULL && !atomic_load(&log->stop) && atomic_load(&log->disk_synced) == synced) {
        if (until_ns == 0)
            pthread_cond_wait(&log->park, &log->park_mutex);
        else
            pthread_cond_timedwait(&log->park, &log->park_mutex, &until);
    }
    atomic_store(&log->parked, 0);
    pthread_mutex_unlock(&log->park_mutex);
}

/* Waits for space, however long; 0 when it is worth another try, ENOSPC when the log is to stop. */
static int wait_for_space(hq_wal *log) {
    struct timespec until = hq_after_ns(hq_now_ns() + HQ_RETRY_NS);
    hq_wal_set_full(log, &log->log_full, 1);
    pthread_mutex_lock(&log->park_mutex);
    if (!atomic_load(&log->stop))
        pthread_cond_timedwait(&log->park, &log->park_mutex, &until);
    pthread_mutex_unlock(&log->park_mutex);
    return atomic_load(&log->stop) ? ENOSPC : 0;
}

/* Ends the current segment, if there is one, and brings the next one into use. */
static int rotate(hq_wal *log, uint64_t need, int *where) {
    int error = 0;
    if (log->current.fd >= 0) {
        *where = HQ_FAULT_WRITE;
        if (!log->ended)
            error = hq_wal_write_local(log, HQ_KIND_SEGMENT_END);
        if (error != 0)
            return error;
        *where = HQ_FAULT_SYNC; /* the new segment's header says that everything below it is durable */
        error = hq_wal_sync_current(log);
        if (error != 0)
            return disk_is_full(error) ? EIO : error; /* a sync that failed is never tried again */
    }
    *where = HQ_FAULT_CREATE;
    return hq_wal_activate(log, need);
}

/* How many of `jobs` go into one batch, and their bytes: at least one, at most a slice, all in one segment. */
static size_t collect(const hq_job *jobs, uint64_t room, uint64_t *bytes) {
    uint64_t limit = room < HQ_SLICE_BYTES ? room : HQ_SLICE_BYTES;
    size_t count = 0;
    *bytes = 0;
    for (; jobs != NULL && count < HQ_BATCH_JOBS; jobs = jobs->next, count++) {
        if (count > 0 && *bytes + jobs->size > limit)
            break;
        *bytes += jobs->size;
    }
    return count;
}

static uint64_t room_left(const hq_wal *log) {
    uint64_t used = atomic_load(&log->offset) + HQ_BATCH_HEADER + HQ_LOCAL_BATCH;
    return log->current.fd < 0 || log->ended || used >= log->current.size ? 0 : log->current.size - used;
}

/* One batch off the front of the list. 0, or an errno: ENOSPC only before anything of it was written. */
static int flush_some(hq_wal *log, hq_job **jobs, int *where) {
    uint64_t bytes, need = HQ_BATCH_HEADER + (*jobs)->size;
    int error = room_left(log) < (*jobs)->size ? rotate(log, need, where) : 0;
    if (error != 0)
        return error;
    size_t count = collect(*jobs, room_left(log), &bytes);
    *where = HQ_FAULT_CREATE;
    error = hq_wal_make_room(log, atomic_load(&log->offset) + HQ_BATCH_HEADER + bytes);
    if (error != 0)
        return error;
    hq_wal_set_full(log, &log->log_full, 0);
    error = hq_wal_flush(log, *jobs, count, where);
    if (error != 0)
        return disk_is_full(error) ? EIO : error;
    hq_job *done = *jobs, *end = done;
    for (size_t i = 1; i < count; i++)
        end = end->next;
    *jobs = end->next;
    end->next = NULL;
    hq_wal_finish(log, done);
    return 0;
}

static void work(hq_wal *log, hq_job *jobs) {
    while (jobs != NULL && !log->gave_up && !atomic_load(&log->fault_errno)) {
        int where = HQ_FAULT_WRITE;
        int error = flush_some(log, &jobs, &where);
        if (error == 0) {
            hq_wal_notify(log);
            hq_wal_wish(log, hq_wal_wants_fill(log), log->mode != HQ_SYNC_IMMEDIATE);
        } else if (!disk_is_full(error)) {
            hq_wal_fail(log, where, error);
        } else if (wait_for_space(log) != 0) {
            log->gave_up = 1; /* nor is anything written that was queued behind it: a log has no gaps */
        }
    }
    if (jobs != NULL) {
        hq_wal_finish(log, jobs); /* never written: the loop learns it from `fault` or from the stop that it asked for */
        hq_wal_notify(log);
    }
}

/* Is there a durable batch that no header on disk says to be durable? */
static int unsaid(const hq_wal *log) {
    return log->current.fd >= 0 && !log->ended && atomic_load(&log->fault_errno) == 0 &&
           atomic_load(&log->disk_synced) >= log->last_io && log->said < log->last_io;
}

static void mark(hq_wal *log) {
    int cramped = atomic_load(&log->offset) + 2 * HQ_LOCAL_BATCH > log->current.size;
    int error = hq_wal_write_local(log, cramped ? HQ_KIND_SEGMENT_END : HQ_KIND_SYNCED);
    if (disk_is_full(error))
        log->said = log->last_io; /* a mark is a courtesy: a full disk goes without it */
    else if (error != 0)
        hq_wal_fail(log, HQ_FAULT_WRITE, error);
}

static void finish_cleanly(hq_wal *log) {
    int error = 0;
    if (atomic_load(&log->fault_errno) != 0 || log->current.fd < 0)
        return;
    if (atomic_load(&log->disk_synced) < atomic_load(&log->written))
        error = hq_wal_sync_current(log);
    if (error == 0 && unsaid(log)) {
        mark(log);
        error = hq_wal_sync_current(log);
    }
    if (error != 0)
        hq_wal_fail(log, HQ_FAULT_SYNC, error);
}

/* One round of the thread. 0: it ends. `until_ns`: how long it may sleep now (0: no limit); -1: it may not. */
static int step(hq_wal *log, int64_t *idle_since_ns, int64_t *until_ns) {
    int goes_on = 1;
    *until_ns = -1;
    pthread_mutex_lock(&log->work_mutex);
    hq_job *jobs = hq_wal_take(log);
    if (jobs != NULL) {
        work(log, jobs);
        *idle_since_ns = hq_now_ns();
    } else if (atomic_load(&log->stop)) {
        goes_on = 0;
    } else if (!unsaid(log)) {
        *until_ns = 0;
    } else if (hq_now_ns() - *idle_since_ns >= HQ_IDLE_NS) {
        mark(log);
    } else {
        *until_ns = *idle_since_ns + HQ_IDLE_NS;
    }
    pthread_mutex_unlock(&log->work_mutex);
    return goes_on;
}

static void *log_main(void *argument) {
    hq_wal *log = argument;
    char name[16];
    snprintf(name, sizeof name, "hq-log-%u", log->group);
    prctl(PR_SET_NAME, name, 0, 0, 0);
    int64_t idle_since_ns = 0, until_ns;
    for (;;) {
        uint64_t synced = atomic_load(&log->disk_synced);
        if (!step(log, &idle_since_ns, &until_ns))
            break;
        if (until_ns >= 0)
            park(log, until_ns, synced);
    }
    finish_cleanly(log);
    hq_wal_wish(log, 1, 1); /* the helpers look at `stop` */
    hq_wal_notify(log);
    hq_wal_release(log);
    return NULL;
}

static int spawn(hq_wal *log, void *(*main)(void *)) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED); /* process exit never waits for a disk */
    pthread_attr_setstacksize(&attributes, 512 << 10);
    atomic_fetch_add(&log->users, 1);
    int error = pthread_create(&thread, &attributes, main, log);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        atomic_fetch_sub(&log->users, 1);
    return error;
}

/* Starts the threads, signals blocked in them. 0 or an errno; then nothing runs. */
int hq_wal_start(hq_wal *log) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = spawn(log, hq_wal_filler_main);
    if (error == 0 && log->mode != HQ_SYNC_IMMEDIATE)
        error = spawn(log, hq_wal_syncer_main);
    if (error == 0)
        error = spawn(log, log_main);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        atomic_store(&log->stop, 1);
        hq_wal_wish(log, 1, 1);
    }
    return error;
}
