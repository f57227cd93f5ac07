/* Hand-over between the loop and the log thread: jobs in, finished jobs out, one wake-up each way.
 *
 * Both ways are stacks that the other side takes whole, so neither ever waits for the other; the mutex round `parked`
 * is only taken to wake a log thread that sleeps. Must not know what a batch is. */
#include "wal_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

hq_wal *hq_wal_new(int dir_fd, uint32_t group, uint64_t node_id, uint64_t incarnation, uint64_t segment_bytes, int mode,
                   uint64_t interval_ns) {
    hq_wal *log = calloc(1, sizeof *log);
    if (log == NULL)
        return NULL;
    log->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (log->wake_fd < 0) {
        free(log);
        return NULL;
    }
    log->dir_fd = dir_fd;
    log->group = group;
    log->node_id = node_id;
    log->incarnation = incarnation;
    log->segment_bytes = segment_bytes;
    log->mode = mode;
    log->interval_ns = interval_ns;
    log->users = 1;
    log->current.fd = log->prepared.fd = -1;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&log->park, &monotonic);
    pthread_cond_init(&log->helper, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&log->park_mutex, NULL);
    pthread_mutex_init(&log->work_mutex, NULL);
    pthread_mutex_init(&log->hold_mutex, NULL);
    pthread_mutex_init(&log->fill_mutex, NULL);
    pthread_mutex_init(&log->sync_mutex, NULL);
    pthread_mutex_init(&log->helper_mutex, NULL);
    pthread_mutex_init(&log->index_mutex, NULL);
    return log;
}

void hq_wal_free_jobs(hq_job *job) {
    while (job != NULL) {
        hq_job *next = job->next;
        free(job);
        job = next;
    }
}

/* Gives the descriptors back; the threads have ended and nobody reads any more. May be called again. */
void hq_wal_close_files(hq_wal *log) {
    int *files[] = {&log->current.fd, &log->prepared.fd, &log->wake_fd, &log->dir_fd};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (*files[i] >= 0)
            close(*files[i]);
        *files[i] = -1;
    }
}

/* The last user frees. Owners of jobs must have been taken before: the bytes are not this room's. */
void hq_wal_release(hq_wal *log) {
    if (atomic_fetch_sub(&log->users, 1) != 1)
        return;
    hq_wal_close_files(log);
    pthread_cond_destroy(&log->park);
    pthread_cond_destroy(&log->helper);
    pthread_mutex_destroy(&log->park_mutex);
    pthread_mutex_destroy(&log->work_mutex);
    pthread_mutex_destroy(&log->hold_mutex);
    pthread_mutex_destroy(&log->fill_mutex);
    pthread_mutex_destroy(&log->sync_mutex);
    pthread_mutex_destroy(&log->helper_mutex);
    pthread_mutex_destroy(&log->index_mutex);
    hq_wal_free_jobs(atomic_load(&log->queue));
    hq_wal_free_jobs(atomic_load(&log->finished));
    free(log->spans);
    free(log->extents);
    free(log->repairs);
    free(log);
}

static void push(_Atomic(hq_job *) *stack, hq_job *job) {
    hq_job *head = atomic_load_explicit(stack, memory_order_relaxed);
    do
        job->next = head;
    while (!atomic_compare_exchange_weak(stack, &head, job));
}

/* Wakes the log thread if it sleeps. The order (push, then look at `parked`) answers its order (set `parked`, then look
 * at the queue): one of the two always sees the other. The mutex is passed through, so that the signal cannot fall
 * between its look and its wait, and is free again when the thread runs: it would wake only to sleep on the mutex. */
void hq_wal_wake(hq_wal *log) {
    if (!atomic_exchange(&log->parked, 0))
        return; /* awake, or woken already */
    pthread_mutex_lock(&log->park_mutex);
    pthread_mutex_unlock(&log->park_mutex);
    pthread_cond_signal(&log->park);
}

/* No new work from here on; the log thread empties its queue, the helpers leave. */
void hq_wal_stop(hq_wal *log) {
    atomic_store(&log->stop, 1);
    pthread_mutex_lock(&log->park_mutex);
    pthread_cond_signal(&log->park);
    pthread_mutex_unlock(&log->park_mutex);
    hq_wal_wish(log, 1, 1);
}

