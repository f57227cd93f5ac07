/* The filler and the syncer: what has to happen beside the log thread, so that it waits for neither.
 *
 * The filler keeps zeros ahead of the writer and the next file ready, and takes purged files out of the log; when it
 * fails for want of space, `fill_full` refuses new work until it succeeds again. The syncer exists where `log_sync` does not wait for fsync: it starts one after each write
 * (immediate_async) or one per interval. Its failure is as final as the log thread's own. */
#include "wal_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Whether the filler has something to do. Asked by who writes batches. */
int hq_wal_wants_fill(hq_wal *log) {
    uint64_t offset = atomic_load(&log->offset), filled = atomic_load(&log->current.filled);
    uint64_t ahead = offset + HQ_FILL_AHEAD_BYTES / 2;
    int prepare = offset >= log->current.size / 2 && !atomic_load(&log->has_prepared);
    return (filled < ahead && filled < log->current.size) || prepare;
}

/* Nobody is woken for a wish that stands already: with an interval, batches come by the hundred until it is taken. */
void hq_wal_wish(hq_wal *log, int fill, int sync) {
    if (!fill && !sync)
        return;
    pthread_mutex_lock(&log->helper_mutex);
    int news = fill > log->fill_wish || sync > log->sync_wish || atomic_load(&log->stop);
    log->fill_wish |= fill;
    log->sync_wish |= sync;
    if (news)
        pthread_cond_broadcast(&log->helper);
    pthread_mutex_unlock(&log->helper_mutex);
}

/* Sleeps until `*wish` or `stop` or `until_ns` (0: no limit); takes the wish. */
static void wait_for(hq_wal *log, int *wish, int64_t until_ns) {
    struct timespec until = hq_after_ns(until_ns);
    int rc = 0;
    pthread_mutex_lock(&log->helper_mutex);
    while (!*wish && !atomic_load(&log->stop) && rc != ETIMEDOUT) {
        if (until_ns == 0)
            pthread_cond_wait(&log->helper, &log->helper_mutex);
        else
            rc = pthread_cond_timedwait(&log->helper, &log->helper_mutex, &until);
    }
    *wish = 0;
    pthread_mutex_unlock(&log->helper_mutex);
}

/* The next file: a purged one, or a new one. 0 or an errno. */
static int make_next(hq_wal *log, hq_segment *fresh) {
    uint64_t ahead = log->segment_bytes < HQ_FILL_AHEAD_BYTES ? log->segment_bytes : HQ_FILL_AHEAD_BYTES;
    return hq_wal_take_spare(log, fresh) ? 0 : hq_wal_create(log, "prepared.tmp", log->segment_bytes, ahead, fresh);
}

/* Zeros ahead of the log thread, through a descriptor of its own: the kernel tells each one once that writing back failed,
 * and a batch may be what failed, so nobody may hear it in the log thread's place. 0 or an errno; what is no full disk is
 * final. The caller holds fill_mutex. */
static int fill_current(hq_wal *log, uint64_t up_to) {
    char name[32];
    hq_wal_segment_name(log->current.number, name);
    int fd = openat(log->dir_fd, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = hq_wal_fill(&log->current, fd, 1, up_to);
    close(fd);
    if (error != 0 && error != ENOSPC && error != EDQUOT)
        hq_wal_fail(log, HQ_FAULT_SYNC, error);
    return error;
}

/* One step of filling. 1: done, look again; 0: nothing to do; below 0: minus an errno. */
static int fill_step(hq_wal *log) {
    int error = 0, filled = 0, prepare = 0;
    pthread_mutex_lock(&log->fill_mutex);
    hq_segment *current = &log->current;
    if (current->fd >= 0) {
        uint64_t at = atomic_load(&current->filled), offset = atomic_load(&log->offset);
        uint64_t goal = offset + HQ_FILL_AHEAD_BYTES < current->size ? offset + HQ_FILL_AHEAD_BYTES : current->size;
        if (at < goal) {
            uint64_t step = goal - at < HQ_FILL_CHUNK_BYTES ? goal - at : HQ_FILL_CHUNK_BYTES;
            error = fill_current(log, at + step);
            filled = 1;
        } else {
            prepare = log->prepared.fd < 0 && offset >= current->size / 2;
        }
    }
    pthread_mutex_unlock(&log->fill_mutex);
    if (filled)
        return error == 0 ? 1 : -error;
    if (!prepare)
        return 0;
    hq_segment fresh = {.fd = -1};
    error = make_next(log, &fresh);
    if (error != 0)
        return -error;
    pthread_mutex_lock(&log->fill_mutex); /* only this thread ever sets `prepared`, so it is still empty */
    log->prepared.fd = fresh.fd;
    log->prepared.reserved = fresh.reserved;
    log->prepared.size = fresh.size;
    atomic_store(&log->prepared.filled, atomic_load(&fresh.filled));
    atomic_store(&log->has_prepared, 1);
    pthread_mutex_unlock(&log->fill_mutex);
    return 1;
}

void *hq_wal_filler_main(void *argument) {
    hq_wal *log = argument;
    char name[16];
    snprintf(name, sizeof name, "hq-fill-%u", log->group);
    prctl(PR_SET_NAME, name, 0, 0, 0);
    int64_t retry_ns = 0;
    hq_wal_find_spares(log);
    while (!atomic_load(&log->stop)) {
        wait_for(log, &log->fill_wish, retry_ns);
        int rc = 1;
        while (rc > 0 && !atomic_load(&log->stop))
            rc = fill_step(log);
        int recycled = 1;
        while (recycled > 0 && !atomic_load(&log->stop) && !atomic_load(&log->fault_errno))
            recycled = hq_wal_recycle_step(log);
        if (recycled < 0)
            hq_wal_fail(log, HQ_FAULT_RECYCLE, -recycled);
        hq_wal_set_full(log, &log->fill_full, rc < 0);
        retry_ns = rc < 0 ? hq_now_ns() + HQ_RETRY_NS : 0;
    }
    hq_wal_release(log);
    return NULL;
}

void *hq_wal_syncer_main(void *argument) {
    hq_wal *log = argument;
    char name[16];
    snprintf(name, sizeof name, "hq-sync-%u", log->group);
    prctl(PR_SET_NAME, name, 0, 0, 0);
    int never = 0;
    while (!atomic_load(&log->stop) && !atomic_load(&log->fault_errno)) {
        wait_for(log, &log->sync_wish, 0);
        int64_t due_ns = hq_now_ns() + (int64_t)log->interval_ns;
        if (log->mode == HQ_SYNC_INTERVAL)
            while (!atomic_load(&log->stop) && hq_now_ns() < due_ns)
                wait_for(log, &never, due_ns);
        if (atomic_load(&log->disk_synced) >= atomic_load(&log->written))
            continue;
        atomic_store(&log->syncing, 1);
        int error = hq_wal_sync_current(log);
        atomic_store(&log->syncing, 0);
        if (error != 0)
            hq_wal_fail(log, HQ_FAULT_SYNC, error);
        hq_wal_wake(log); /* it may now mark what is synced */
    }
    hq_wal_release(log);
    return NULL;
}
