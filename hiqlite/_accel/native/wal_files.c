/* Segment files: made at full size, filled with zeros ahead of the writer, named when they come into use.
 *
 * A file is first made under a temporary name; its header is durable before it is renamed, and the rename before the
 * first batch. So every `<number>.wal` has a valid header, or it was damaged. Blocks are reserved first (fallocate), then
 * written with zeros in steps: a flush into written blocks needs no journal entry and costs a third. A recycled file is
 * written already and keeps its old bytes (wal_recycle.c): under the new header's salt none of them counts.
 * Must not know the queue. Every function gives 0 or an errno. */
#include "wal_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define MAKING "making.tmp"
#define PREPARED "prepared.tmp"

static const uint8_t zeros[256 << 10];

void hq_wal_segment_name(uint64_t number, char name[32]) { snprintf(name, 32, "%016" PRIx64 ".wal", number); }

int hq_wal_write_all(int fd, const uint8_t *bytes, size_t size, uint64_t offset) {
    while (size > 0) {
        ssize_t done = pwrite(fd, bytes, size, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done == 0 ? EIO : errno;
        bytes += done;
        offset += (uint64_t)done;
        size -= (size_t)done;
    }
    return 0;
}

/* Zeros up to `up_to` through `fd`; the caller holds fill_mutex when the segment is in use. Then batches stand in it, and
 * what fdatasync says may be about them: that is final, and no full disk that one could wait for. */
int hq_wal_fill(hq_segment *segment, int fd, int in_use, uint64_t up_to) {
    uint64_t at = atomic_load(&segment->filled);
    if (up_to > segment->size)
        up_to = segment->size;
    while (at < up_to) {
        uint64_t step = up_to - at < sizeof zeros ? up_to - at : sizeof zeros;
        int error = hq_wal_write_all(fd, zeros, step, at);
        if (error != 0)
            return error;
        at += step;
    }
    if (at > atomic_load(&segment->filled)) {
        if (fdatasync(fd) != 0)
            return in_use && (errno == ENOSPC || errno == EDQUOT) ? EIO : errno;
        atomic_store(&segment->filled, at);
    }
    return 0;
}

static int reserve(hq_segment *segment) {
    int rc;
    do
        rc = fallocate(segment->fd, 0, 0, (off_t)segment->size);
    while (rc != 0 && errno == EINTR);
    segment->reserved = rc == 0;
    if (rc == 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
        return errno;
    return ftruncate(segment->fd, (off_t)segment->size) == 0 ? 0 : errno;
}

int hq_wal_create(hq_wal *log, const char *name, uint64_t size, uint64_t fill, hq_segment *segment) {
    segment->size = size;
    segment->number = segment->generation = 0;
    atomic_store(&segment->filled, 0);
    segment->fd = openat(log->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (segment->fd < 0)
        return errno;
    int error = reserve(segment);
    if (error == 0)
        error = hq_wal_fill(segment, segment->fd, 0, fill);
    if (error == 0 && fsync(segment->fd) != 0)
        error = errno;
    if (error != 0) {
        close(segment->fd);
        segment->fd = -1;
        unlinkat(log->dir_fd, name, 0); /* gives the blocks back; a leftover is overwritten by the next try */
    }
    return error;
}

static void encode_header(const hq_wal *log, const hq_segment *segment, uint64_t first_io, uint8_t *out) {
    hq_put_u64(out, HQ_SEGMENT_MAGIC);
    hq_put_u32(out + 8, 1);
    hq_put_u32(out + 12, log->group);
    hq_put_u64(out + 16, log->node_id);
    hq_put_u64(out + 24, log->incarnation);
    hq_put_u64(out + 32, segment->number);
    hq_put_u64(out + 40, segment->generation);
    hq_put_u64(out + 48, first_io);
    hq_put_u64(out + 56, segment->size);
    hq_put_u32(out + 64, 0);
    hq_put_u32(out + HQ_SEGMENT_HEADER_USED, hq_crc32c(0, out, HQ_SEGMENT_HEADER_USED));
}

static int name_and_enter(hq_wal *log, hq_segment *fresh, const char *made_as) {
    uint8_t header[HQ_SEGMENT_HEADER] = {0};
    char name[32];
    uint64_t first_io = log->last_io + 1;
    fresh->number = log->next_number;
    if (getrandom(&fresh->generation, sizeof fresh->generation, 0) != sizeof fresh->generation)
        return EIO;
    encode_header(log, fresh, first_io, header);
    int error = hq_wal_write_all(fresh->fd, header, sizeof header, 0);
    if (error != 0)
        return error;
    if (atomic_load(&fresh->filled) < sizeof header)
        atomic_store(&fresh->filled, sizeof header);
    hq_wal_segment_name(fresh->number, name);
    if (fdatasync(fresh->fd) != 0 || renameat(log->dir_fd, made_as, log->dir_fd, name) != 0 || fsync(log->dir_fd) != 0)
        return errno;
    if (hq_wal_extent_add(log, fresh->number, 0) != 0)
        return ENOMEM;
    hq_wal_hold(log, fresh->number, first_io);
    int old_fd = log->current.fd;
    log->current.fd = fresh->fd;
    log->current.reserved = fresh->reserved;
    log->current.number = fresh->number;
    log->current.size = fresh->size;
    log->current.generation = fresh->generation;
    atomic_store(&log->current.filled, atomic_load(&fresh->filled));
    atomic_store(&log->offset, HQ_SEGMENT_HEADER);
    log->next_number = fresh->number + 1;
    log->last_crc = 0;
    log->ended = 0;
    if (old_fd >= 0)
        close(old_fd);
    return 0;
}

/* Brings the next segment into use, with room for one batch of `need` bytes. The one before is ended and synced by now. */
int hq_wal_activate(hq_wal *log, uint64_t need) {
    uint64_t least = HQ_SEGMENT_HEADER + need + HQ_LOCAL_BATCH;
    hq_segment fresh = {.fd = -1};
    const char *made_as = MAKING;
    int error = 0;
    pthread_mutex_lock(&log->fill_mutex);
    if (log->prepared.fd >= 0 && log->prepared.size >= least) {
        fresh.fd = log->prepared.fd;
        fresh.reserved = log->prepared.reserved;
        fresh.size = log->prepared.size;
        atomic_store(&fresh.filled, atomic_load(&log->prepared.filled));
        log->prepared.fd = -1;
        atomic_store(&log->has_prepared, 0);
        made_as = PREPARED;
    }
    pthread_mutex_unlock(&log->fill_mutex);
    if (fresh.fd < 0) {
        uint64_t size = log->segment_bytes >= least ? log->segment_bytes : (least + 4095) & ~(uint64_t)4095;
        error = hq_wal_create(log, MAKING, size, HQ_FIRST_FILL_BYTES, &fresh);
        if (error != 0)
            return error;
    }
    pthread_mutex_lock(&log->sync_mutex);
    pthread_mutex_lock(&log->fill_mutex);
    error = name_and_enter(log, &fresh, made_as);
    if (error != 0)
        close(fresh.fd);
    pthread_mutex_unlock(&log->fill_mutex);
    pthread_mutex_unlock(&log->sync_mutex);
    return error;
}

/* Accounts for [filled, end) before the log thread writes there. Reserved blocks need no zeros first: the data itself
 * fills them. Without reservation zeros go first, so a full disk shows here, where nothing is lost by waiting. */
int hq_wal_make_room(hq_wal *log, uint64_t end) {
    if (atomic_load(&log->current.filled) >= end)
        return 0;
    int error = 0;
    pthread_mutex_lock(&log->fill_mutex);
    if (atomic_load(&log->current.filled) < end) {
        if (log->current.reserved)
            atomic_store(&log->current.filled, end);
        else
            error = hq_wal_fill(&log->current, log->current.fd, 1, end);
    }
    pthread_mutex_unlock(&log->fill_mutex);
    return error;
}

/* Every block of the file is allocated: writing into it cannot meet a full disk. */
int hq_wal_is_reserved(const struct stat *status) { return (uint64_t)status->st_blocks * 512 >= (uint64_t)status->st_size; }

/* Goes on in a segment that recovery found whole. What lies behind the first hole is not filled yet. */
int hq_wal_resume(hq_wal *log, uint64_t number, uint64_t generation, uint64_t offset, uint32_t last_crc) {
    char name[32];
    struct stat status;
    hq_wal_segment_name(number, name);
    int fd = openat(log->dir_fd, name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno;
    if (fstat(fd, &status) != 0) {
        int error = errno;
        close(fd);
        return error;
    }
    off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);
    log->current.fd = fd;
    log->current.number = number;
    log->current.generation = generation;
    log->current.size = (uint64_t)status.st_size;
    log->current.reserved = hq_wal_is_reserved(&status);
    atomic_store(&log->current.filled, hole < 0 ? (uint64_t)status.st_size : (uint64_t)hole);
    atomic_store(&log->offset, offset);
    log->last_crc = last_crc;
    log->next_number = number + 1;
    return 0;
}
