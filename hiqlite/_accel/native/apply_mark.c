/* apply_mark.c: how far a checkpoint may have come, told durably beside the database.

   A checkpoint moves pages out of SQLite's log into the database file. If that log is damaged afterwards, SQLite cuts it at
   the damage and reads the older pages of what is left over the newer ones of the file: wrong rows, and its own check says
   ok. So before pages are moved it is written down up to which entry they reach, and when all are there, that they are
   (docs/formats.md section 9). A start compares (statemachine/trust.py). SQLite's log is synced before the mark: else a
   loss of power could cut the log below a mark whose pages were never moved.
   It also names SQLite's log, by the salt that it has: what lies in its place may be another database's, and SQLite would
   read it. SQLite draws the salt of a log that it makes from nothing, or that holds no commit: no salt is marked where
   there is no log, and behind the first commit of a life the one that it has then. In the same way it names the database
   file, by a number that stands in it too: over another one SQLite would read this one's log.
   The mark's file is made by who opens the database; without it nothing is marked. Must not know entries. Invariants: the
   mark is never behind the file; a file that a checkpoint has completed says the mark's number. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "apply.h"
#include "crc32c.h"

enum { BEGUN_AT = 8, DONE_AT = 16, SALT_AT = 24, SALT_BYTES = 4, FILE_AT = 28, CRC_AT = 36, MARK_BYTES = 40 };
enum { PATH_BYTES = 4096 };
enum { LOG_SALT_AT = 16 }; /* in SQLite's log: greater by one each time that SQLite begins it anew */
enum { KEPT = 0 };         /* as a place in the mark: no number changes */
enum { TURNS_MAX = 4 };    /* so much greater it may be than the marked one, as in statemachine/trust.py */

