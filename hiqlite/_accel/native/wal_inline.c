/* A batch that the loop writes itself: where no answer waits for fsync and the log thread sleeps, waking it, and being
 * woken by it, costs more than the write.
 *
 * Only what cannot wait for anything: a few entries that fit behind what the file holds, in blocks that were filled
 * before, while nobody syncs the file (a page on its way to the disk may hold up who writes to it). All else (a new
 * segment, a full disk, whatever has to be synced) is the log thread's. Nothing is overtaken: a log thread that is parked
 * has emptied the queue, and only the loop fills it. */
#include "wal_log.h"

#include <errno.h>

/* Whether the batch fits where nothing has to be waited for. With work_mutex. */
static int fits(hq_wal *log, size_t size) {
    uint64_t end = atomic_load(&log->offset) + HQ_BATCH_HEADER + size;
    if (log->current.fd < 0 || log->ended || end + HQ_LOCAL_BATCH > log->current.size)
        return 0;
    return atomic_load(&log->current.filled) >= end;
}

/* 1: it is written, or the log has failed in trying; the job is no longer needed. 0: it has to be queued. */
int hq_wal_write_now(hq_wal *log, hq_job *job) {
    if (log->mode == HQ_SYNC_IMMEDIATE || job->size > HQ_INLINE_BYTES || atomic_load(&log->syncing) ||
        !atomic_load(&log->parked))
        return 0;
    if (pthread_mutex_trylock(&log->work_mutex) != 0)
        return 0; /* it woke by itself, to leave a mark */
    int where = HQ_FAULT_WRITE, error = 0, done = 0;
    if (fits(log, job->size) && atomic_load(&log->queue) == NULL && !atomic_load(&log->fault_errno) &&
        !atomic_load(&log->stop)) {
        error = hq_wal_flush(log, job, 1, &where);
        done = 1;
    }
    pthread_mutex_unlock(&log->work_mutex);
    if (error != 0)
        hq_wal_fail(log, where, error == ENOSPC || error == EDQUOT ? EIO : error);
    else if (done)
        hq_wal_wish(log, hq_wal_wants_fill(log), 1);
    return done;
}
