/* apply_own.c: our own statements: internal tables, transaction, savepoint, bookkeeping, checkpoint.

   Internal tables (docs/formats.md section 9): _hiqlite_run, one row per run, written in the run's own transaction,
   _hiqlite_session, _hiqlite_request, and _migrations. Invariant: own_writes is up only inside the functions of this file (and around the two own SELECTs of
   apply_script.c and apply_statement.c, and that of apply_request.c), so nothing a user sent is ever prepared or stepped under it. */
#include <stdio.h>
#include <string.h>

#include "apply.h"

static const char *const OWN_SQL[HQ_OWN_COUNT] = {
    [HQ_OWN_BEGIN] = "BEGIN IMMEDIATE",
    [HQ_OWN_COMMIT] = "COMMIT",
    [HQ_OWN_ROLLBACK] = "ROLLBACK",
    [HQ_OWN_SAVEPOINT] = "SAVEPOINT _hiqlite_entry",
    [HQ_OWN_RELEASE] = "RELEASE _hiqlite_entry",
    [HQ_OWN_UNDO] = "ROLLBACK TO _hiqlite_entry",
    [HQ_OWN_RESET_CHANGES] = "DELETE FROM _hiqlite_run WHERE last_index < 0",
    [HQ_OWN_RUN] = "INSERT INTO _hiqlite_run(first_index, last_index, last_term, equality_hash, group_time_ns, answers)"
                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [HQ_OWN_TRIM] = "DELETE FROM _hiqlite_run WHERE last_index <"
                    " (SELECT last_index FROM _hiqlite_run ORDER BY last_index DESC LIMIT 1 OFFSET 255)",
    [HQ_OWN_FORGET_JOURNAL] = "UPDATE _hiqlite_run SET answers = NULL WHERE answers IS NOT NULL",
    [HQ_OWN_MIGRATION_STATE] =
        "SELECT coalesce(max(id), 0), (SELECT hash FROM _migrations WHERE id = ?1) FROM _migrations",
    [HQ_OWN_MIGRATION_INSERT] = "INSERT INTO _migrations(id, name, ts, hash) VALUES (?1, ?2, ?3, ?4)",
    [HQ_OWN_SESSION_PUT] = "INSERT OR REPLACE INTO _hiqlite_session(id, state) VALUES (?1, ?2)",
    [HQ_OWN_SESSION_DROP] = "DELETE FROM _hiqlite_session WHERE id = ?1",
    [HQ_OWN_REQUEST_GET] = "SELECT digest, expires_ns, log_index, answer FROM _hiqlite_request WHERE id = ?1",
    [HQ_OWN_REQUEST_PUT] = "INSERT OR REPLACE INTO _hiqlite_request(id, digest, expires_ns, log_index, answer)"
                           " VALUES (?1, ?2, ?3, ?4, ?5)",
    [HQ_OWN_REQUEST_TRIM] = "DELETE FROM _hiqlite_request WHERE id IN"
                            " (SELECT id FROM _hiqlite_request WHERE expires_ns < ?1 ORDER BY expires_ns LIMIT 2)",
};

static const char BOOTSTRAP[] =
    "CREATE TABLE IF NOT EXISTS _hiqlite_run(first_index INTEGER NOT NULL, last_index INTEGER PRIMARY KEY,"
    " last_term INTEGER NOT NULL, equality_hash INTEGER NOT NULL, group_time_ns INTEGER NOT NULL, answers BLOB);"
    "CREATE TABLE IF NOT EXISTS _migrations(id INTEGER PRIMARY KEY, name TEXT NOT NULL, ts INTEGER NOT NULL,"
    " hash TEXT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS _hiqlite_session(id INTEGER PRIMARY KEY, state BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS _hiqlite_request(id TEXT PRIMARY KEY, digest BLOB NOT NULL, expires_ns INTEGER NOT NULL,"
    " log_index INTEGER NOT NULL, answer BLOB) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS _hiqlite_request_expires ON _hiqlite_request(expires_ns);"
    "CREATE TABLE IF NOT EXISTS _hiqlite_cluster(id BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS _hiqlite_file(id INTEGER NOT NULL);";

/* ------------------------------------------------------------------ stepping */