static int put(hq_apply *w, size_t at, uint64_t value, const uint8_t *salt) {
    uint8_t bytes[MARK_BYTES] = {0};
    int rc = SQLITE_OK;
    pthread_mutex_lock(&w->mark_lock); /* the first commit may meet a checkpoint */
    if (pread(w->mark_fd, bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        rc = SQLITE_IOERR_READ;
    if (at != KEPT)
        hq_put_u64(bytes + at, value);
    if (at == BEGUN_AT && w->wal_pages > 0 && hq_get_u64(bytes + DONE_AT) >= value) /* pages that no entry wrote */
        hq_put_u64(bytes + DONE_AT, value ? value - 1 : 0);
    if (salt)
        memcpy(bytes + SALT_AT, salt, SALT_BYTES);
    hq_put_u32(bytes + CRC_AT, hq_crc32c(0, bytes, CRC_AT));
    if (rc == SQLITE_OK && pwrite(w->mark_fd, bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        rc = SQLITE_IOERR_WRITE;
    if (rc == SQLITE_OK && fdatasync(w->mark_fd) != 0)
        rc = SQLITE_IOERR_FSYNC;
    pthread_mutex_unlock(&w->mark_lock);
    return rc;
}

/* The salt of SQLite's log, zeros where there is none. SQLite holds no lock on it, so none is lost by closing it. */
static int read_salt(hq_apply *w, uint8_t salt[SALT_BYTES], int synced) {
    memset(salt, 0, SALT_BYTES);
    int fd = open(w->log_name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT && !synced ? SQLITE_OK : SQLITE_CANTOPEN;
    int rc = pread(fd, salt, SALT_BYTES, LOG_SALT_AT) >= 0 && (!synced || fdatasync(fd) == 0) ? SQLITE_OK
                                                                                             : SQLITE_IOERR_FSYNC;
    close(fd);
    return rc;
}

static uint32_t number_of(const uint8_t *salt) {
    return (uint32_t)salt[0] << 24 | (uint32_t)salt[1] << 16 | (uint32_t)salt[2] << 8 | salt[3];
}

/* Marks which log SQLite has, where the mark does not say so. One that it has begun anew since is known by the salt before:
   that stays, because it tells that all was moved. */
static int name_log(hq_apply *w) {
    uint8_t salt[SALT_BYTES], mark[MARK_BYTES];
    int rc = read_salt(w, salt, 0);
    if (rc != SQLITE_OK || pread(w->mark_fd, mark, sizeof mark, 0) != (ssize_t)sizeof mark)
        return rc != SQLITE_OK ? rc : SQLITE_IOERR_READ;
    uint32_t found = number_of(salt), marked = number_of(mark + SALT_AT);
    if (found == marked || (found != 0 && marked != 0 && found - marked <= TURNS_MAX))
        return SQLITE_OK;
    return put(w, KEPT, 0, salt);
}

/* The number that the database says; 0: none. Negative: it cannot be read. */
static int64_t number_in_file(hq_apply *w) {
    sqlite3_stmt *stmt = NULL;
    int64_t number = -1;
    w->guard_api->own_writes(w->guard, 1);
    if (sqlite3_prepare_v2(w->db, "SELECT coalesce(max(id), 0) FROM _hiqlite_file", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        number = sqlite3_column_int64(stmt, 0);
    if (sqlite3_finalize(stmt) != SQLITE_OK)
        number = -1;
    w->guard_api->own_writes(w->guard, 0);
    return number;
}

/* The file and the mark say the same number. What is written to the file here is in SQLite's log only, and may be lost
   with the power: so each start looks. A mark without a number is new, or was written before there were numbers: one that
   tells of checkpoints takes that of the file, which may say what an earlier mark said. Else it is drawn, since a file that
   came as an image says that of the node that it came from. */
static int name_file(hq_apply *w) {
    uint8_t mark[MARK_BYTES];
    char sql[160];
    int64_t found = number_in_file(w), number;
    if (found < 0 || pread(w->mark_fd, mark, sizeof mark, 0) != (ssize_t)sizeof mark)
        return SQLITE_IOERR_READ;
    number = (int64_t)hq_get_u64(mark + FILE_AT);
    int is_marked = number != 0, has_done = hq_get_u64(mark + DONE_AT) != 0;
    if (!is_marked && has_done)
        number = found;
    while (number == 0) {
        sqlite3_randomness(sizeof number, &number);
        number &= INT64_MAX;
    }
    if (number != found) {
        snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; DELETE FROM _hiqlite_file; INSERT INTO _hiqlite_file VALUES (%" PRId64
                                  "); COMMIT", number);
        int rc = hq_own_exec(w, sql);
        if (rc != SQLITE_OK) {
            if (!sqlite3_get_autocommit(w->db))
                hq_own_exec(w, "ROLLBACK");
            return is_marked ? rc : SQLITE_OK; /* a full disk: another start draws a number */
        }
    }
    return is_marked ? SQLITE_OK : put(w, FILE_AT, (uint64_t)number, NULL);
}

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
    if (w->mark_fd < 0)
        return;
    pthread_mutex_init(&w->mark_lock, NULL);
    w->log_is_new = 1;
    uint8_t mark[MARK_BYTES];
    if (pread(w->mark_fd, mark, sizeof mark, 0) == (ssize_t)sizeof mark && hq_get_u64(mark + DONE_AT) < w->durable_index)
        w->durable_index = hq_get_u64(mark + DONE_AT); /* what SQLite's log holds is synced, and may be damaged alone */
    int rc = name_file(w);
    if (rc == SQLITE_OK)
        rc = name_log(w);
    if (rc != SQLITE_OK)
        hq_stop(w, rc, "the checkpoint mark cannot be used");
}

void hq_mark_close(hq_apply *w) {
    if (w->mark_fd < 0)
        return;
    close(w->mark_fd);
    pthread_mutex_destroy(&w->mark_lock);
    w->mark_fd = -1;
}

/* Behind each commit; the first one of a life may have drawn a salt. A failure is left: the mark takes any log then, or
   this one is moved aside at the next start, and what it holds comes from the node's log. */
void hq_mark_committed(hq_apply *w) {
    if (w->mark_fd < 0 || !w->log_is_new)
        return;
    w->log_is_new = 0;
    (void)name_log(w);
}

/* The next checkpoint moves what is committed now, at least up to `index`. */
int hq_mark_begun(hq_apply *w, uint64_t index) {
    if (w->mark_fd < 0)
        return SQLITE_OK;
    uint8_t salt[SALT_BYTES];
    int rc = read_salt(w, salt, 1);
    return rc == SQLITE_OK ? put(w, BEGUN_AT, index, salt) : rc;
}

/* SQLite syncs the file of a checkpoint only where nothing was committed beside it. */
static int sync_file(sqlite3 *connection) {
    sqlite3_file *file = NULL;
    int rc = sqlite3_file_control(connection, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    return rc == SQLITE_OK && file && file->pMethods ? file->pMethods->xSync(file, SQLITE_SYNC_NORMAL) : rc;
}

/* It has ended, on `beside` if runs may have been committed meanwhile. complete: everything up to `index` is in the file.
   Runs that were committed before it looked at SQLite's log were moved as well: up to the newest one by now. */
int hq_mark_ended(hq_apply *w, uint64_t index, int complete, sqlite3 *beside) {
    if (complete && beside && sync_file(beside) != SQLITE_OK)
        return SQLITE_IOERR_FSYNC;
    if (w->mark_fd < 0)
        return SQLITE_OK;
    uint64_t newest = __atomic_load_n(&w->applied_index, __ATOMIC_SEQ_CST);
    int rc = newest > index ? hq_mark_begun(w, newest) : SQLITE_OK;
    return rc == SQLITE_OK && complete ? put(w, DONE_AT, index, NULL) : rc;
}
