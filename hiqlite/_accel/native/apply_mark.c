/* apply_mark.c: how far a checkpoint may have come, told durably beside the database.

   A checkpoint moves pages out of SQLite's log into the database file. If that log is damaged afterwards, SQLite cuts it at
   the damage and reads the older pages of what is left over the newer ones of the file: wrong rows, and its own check says
   ok. So before pages are moved it is written down up to which entry they reach, and when all are there, that they are
   (docs/formats.md section 9). A start compares (statemachine/trust.py). SQLite's log is synced before the mark: else a
   loss of power could cut the log below a mark whose pages were never moved.
   The file is made by who opens the database; without it nothing is marked. Must not know entries. Invariant: the mark is
   never behind the file. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "apply.h"
#include "crc32c.h"

enum { BEGUN_AT = 8, DONE_AT = 16, SALT_AT = 24, CRC_AT = 28, MARK_BYTES = 32, PATH_BYTES = 4096 };
enum { LOG_SALT_AT = 16 }; /* in SQLite's log: another one each time that SQLite begins it anew */

void hq_mark_open(hq_apply *w) {
    char path[PATH_BYTES];
    const char *name = sqlite3_db_filename(w->db, "main");
    w->mark_fd = -1;
    if (!name || !name[0] || (size_t)snprintf(path, sizeof path, "%s-mark", name) >= sizeof path)
        return;
    w->log_name = sqlite3_filename_wal(name); /* as long as the connection */
    w->mark_fd = open(path, O_RDWR | O_CLOEXEC);
    if (w->mark_fd < 0 && errno != ENOENT) /* it would be left as it is, and say what is not so any more */
        hq_stop(w, SQLITE_CANTOPEN, "the checkpoint mark cannot be opened");
}

void hq_mark_close(hq_apply *w) {
    if (w->mark_fd >= 0)
        close(w->mark_fd);
    w->mark_fd = -1;
}

static int put(int fd, size_t at, uint64_t index, const uint8_t *salt) {
    uint8_t bytes[MARK_BYTES];
    if (pread(fd, bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return SQLITE_IOERR_READ;
    hq_put_u64(bytes + at, index);
    if (salt)
        memcpy(bytes + SALT_AT, salt, 4);
    hq_put_u32(bytes + CRC_AT, hq_crc32c(0, bytes, CRC_AT));
    if (pwrite(fd, bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return SQLITE_IOERR_WRITE;
    return fdatasync(fd) == 0 ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

/* SQLite holds no lock on its log, so none is lost by closing it. */
static int sync_log(hq_apply *w, uint8_t salt[4]) {
    int fd = open(w->log_name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return SQLITE_CANTOPEN;
    memset(salt, 0, 4);
    int rc = pread(fd, salt, 4, LOG_SALT_AT) >= 0 && fdatasync(fd) == 0 ? SQLITE_OK : SQLITE_IOERR_FSYNC;
    close(fd);
    return rc;
}

/* The next checkpoint moves what is committed now, at least up to `index`. */
int hq_mark_begun(hq_apply *w, uint64_t index) {
    if (w->mark_fd < 0)
        return SQLITE_OK;
    uint8_t salt[4];
    int rc = sync_log(w, salt);
    return rc == SQLITE_OK ? put(w->mark_fd, BEGUN_AT, index, salt) : rc;
}

/* It has ended. complete: everything up to `index` is in the file, and that is synced. Runs that were committed before it
   looked at SQLite's log were moved as well: up to the newest one by now, if another thread applies meanwhile. */
int hq_mark_ended(hq_apply *w, uint64_t index, int complete) {
    if (w->mark_fd < 0)
        return SQLITE_OK;
    uint64_t newest = __atomic_load_n(&w->applied_index, __ATOMIC_SEQ_CST);
    int rc = newest > index ? hq_mark_begun(w, newest) : SQLITE_OK;
    return rc == SQLITE_OK && complete ? put(w->mark_fd, DONE_AT, index, NULL) : rc;
}