int hq_own_step(hq_apply *w, enum hq_own_statement which) {
    sqlite3_stmt *stmt = w->own[which];
    w->guard_api->own_writes(w->guard, 1);
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
        rc = sqlite3_extended_errcode(w->db);
    sqlite3_reset(stmt);
    w->guard_api->own_writes(w->guard, 0);
    return rc;
}

int hq_own_exec(hq_apply *w, const char *sql) {
    w->guard_api->own_writes(w->guard, 1);
    int rc = sqlite3_exec(w->db, sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        rc = sqlite3_extended_errcode(w->db);
    w->guard_api->own_writes(w->guard, 0);
    return rc;
}

int hq_own_row_exists(hq_apply *w, const char *sql) {
    sqlite3_stmt *stmt = NULL;
    w->guard_api->own_writes(w->guard, 1);
    int rc = sqlite3_prepare_v2(w->db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    int found = rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : -1;
    if (sqlite3_finalize(stmt) != SQLITE_OK)
        found = -1;
    w->guard_api->own_writes(w->guard, 0);
    return found;
}

/* Whether the query finds a row in this schema; asked once, while `*watch` is -1. */
int hq_own_watch(hq_apply *w, int *watch, const char *sql) {
    if (*watch < 0)
        *watch = hq_own_row_exists(w, sql) != 0;
    return *watch;
}

/* ------------------------------------------------------------------ savepoint */

int hq_savepoint_open(hq_apply *w) {
    int rc = hq_own_step(w, HQ_OWN_SAVEPOINT);
    w->in_savepoint = rc == SQLITE_DONE;
    return rc;
}

int hq_savepoint_close(hq_apply *w) {
    w->in_savepoint = 0;
    return hq_own_step(w, HQ_OWN_RELEASE);
}

/* A savepoint that undid a schema change leaves statements that learnt of it. */
int hq_savepoint_undo(hq_apply *w) {
    int rc = hq_own_step(w, HQ_OWN_UNDO);
    if (w->changed_schema)
        hq_schema_changed(w);
    return rc == SQLITE_DONE ? hq_savepoint_close(w) : rc;
}

/* ------------------------------------------------------------------ checkpoint */

static int on_commit(void *worker, sqlite3 *db, const char *database, int pages) {
    hq_apply *w = worker;
    (void)db;
    (void)database;
    __atomic_store_n(&w->wal_pages, (uint64_t)pages, __ATOMIC_RELAXED);
    if (w->wal_pages < w->checkpoint_seen_pages)
        w->checkpoint_seen_pages = 0; /* SQLite has started its log from the beginning */
    hq_mark_committed(w);
    return SQLITE_OK;
}

uint64_t hq_checkpoint_due_pages(hq_apply *w) { return w->wal_pages - w->checkpoint_seen_pages; }

/* Everything up to `index` is in the database file, and that is synced. */
void hq_durable_up_to(hq_apply *w, uint64_t index) {
    if (index > w->durable_index)
        __atomic_store_n(&w->durable_index, index, __ATOMIC_RELAXED);
}

int hq_checkpoint(hq_apply *w, int mode) {
    int pages = 0, done = 0;
    uint64_t index = w->applied_index;
    int marked = hq_mark_begun(w, index), rc = SQLITE_OK;
    if (marked == SQLITE_OK) /* a log that is cut to nothing must not be needed: so the mark comes before that */
        rc = sqlite3_wal_checkpoint_v2(w->db, "main", SQLITE_CHECKPOINT_PASSIVE, &pages, &done);
    hq_count(&w->checkpoint_count, 1);
    w->checkpoint_seen_pages = w->wal_pages;
    if (marked == SQLITE_OK && rc == SQLITE_OK && done >= pages) {
        marked = hq_mark_ended(w, index, 1, NULL);
        hq_durable_up_to(w, index);
    }
    if (marked == SQLITE_OK && rc == SQLITE_OK && mode != SQLITE_CHECKPOINT_PASSIVE) /* only what is marked as moved */
        rc = done < pages ? SQLITE_BUSY : sqlite3_wal_checkpoint_v2(w->db, "main", mode, &pages, &done);
    if (marked != SQLITE_OK) {
        hq_stop(w, marked, "the checkpoint cannot be marked");
        return marked;
    }
    if (rc == SQLITE_OK || (rc & 0xff) == SQLITE_BUSY)
        return rc & 0xff;
    hq_stop_sqlite(w, "the checkpoint failed");
    return rc;
}

/* ------------------------------------------------------------------ life */

static int fail_open(hq_apply *w, const char *what) {
    hq_stop_sqlite(w, what);
    return w->failure.code;
}

static int read_page_bytes(hq_apply *w) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(w->db, "PRAGMA page_size", -1, &stmt, NULL);
    if (rc == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW)
        w->page_bytes = sqlite3_column_int64(stmt, 0);
    int finished = sqlite3_finalize(stmt);
    return rc == SQLITE_OK ? finished : rc;
}

static int read_position(hq_apply *w) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(
        w->db,
        "SELECT last_index, last_term, equality_hash, group_time_ns, (SELECT count(*) FROM _hiqlite_run)"
        " FROM _hiqlite_run ORDER BY last_index DESC LIMIT 1", -1, &stmt, NULL);
    if (rc == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW) {
        w->applied_index = (uint64_t)sqlite3_column_int64(stmt, 0);
        w->durable_index = w->applied_index; /* where no mark says how much of it is in the file */
        w->applied_term = (uint64_t)sqlite3_column_int64(stmt, 1);
        w->equality_hash = (uint64_t)sqlite3_column_int64(stmt, 2);
        w->group_time_ns = sqlite3_column_int64(stmt, 3);
        w->runs_since_trim = (uint32_t)sqlite3_column_int64(stmt, 4) / 2; /* one that often starts anew trims, too */
    }
    int finished = sqlite3_finalize(stmt);
    return rc == SQLITE_OK ? finished : rc;
}

