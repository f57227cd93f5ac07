/* guard_clock.c: the clock that SQL sees.

   VFS `hiqlite` (over unix-excl: one process, wal-index in memory) and `hiqlite-shared` (over unix): copies of the
   base whose clock is the wall time of the entry that this thread applies, else the real time. xOpen hands the base
   its own VFS, because SQLite tells unix-excl by its name. Everything else is the base's own code, shared memory
   included, but for how the WAL is written (guard_walfile.c).

   localtime and utc depend on the machine's time zone: SQLite asks the callback set by
   SQLITE_TESTCTRL_LOCALTIME_FAULT (one per process), which refuses inside an entry and answers as the C library does
   outside.

   Invariant: outside hq_entry_begin() .. hq_entry_end() of the same thread nothing differs from plain SQLite. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "guard_parts.h"

#define JULIAN_MS_OF_1970 210866760000000LL
#define JULIAN_MS_MAX 464269060799999LL /* 9999-12-31 23:59:59.999, the last instant SQLite knows */

__thread hq_entry hq_current_entry;

void hq_entry_begin(int64_t wall_ns, uint64_t seed) {
    hq_entry *entry = &hq_current_entry;
    int64_t ms = wall_ns / 1000000 - (wall_ns % 1000000 < 0);
    entry->julian_ms = ms + JULIAN_MS_OF_1970;
    if (entry->julian_ms < 1)
        entry->julian_ms = 1;
    if (entry->julian_ms > JULIAN_MS_MAX)
        entry->julian_ms = JULIAN_MS_MAX;
    entry->seed = seed;
    entry->local_time_refused = 0;
    entry->active = 1;
    hq_chance_seed(entry, seed, 0);
}

void hq_entry_statement(uint32_t ordinal) {
    if (hq_current_entry.active)
        hq_chance_seed(&hq_current_entry, hq_current_entry.seed, ordinal);
}

void hq_entry_end(void) { memset(&hq_current_entry, 0, sizeof hq_current_entry); }

int hq_in_entry(void) { return hq_current_entry.active; }

/* ------------------------------------------------------------------ VFS */

static sqlite3_vfs excl_vfs, shared_vfs;
static sqlite3_vfs *excl_base, *shared_base;

static sqlite3_vfs *base_of(sqlite3_vfs *vfs) { return vfs == &excl_vfs ? excl_base : shared_base; }

static int clock_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags, int *out_flags) {
    sqlite3_vfs *base = base_of(vfs);
    if (flags & SQLITE_OPEN_WAL)
        return hq_walfile_open(base, name, file, flags, out_flags);
    return base->xOpen(base, name, file, flags, out_flags);
}

static int clock_now_ms(sqlite3_vfs *vfs, sqlite3_int64 *julian_ms) {
    sqlite3_vfs *base = base_of(vfs);
    if (hq_current_entry.active) {
        *julian_ms = hq_current_entry.julian_ms;
        return SQLITE_OK;
    }
    return base->xCurrentTimeInt64(base, julian_ms);
}

static int clock_now_days(sqlite3_vfs *vfs, double *julian_days) {
    sqlite3_int64 ms = 0;
    int rc = clock_now_ms(vfs, &ms);
    *julian_days = (double)ms / 86400000.0;
    return rc;
}

static int local_time(const void *seconds, void *broken_down) {
    if (hq_current_entry.active) {
        hq_current_entry.local_time_refused = 1;
        return 1;
    }
    return localtime_r((const time_t *)seconds, (struct tm *)broken_down) == NULL;
}

static int register_one(sqlite3_vfs *vfs, sqlite3_vfs **base, const char *base_name, const char *name) {
    *base = sqlite3_vfs_find(base_name);
    if (!*base || (*base)->iVersion < 2 || !(*base)->xCurrentTimeInt64)
        return SQLITE_ERROR;
    *vfs = **base;
    vfs->zName = name;
    vfs->pNext = NULL;
    vfs->szOsFile += (int)hq_walfile_bytes();
    vfs->xOpen = clock_open;
    vfs->xCurrentTime = clock_now_days;
    vfs->xCurrentTimeInt64 = clock_now_ms;
    return sqlite3_vfs_register(vfs, 0);
}

static pthread_mutex_t register_mutex = PTHREAD_MUTEX_INITIALIZER;
static int registered;

/* Idempotent; safe from several threads at once. */
int hq_clock_register(void) {
    int rc = SQLITE_OK;
    pthread_mutex_lock(&register_mutex);
    if (!registered) {
        rc = register_one(&excl_vfs, &excl_base, "unix-excl", "hiqlite");
        if (rc == SQLITE_OK)
            rc = register_one(&shared_vfs, &shared_base, "unix", "hiqlite-shared");
        if (rc == SQLITE_OK)
            rc = sqlite3_test_control(SQLITE_TESTCTRL_LOCALTIME_FAULT, 2, local_time);
        registered = rc == SQLITE_OK;
    }
    pthread_mutex_unlock(&register_mutex);
    return rc;
}
