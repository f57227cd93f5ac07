/* Batches: one header round everything that waited, written with one call and made durable with one fdatasync.
 *
 * Runs on the log thread only. A batch larger than a slice is written and synced slice by slice, and each slice is
 * progress: a 64 MiB entry on a slow disk is no stall. The order inside a batch does not matter, its header covers all
 * of it by CRC. Must not know the queue. Every function gives 0 or an errno. */
#include "wal_log.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

void hq_wal_batch_header(uint8_t *out, uint64_t salt, uint64_t io_sequence, uint64_t synced, uint32_t last_crc,
                         uint32_t count, uint32_t size, uint32_t crc) {
    hq_put_u32(out, HQ_BATCH_MAGIC);
    hq_put_u32(out + 4, size);
    hq_put_u64(out + 8, salt);
    hq_put_u64(out + 16, io_sequence);
    hq_put_u64(out + 24, synced);
    hq_put_u32(out + 32, last_crc);
    hq_put_u32(out + 36, count);
    hq_put_u32(out + 40, crc);
    hq_put_u32(out + 44, hq_crc32c(0, out, 44));
}

/* A batch of one record without an io sequence of its own: it repeats the one before it, which tells recovery that
 * nothing was ever promised about it. */
void hq_wal_local_batch(uint8_t *out, uint8_t kind, uint64_t salt, uint64_t io_sequence, uint64_t synced,
                        uint32_t last_crc) {
    uint8_t *record = out + HQ_BATCH_HEADER;
    hq_record_open(record, kind, HQ_ENTRY_NONE, 0);
    hq_record_seal(record, 0, kind == HQ_KIND_SYNCED ? synced : 0, 0, 0, 0);
    hq_wal_batch_header(out, salt, io_sequence, synced, last_crc, 1, HQ_RECORD_HEADER,
                        hq_crc32c(0, record, HQ_RECORD_HEADER));
}

static uint64_t salt_of(const hq_wal *log) { return log->current.generation ^ log->node_id; }

/* A header never speaks of what comes after it: behind a cut, sequences of batches that are gone are durable too. */
static uint64_t known_synced(const hq_wal *log, uint64_t io_sequence) {
    uint64_t synced = atomic_load(&log->disk_synced);
    return synced < io_sequence ? synced : io_sequence;
}

static void entered(hq_wal *log, const uint8_t *header, uint64_t size) {
    log->last_crc = hq_get_u32(header + 44);
    log->said = hq_get_u64(header + 24);
    atomic_fetch_add(&log->offset, size);
}

/* Writes a `synced` mark or the segment's end; no fsync, it rides on the next one. */
int hq_wal_write_local(hq_wal *log, uint8_t kind) {
    uint8_t batch[HQ_LOCAL_BATCH];
    uint64_t offset = atomic_load(&log->offset);
    int error = hq_wal_make_room(log, offset + sizeof batch);
    if (error != 0)
        return error;
    hq_wal_local_batch(batch, kind, salt_of(log), log->last_io, known_synced(log, log->last_io), log->last_crc);
    error = hq_wal_write_all(log->current.fd, batch, sizeof batch, offset);
    if (error != 0)
        return error == ENOSPC || error == EDQUOT ? EIO : error; /* room was accounted for: this is no full disk */
    entered(log, batch, sizeof batch);
    log->ended = kind == HQ_KIND_SEGMENT_END;
    return 0;
}

/* Everything written so far is on disk when this gives 0. */
int hq_wal_sync_current(hq_wal *log) {
    uint64_t upto = atomic_load(&log->written);
    int rc;
    pthread_mutex_lock(&log->sync_mutex);
    do
        rc = log->current.fd < 0 ? 0 : fdatasync(log->current.fd);
    while (rc != 0 && errno == EINTR);
    int error = rc == 0 ? 0 : errno;
    if (error == 0 && upto > atomic_load(&log->disk_synced))
        atomic_store(&log->disk_synced, upto);
    pthread_mutex_unlock(&log->sync_mutex);
    atomic_fetch_add(&log->fsyncs, 1);
    atomic_store(&log->progress_ns, hq_boot_ns());
    return error;
}

/* Takes up to `size` bytes off the front of the vector: how many entries of it to write, the last one cut short. */
static int front(struct iovec *all, int count, size_t size, struct iovec *out) {
    int used = 0;
    for (; used < count && size > 0; used++) {
        out[used] = all[used];
        if (out[used].iov_len > size)
            out[used].iov_len = size;
        size -= out[used].iov_len;
    }
    return used;
}

