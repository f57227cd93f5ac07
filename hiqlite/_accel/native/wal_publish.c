/* What the loop's side reads of a running log: numbers that only grow, and which of them it may believe.
 *
 * `synced` is held below the first io sequence of a segment until the metadata names that segment: else a log whose
 * newest file vanished could not be told from one that never had it. Must not touch files. */
#include "wal_log.h"

#include <errno.h>
#include <unistd.h>

/* Everything up to `io_sequence` is on disk or was cut by recovery. Headers speak of what was kept only: the first batch
 * behind a cut follows `last_io`, and were it torn, "synced up to" a sequence that was cut would make it a promise. */
void hq_wal_begin(hq_wal *log, uint64_t io_sequence, uint64_t last_io, uint64_t said) {
    log->last_io = last_io;
    log->said = log->current.fd >= 0 ? said : last_io; /* a mark stands in the segment it speaks of, or not at all */
    atomic_store(&log->written, io_sequence);
    atomic_store(&log->disk_synced, last_io);
    atomic_store(&log->synced, io_sequence);
    atomic_store(&log->progress_ns, hq_boot_ns());
}

uint64_t hq_wal_written(hq_wal *log) { return atomic_load(&log->written); }

/* The number first, the holds after it: the log thread sets a hold before it publishes what is held. */
uint64_t hq_wal_synced(hq_wal *log) {
    uint64_t synced = atomic_load(&log->synced);
    uint64_t waiting = atomic_load(&log->waiting_io), held = atomic_load(&log->held_io);
    if (waiting != 0 && waiting <= synced)
        synced = waiting - 1;
    if (held != 0 && held <= synced)
        synced = held - 1;
    return synced;
}

void hq_wal_look(hq_wal *log, hq_published *seen) {
    seen->written = hq_wal_written(log);
    seen->synced = hq_wal_synced(log);
    seen->disk_synced = atomic_load(&log->disk_synced);
    seen->queued_bytes = atomic_load(&log->queued_bytes);
    seen->held_io = atomic_load(&log->held_io);
    seen->flushes = atomic_load(&log->flushes);
    seen->fsyncs = atomic_load(&log->fsyncs);
    seen->batch_bytes = atomic_load(&log->batch_bytes);
    seen->purge_marked = atomic_load(&log->purge_marked);
    seen->progress_ns = atomic_load(&log->progress_ns);
    seen->fault_errno = atomic_load(&log->fault_errno);
    seen->fault = atomic_load(&log->fault);
    seen->full = atomic_load(&log->log_full) || atomic_load(&log->fill_full);
    seen->threads_ended = atomic_load(&log->users) == 1;
}

/* The loop woke: whatever is published from here on wakes it again. */
void hq_wal_answer(hq_wal *log) {
    uint64_t count;
    while (read(log->wake_fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
    atomic_store(&log->notified, 0);
}

hq_job *hq_wal_take_finished(hq_wal *log) { return atomic_exchange(&log->finished, NULL); }

/* Two places: one that is being recorded, one that waits; more segments merge into the one that waits. */
void hq_wal_hold(hq_wal *log, uint64_t number, uint64_t first_io) {
    pthread_mutex_lock(&log->hold_mutex);
    if (log->waiting_number == 0)
        atomic_store(&log->waiting_io, first_io);
    log->waiting_number = number;
    pthread_mutex_unlock(&log->hold_mutex);
}

uint64_t hq_wal_take_segment(hq_wal *log) {
    uint64_t number = 0;
    pthread_mutex_lock(&log->hold_mutex);
    if (log->held_number == 0 && log->waiting_number != 0) {
        number = log->held_number = log->waiting_number;
        atomic_store(&log->held_io, atomic_load(&log->waiting_io)); /* set one before the other is cleared: no gap */
        log->waiting_number = 0;
        atomic_store(&log->waiting_io, 0);
    }
    pthread_mutex_unlock(&log->hold_mutex);
    return number;
}

void hq_wal_segment_recorded(hq_wal *log) {
    pthread_mutex_lock(&log->hold_mutex);
    log->held_number = 0;
    atomic_store(&log->held_io, 0);
    pthread_mutex_unlock(&log->hold_mutex);
}

void *hq_wal_progress_address(hq_wal *log) { return &log->progress_ns; }
void *hq_wal_queued_address(hq_wal *log) { return &log->queued_bytes; }