/* Creates what is missing, prepares our statements, reads where the database stands. */
int hq_own_open(hq_apply *w) {
    int missing = hq_own_row_exists(
        w, "SELECT 1 WHERE (SELECT count(*) FROM sqlite_schema WHERE type = 'table'"
           " AND name IN ('_hiqlite_run', '_migrations', '_hiqlite_session', '_hiqlite_request', '_hiqlite_cluster',"
           " '_hiqlite_file')) < 6");
    if (missing < 0)
        return fail_open(w, "the schema cannot be read");
    if (missing) {
        if (hq_own_exec(w, "BEGIN IMMEDIATE") != SQLITE_OK || hq_own_exec(w, BOOTSTRAP) != SQLITE_OK ||
            hq_own_exec(w, "COMMIT") != SQLITE_OK) {
            int code = fail_open(w, "the internal tables cannot be created");
            if (!sqlite3_get_autocommit(w->db))
                hq_own_exec(w, "ROLLBACK");
            return code;
        }
    }
    w->guard_api->own_writes(w->guard, 1);
    int rc = read_position(w);
    if (rc == SQLITE_OK)
        rc = read_page_bytes(w);
    int loaded = rc == SQLITE_OK ? hq_journal_load(w) : SQLITE_OK;
    for (int i = 0; rc == SQLITE_OK && i < HQ_OWN_COUNT; i++)
        rc = sqlite3_prepare_v3(w->db, OWN_SQL[i], -1, SQLITE_PREPARE_PERSISTENT, &w->own[i], NULL);
    w->guard_api->own_writes(w->guard, 0);
    if (loaded != SQLITE_OK) {
        hq_stop(w, loaded, "what is kept of sessions cannot be read");
        return w->failure.code;
    }
    if (rc != SQLITE_OK)
        return fail_open(w, "the internal tables cannot be used");
    hq_mark_open(w);
    if (w->failure.code)
        return w->failure.code;
    int pages = 0, moved = 0; /* the hook tells of them with the first commit only */
    if (sqlite3_wal_checkpoint_v2(w->db, "main", SQLITE_CHECKPOINT_NOOP, &pages, &moved) == SQLITE_OK && pages > 0)
        w->wal_pages = (uint64_t)pages;
    sqlite3_wal_hook(w->db, on_commit, w);
    /* A close must not checkpoint what the log has not synced; the owner checkpoints before, when it may. */
    sqlite3_db_config(w->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return SQLITE_OK;
}

void hq_own_close(hq_apply *w) {
    for (int i = 0; i < HQ_OWN_COUNT; i++) {
        sqlite3_finalize(w->own[i]);
        w->own[i] = NULL;
    }
    sqlite3_wal_hook(w->db, NULL, NULL);
    hq_mark_close(w);
}