static void advance(struct iovec **all, int *count, size_t size) {
    while (size > 0 && *count > 0) {
        size_t step = size < (*all)->iov_len ? size : (*all)->iov_len;
        (*all)->iov_base = (uint8_t *)(*all)->iov_base + step;
        (*all)->iov_len -= step;
        size -= step;
        if ((*all)->iov_len == 0) {
            (*all)++;
            (*count)--;
        }
    }
}

static int write_slices(hq_wal *log, struct iovec *all, int count, uint64_t offset, uint64_t total, int *where) {
    struct iovec slice[HQ_BATCH_JOBS + 1];
    uint64_t unsynced = 0;
    *where = HQ_FAULT_WRITE;
    while (total > 0) {
        uint64_t want = HQ_SLICE_BYTES - unsynced;
        int used = front(all, count, want, slice);
        ssize_t done = pwritev(log->current.fd, slice, used, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done == 0 ? EIO : errno;
        advance(&all, &count, (size_t)done);
        offset += (uint64_t)done;
        total -= (uint64_t)done;
        unsynced += (uint64_t)done;
        atomic_store(&log->progress_ns, hq_boot_ns());
        if (unsynced < HQ_SLICE_BYTES || total == 0)
            continue;
        unsynced = 0;
        if (log->mode != HQ_SYNC_IMMEDIATE)
            continue;
        *where = HQ_FAULT_SYNC;
        int error = hq_wal_sync_current(log); /* `written` stands below this batch: nothing is promised early */
        if (error != 0)
            return error;
        *where = HQ_FAULT_WRITE;
    }
    return 0;
}

static int index_jobs(hq_wal *log, const hq_job *job, size_t count, uint64_t at) {
    for (; count > 0; count--, job = job->next) {
        int error = 0;
        if (job->kind == HQ_KIND_ENTRY)
            error = hq_wal_index_add(log, job->first, job->last, log->current.number, at);
        else if (job->kind == HQ_KIND_REPAIR)
            error = hq_wal_repair_index(log, job, at);
        else if (job->kind == HQ_KIND_TRUNCATE)
            hq_wal_index_truncate(log, job->last);
        else if (job->kind == HQ_KIND_PURGE_MARK) {
            if (job->io_sequence != 0) /* the log begins anew there: what stood behind is no part of it */
                hq_wal_index_truncate(log, job->last);
            hq_wal_index_base(log, job->last);
        }
        if (error != 0)
            return error;
        at += job->size;
    }
    return 0;
}

/* One batch of the first `count` jobs. It fits the current segment. Publishes `written`, and `synced` by the mode. A
 * purge mark is durable before anybody hears of it, whatever the mode: files are removed on its word. */
int hq_wal_flush(hq_wal *log, hq_job *jobs, size_t count, int *where) {
    struct iovec all[HQ_BATCH_JOBS + 1];
    uint8_t header[HQ_BATCH_HEADER];
    uint64_t size = 0, io_sequence = log->last_io, marked = 0, offset = atomic_load(&log->offset);
    uint32_t crc = 0, records = 0;
    int parts = 1;
    for (hq_job *job = jobs; (size_t)parts <= count; job = job->next, parts++) {
        all[parts].iov_base = (void *)job->bytes;
        all[parts].iov_len = job->size;
        crc = hq_crc32c(crc, job->bytes, job->size);
        size += job->size;
        records += job->records;
        if (job->io_sequence != 0)
            io_sequence = job->io_sequence;
        else if (job->kind == HQ_KIND_PURGE_MARK)
            marked = job->last;
    }
    hq_wal_batch_header(header, salt_of(log), io_sequence, known_synced(log, io_sequence), log->last_crc, records,
                        (uint32_t)size, crc);
    all[0].iov_base = header;
    all[0].iov_len = sizeof header;
    int error = write_slices(log, all, parts, offset, sizeof header + size, where);
    if (error != 0)
        return error;
    *where = HQ_FAULT_INDEX;
    error = index_jobs(log, jobs, count, offset + sizeof header);
    if (error != 0)
        return error;
    int moved = io_sequence != log->last_io;
    log->last_io = io_sequence;
    entered(log, header, sizeof header + size);
    if (moved)
        atomic_store(&log->written, io_sequence);
    atomic_fetch_add(&log->flushes, 1);
    atomic_fetch_add(&log->batch_bytes, size);
    if (log->mode == HQ_SYNC_IMMEDIATE || marked != 0) {
        *where = HQ_FAULT_SYNC;
        error = hq_wal_sync_current(log);
        if (error != 0)
            return error;
    }
    if (moved)
        atomic_store(&log->synced, io_sequence);
    if (marked != 0)
        atomic_store(&log->purge_marked, marked);
    return 0;
}