static void submit(hq_wal *log, hq_job *job) {
    if (atomic_fetch_add(&log->queued_bytes, job->size) == 0)
        atomic_store(&log->progress_ns, hq_boot_ns()); /* work begins to wait now: the stall gate counts from here */
    push(&log->queue, job);
    hq_wal_wake(log);
}

/* Unless *now, `bytes` must live until the job comes back from the finished stack. 0 or ENOMEM. */
int hq_wal_submit(hq_wal *log, uint8_t kind, uint64_t io_sequence, uint64_t first, uint64_t last, const uint8_t *bytes,
                  size_t size, void *owner, int *now) {
    hq_job made = {.io_sequence = io_sequence, .first = first, .last = last, .bytes = bytes, .size = size,
                   .owner = owner, .records = (uint32_t)(last - first + 1), .kind = kind};
    *now = kind == HQ_KIND_ENTRY && hq_wal_write_now(log, &made);
    if (*now)
        return 0;
    hq_job *job = malloc(sizeof *job);
    if (job == NULL)
        return ENOMEM;
    *job = made;
    submit(log, job);
    return 0;
}

/* Gives the length of the record made at `out`. */
static size_t seal_local(uint8_t *out, uint8_t kind, uint64_t term, uint64_t index, const uint64_t *payload) {
    uint32_t size = payload == NULL ? 0 : 8;
    if (payload != NULL)
        hq_put_u64(out + HQ_RECORD_HEADER, *payload);
    hq_record_open(out, kind, HQ_ENTRY_NONE, size);
    hq_record_seal(out, term, index, 0, 0, 0);
    return HQ_RECORD_HEADER + size;
}

/* A record that is no entry: (term, index) in its header, one optional number as payload. `io_sequence` 0: none.
 * `before`: a record that stands in front of it, in the same batch whatever happens; NULL: none. */
int hq_wal_submit_local(hq_wal *log, uint8_t kind, uint64_t io_sequence, uint64_t term, uint64_t index,
                        const uint64_t *payload, const hq_hard_state *before) {
    hq_job *job = malloc(sizeof *job + 2 * (HQ_RECORD_HEADER + 8));
    if (job == NULL)
        return ENOMEM;
    size_t size = 0;
    if (before != NULL)
        size = seal_local(job->inlined, HQ_KIND_HARD_STATE, before->term, before->vote, &before->incarnation);
    size += seal_local(job->inlined + size, kind, term, index, payload);
    job->io_sequence = io_sequence;
    job->first = job->last = index;
    job->bytes = job->inlined;
    job->size = size;
    job->owner = NULL;
    job->records = before == NULL ? 1 : 2;
    job->kind = kind;
    submit(log, job);
    return 0;
}

/* Everything that waits, in the order of submission. */
hq_job *hq_wal_take(hq_wal *log) {
    hq_job *job = atomic_exchange(&log->queue, NULL), *ordered = NULL;
    while (job != NULL) {
        hq_job *next = job->next;
        job->next = ordered;
        ordered = job;
        job = next;
    }
    return ordered;
}

/* Gives a list of jobs back to the loop, which releases their bytes. Does not wake it. */
void hq_wal_finish(hq_wal *log, hq_job *jobs) {
    uint64_t size = 0;
    while (jobs != NULL) {
        hq_job *next = jobs->next;
        size += jobs->size;
        push(&log->finished, jobs);
        jobs = next;
    }
    atomic_fetch_sub(&log->queued_bytes, size);
}

/* One wake-up of the loop, unless one is under way that it has not answered yet. */
void hq_wal_notify(hq_wal *log) {
    if (atomic_exchange(&log->notified, 1))
        return;
    uint64_t one = 1;
    while (write(log->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* The first failure stands for ever. Whoever sees its errno also sees where it was. */
void hq_wal_fail(hq_wal *log, int where, int error) {
    int none = 0;
    if (atomic_compare_exchange_strong(&log->fault, &none, where))
        atomic_store(&log->fault_errno, error == 0 ? EIO : error);
    hq_wal_notify(log);
}

/* `flag` is log_full or fill_full: the loop is told when one of them changes. */
void hq_wal_set_full(hq_wal *log, _Atomic int *flag, int value) {
    if (atomic_exchange(flag, value) != value)
        hq_wal_notify(log);
}
