/* Purged segments: which files hold nothing that is still part of the log, and what becomes of them.
 *
 * A purge runs in three steps, each durable before the next: the mark in the log, the purge point in the metadata, then
 * the files, from the lowest number up, one at a time, the folder synced after each. So a process that dies anywhere
 * leaves a row of segments without a hole, and a purge point that covers all that is missing below it.
 * A file of the usual size is kept as `spare<n>.tmp`, up to HQ_SPARES of them, and comes back as a segment: its blocks
 * are allocated and written, so it needs no zeros. What it held stays behind the new header and is never taken for a
 * batch of the log: each use of a file has a random generation, and a batch header counts only with the salt made of it.
 * The rename out of the log is durable before the new header is written: else a loss of power could bring the old name
 * back over the new header, and recovery would find a damaged segment.
 * The filler's thread alone touches files here. Must not know batches. */
#include "wal_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void spare_name(int slot, char name[32]) { snprintf(name, 32, "spare%d.tmp", slot); }

/* Adds a segment to those of the log; numbers ascend. 0 or ENOMEM. */
int hq_wal_extent_add(hq_wal *log, uint64_t segment, uint64_t top) {
    int error = 0;
    pthread_mutex_lock(&log->index_mutex);
    if (log->extent_count == log->extent_room) {
        size_t room = log->extent_room == 0 ? 16 : log->extent_room * 2;
        hq_extent *extents = realloc(log->extents, room * sizeof *extents);
        if (extents == NULL) {
            error = ENOMEM;
        } else {
            log->extents = extents;
            log->extent_room = room;
        }
    }
    if (error == 0)
        log->extents[log->extent_count++] = (hq_extent){.segment = segment, .top = top};
    pthread_mutex_unlock(&log->index_mutex);
    return error;
}

/* Mark and purge point are durable up to `index`: the files may go. */
void hq_wal_recycle(hq_wal *log, uint64_t index) {
    atomic_store(&log->recycle_below, index);
    hq_wal_wish(log, 1, 0);
}

/* Number of the lowest segment when all of it is purged, else 0. The newest one always stays: the metadata names it. */
static uint64_t lowest_purged(hq_wal *log) {
    uint64_t number = 0, below = atomic_load(&log->recycle_below);
    pthread_mutex_lock(&log->index_mutex);
    if (log->extent_count > 1 && below > 0 && log->extents[0].top <= below)
        number = log->extents[0].segment;
    pthread_mutex_unlock(&log->index_mutex);
    return number;
}

/* How many bytes the log's segments take on the disk, but for giant ones. */
uint64_t hq_wal_held_bytes(hq_wal *log) {
    pthread_mutex_lock(&log->index_mutex);
    uint64_t held = log->extent_count * log->segment_bytes;
    pthread_mutex_unlock(&log->index_mutex);
    return held;
}

static void forget_lowest(hq_wal *log) {
    pthread_mutex_lock(&log->index_mutex);
    log->extent_count--;
    memmove(log->extents, log->extents + 1, log->extent_count * sizeof *log->extents);
    pthread_mutex_unlock(&log->index_mutex);
}

static int usable(const hq_wal *log, const struct stat *status) {
    return (uint64_t)status->st_size == log->segment_bytes && hq_wal_is_reserved(status);
}

/* Spare files of an earlier life; what does not fit is removed. */
void hq_wal_find_spares(hq_wal *log) {
    for (int slot = 0; slot < HQ_SPARES; slot++) {
        char name[32];
        struct stat status;
        spare_name(slot, name);
        if (fstatat(log->dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        log->spares[slot] = usable(log, &status);
        if (!log->spares[slot])
            unlinkat(log->dir_fd, name, 0);
    }
}

/* A spare file as the prepared one. 1: taken; 0: there is none. */
int hq_wal_take_spare(hq_wal *log, hq_segment *fresh) {
    for (int slot = 0; slot < HQ_SPARES; slot++) {
        char name[32];
        if (!log->spares[slot])
            continue;
        log->spares[slot] = 0;
        spare_name(slot, name);
        int fd = openat(log->dir_fd, name, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (renameat(log->dir_fd, name, log->dir_fd, "prepared.tmp") != 0) {
            close(fd);
            continue;
        }
        fresh->fd = fd;
        fresh->reserved = 1;
        fresh->size = log->segment_bytes;
        fresh->number = fresh->generation = 0;
        atomic_store(&fresh->filled, fresh->size);
        return 1;
    }
    return 0;
}

/* Takes the file `name` out of the log. 0 or an errno. */
static int put_away(hq_wal *log, const char *name) {
    struct stat status;
    if (fstatat(log->dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : errno;
    for (int slot = 0; slot < HQ_SPARES && usable(log, &status); slot++) {
        char spare[32];
        if (log->spares[slot])
            continue;
        spare_name(slot, spare);
        log->spares[slot] = renameat(log->dir_fd, name, log->dir_fd, spare) == 0;
        if (log->spares[slot])
            return 0;
        break;
    }
    return unlinkat(log->dir_fd, name, 0) == 0 || errno == ENOENT ? 0 : errno;
}

/* One file of a purged segment. 1: done, look again; 0: none; below 0: minus an errno, final like every failed fsync. */
int hq_wal_recycle_step(hq_wal *log) {
    char name[32];
    uint64_t number = lowest_purged(log);
    if (number == 0)
        return 0;
    hq_wal_segment_name(number, name);
    int error = put_away(log, name);
    if (error == 0 && fsync(log->dir_fd) != 0)
        error = errno;
    if (error != 0)
        return -error;
    forget_lowest(log);
    return 1;
}
