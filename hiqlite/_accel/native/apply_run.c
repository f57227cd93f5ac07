/* apply_run.c: a run of entries as one SQLite transaction.

   BEGIN, every entry, one bookkeeping row, COMMIT. An entry that is found to have failed although its effects stand, or
   that ended the transaction, is recorded; then the run is rolled back and applied again up to that entry, which this time
   answers with the recorded failure and is not run. The next run begins behind it. A batch may need this once for each of
   its statements; so when it needs it again, the entries before it are committed without it, and it begins a run of its
   own: nobody else's work is repeated more than twice.
   Invariant: between calls no transaction is open; the worker's position is that of the last COMMIT. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "apply.h"

int64_t hq_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int64_t hq_coarse_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* ------------------------------------------------------------------ around the transaction */

static hq_outcome pragma(hq_apply *w, const char *sql) {
    return hq_own_exec(w, sql) == SQLITE_OK ? HQ_OK : hq_stop_sqlite(w, sql);
}

/* A node that restarts here reads schema and statistics anew, and connects virtual tables anew, which remember options,
   row counts and cookies, also those that were rolled back; so does one that runs on. */
static hq_outcome read_schema_anew(hq_apply *w) {
    w->wants_fresh = 0;
    w->schema_fresh = 1;
    return pragma(w, "PRAGMA writable_schema = RESET");
}

hq_outcome hq_run_open(hq_apply *w) {
    hq_outcome outcome = HQ_OK;
    if (w->wants_fresh) {
        outcome = read_schema_anew(w);
        hq_schema_changed(w);
    }
    if (w->foreign_keys_off && outcome == HQ_OK) /* inside a transaction SQLite ignores it silently */
        outcome = pragma(w, "PRAGMA foreign_keys = OFF");
    if (outcome == HQ_OK && w->spill_off)
        outcome = pragma(w, "PRAGMA cache_spill = OFF");
    if (outcome == HQ_OK && hq_own_step(w, HQ_OWN_BEGIN) != SQLITE_DONE)
        outcome = hq_stop_sqlite(w, "BEGIN failed");
    w->answers.size = 0;
    w->hash = w->equality_hash;
    hq_sessions_begin(w);
    w->ends_run = w->changed_schema = w->touched_virtual = w->full_seen = 0;
    return outcome;
}

/* Puts the connection's settings back, and forgets what was learnt of a schema that has changed or was rolled back. */
static hq_outcome close_run(hq_apply *w) {
    hq_outcome outcome = HQ_OK;
    if (w->spill_off)
        outcome = pragma(w, "PRAGMA cache_spill = ON");
    if (w->foreign_keys_off && outcome == HQ_OK)
        outcome = pragma(w, "PRAGMA foreign_keys = ON");
    if ((w->changed_schema || w->touched_virtual) && outcome == HQ_OK)
        outcome = read_schema_anew(w);
    if (w->changed_schema || w->foreign_keys_off)
        hq_schema_changed(w);
    return outcome;
}

/* Rolls the run back; a failure to do so joins the reason to stop, it does not replace it. */
hq_outcome hq_run_undo(hq_apply *w, hq_outcome why) {
    hq_failure failure = w->failure;
    hq_sessions_undo(w);
    if (!sqlite3_get_autocommit(w->db) && hq_own_step(w, HQ_OWN_ROLLBACK) != SQLITE_DONE &&
        !sqlite3_get_autocommit(w->db))
        why = hq_stop_sqlite(w, "ROLLBACK failed");
    if (close_run(w) != HQ_OK)
        why = HQ_STOP;
    if (failure.code)
        w->failure = failure;
    return why;
}

/* ------------------------------------------------------------------ the transaction */

static void remember_hash(hq_apply *w, uint64_t index) {
    uint32_t slot = (uint32_t)(index / HQ_HASH_EVERY % HQ_HASH_KEPT);
    __atomic_store_n(&w->hash_index[slot], 0, __ATOMIC_RELEASE);
    __atomic_store_n(&w->hash_value[slot], w->hash, __ATOMIC_RELEASE);
    __atomic_store_n(&w->hash_index[slot], index, __ATOMIC_RELEASE);
}

static hq_outcome apply_entries(hq_apply *w, const hq_run_entry *entries, uint32_t count, size_t *offsets,
                                uint32_t *applied) {
    int64_t end_ns = hq_coarse_ns() + HQ_RUN_NS_MAX;
    uint32_t i = 0;
    while (i < count) {
        offsets[i] = w->answers.size;
        hq_outcome outcome = hq_entry_apply(w, entries[i].record, i);
        if (outcome != HQ_OK) {
            *applied = i;
            return outcome;
        }
        if (!entries[i].want_answer)
            w->answers.size = w->entry_at;
        if (w->index % HQ_HASH_EVERY == 0)
            remember_hash(w, w->index);
        i++;
        if (w->ends_run || w->answers.size > HQ_RUN_ANSWER_BYTES_MAX ||
            w->sessions.journal.size > HQ_RUN_ANSWER_BYTES_MAX || hq_coarse_ns() > end_ns)
            break;
    }
    offsets[i] = w->answers.size;
    *applied = i;
    return HQ_OK;
}

/* From time to time: what is kept of older runs moves into the rows of their sessions, and they go. */
static hq_outcome trim(hq_apply *w, int64_t group_ns) {
    w->runs_since_trim = 0;
    hq_outcome outcome = hq_journal_compact(w, group_ns);
    int forgets = w->journal_since_trim > HQ_JOURNAL_BYTES_MAX;
    w->journal_since_trim = 0;
    if (outcome == HQ_OK && forgets && hq_own_step(w, HQ_OWN_FORGET_JOURNAL) != SQLITE_DONE)
        outcome = hq_stop_sqlite(w, "what was kept of older runs could not be removed");
    if (outcome == HQ_OK && hq_own_step(w, HQ_OWN_TRIM) != SQLITE_DONE)
        outcome = hq_stop_sqlite(w, "old bookkeeping rows could not be removed");
    return outcome;
}

/* The run's row; what it did to the sessions is in it. */
static hq_outcome put_row(hq_apply *w, sqlite3_stmt *row) {
    const hq_buffer *journal = &w->sessions.journal;
    int rc = SQLITE_OK;
    if (journal->size > 0)
        rc = sqlite3_bind_blob64(row, 6, journal->data, journal->size, SQLITE_STATIC);
    else
        sqlite3_bind_null(row, 6);
    if (rc == SQLITE_OK && hq_own_step(w, HQ_OWN_RUN) != SQLITE_DONE)
        rc = SQLITE_ERROR;
    return rc == SQLITE_OK ? HQ_OK : hq_stop_sqlite(w, "the bookkeeping row could not be written");
}

/* SQLite says whether deferred foreign keys are violated more often than they were repaired; whether they were repaired
   more often than that, as where a row without its parent stood there before, only COMMIT tells. An entry of which this is
   possible is the last of its run, so it is known which one failed: `*applied` entries are left without it. */
static hq_outcome commit_failed(hq_apply *w, const hq_run_entry *entries, uint32_t *applied) {
    if (sqlite3_extended_errcode(w->db) != SQLITE_CONSTRAINT_FOREIGNKEY || hq_recorded_find(w, *applied - 1, HQ_WHOLE))
        return hq_stop_sqlite(w, "COMMIT failed");
    w->ordinal = --*applied;
    w->error.statement = 0;
    hq_error_set(w, HQ_CLASS_CONSTRAINT, SQLITE_CONSTRAINT_FOREIGNKEY, "FOREIGN KEY constraint failed");
    hq_name_migration(w, entries[*applied].record);
    return hq_record_failure(w, HQ_WHOLE, 0);
}

static hq_outcome commit(hq_apply *w, const hq_run_entry *entries, uint32_t *applied) {
    const uint8_t *last = entries[*applied - 1].record;
    sqlite3_stmt *row = w->own[HQ_OWN_RUN];
    int64_t time_ns = hq_record_group_ns(last);
    if (time_ns < w->group_time_ns)
        time_ns = w->group_time_ns; /* it never goes back */
    w->index = 0; /* from here on no entry is to blame */
    sqlite3_bind_int64(row, 1, (int64_t)hq_record_index(entries[0].record));
    sqlite3_bind_int64(row, 2, (int64_t)hq_record_index(last));
    sqlite3_bind_int64(row, 3, (int64_t)hq_record_term(last));
    sqlite3_bind_int64(row, 4, (int64_t)w->hash);
    sqlite3_bind_int64(row, 5, time_ns);
    hq_outcome outcome = put_row(w, row);
    w->journal_since_trim += w->sessions.journal.size;
    if (outcome == HQ_OK && (++w->runs_since_trim >= HQ_RUNS_KEPT || w->journal_since_trim > HQ_JOURNAL_BYTES_MAX))
        outcome = trim(w, time_ns);
    if (outcome != HQ_OK)
        return outcome;
    if (hq_own_step(w, HQ_OWN_COMMIT) != SQLITE_DONE)
        return commit_failed(w, entries, applied);
    w->equality_hash = w->hash;
    hq_sessions_commit(w);
    __atomic_store_n(&w->group_time_ns, time_ns, __ATOMIC_RELEASE);
    __atomic_store_n(&w->applied_term, hq_record_term(last), __ATOMIC_RELEASE);
    __atomic_store_n(&w->applied_index, hq_record_index(last), __ATOMIC_RELEASE);
    return HQ_OK;
}

/* One attempt; REPLAY: what is known to fail has grown, or FULL has to be proven. */
static hq_outcome attempt(hq_apply *w, const hq_run_entry *entries, uint32_t count, size_t *offsets, uint32_t *applied) {
    hq_outcome outcome = hq_run_open(w);
    if (outcome == HQ_OK)
        outcome = apply_entries(w, entries, count, offsets, applied);
    if (outcome == HQ_OK)
        outcome = commit(w, entries, applied);
    if (outcome != HQ_OK)
        return hq_run_undo(w, outcome);
    close_run(w); /* the run stands; what fails here is in w->failure and stops the next one */
    return HQ_OK;
}

/* How many of the entries may form one run: a migration that switches foreign keys off runs alone. */
static uint32_t run_length(hq_apply *w, const hq_run_entry *entries, uint32_t count) {
    w->foreign_keys_off = hq_entry_wants_foreign_keys_off(entries[0].record);
    if (w->foreign_keys_off)
        return 1;
    for (uint32_t i = 1; i < count; i++)
        if (hq_entry_wants_foreign_keys_off(entries[i].record))
            return i;
    return count;
}

/* Applies as many of the entries as make a good run, at least one. STOP: nothing was applied, worker->failure says why.
   OK with worker->failure set: the run was applied, but the worker must stop. */
hq_outcome hq_run_apply(hq_apply *w, const hq_run_entry *entries, uint32_t count, hq_run_result **result) {
    hq_run_result *made = calloc(1, sizeof *made);
    uint32_t applied = 0;
    int repeated = 0, next_wants_fresh = 0;
    if (made)
        made->offsets = malloc(((size_t)count + 1) * sizeof *made->offsets);
    if (!made || !made->offsets) {
        free(made);
        return hq_stop(w, SQLITE_NOMEM, "no memory for a run");
    }
    sqlite3_mutex *mutex = sqlite3_db_mutex(w->db);
    sqlite3_mutex_enter(mutex);
    w->spill_off = 0;
    count = run_length(w, entries, count);
    hq_outcome outcome;
    while ((outcome = attempt(w, entries, count, made->offsets, &applied)) == HQ_REPLAY) {
        hq_count(&w->replay_count, 1);
        w->spill_off = w->spill_off || w->full_seen;
        /* The entry that made us repeat is the last of its run, or the first of the next one. */
        int is_left = applied > 0 && (w->wants_fresh || (applied + 1 == count && repeated));
        next_wants_fresh = is_left && w->wants_fresh;
        w->wants_fresh = w->wants_fresh && !is_left;
        count = is_left ? applied : applied + 1;
        repeated = 1;
    }
    w->wants_fresh = next_wants_fresh;
    hq_recorded_clear(w);
    sqlite3_mutex_leave(mutex);
    if (outcome != HQ_OK) {
        hq_run_result_free(made);
        return outcome;
    }
    made->first = hq_record_index(entries[0].record);
    made->last = hq_record_index(entries[applied - 1].record);
    made->last_term = hq_record_term(entries[applied - 1].record);
    made->changed_schema = w->changed_schema;
    hq_slow_move(w, made);
    made->answers = w->answers.data;
    w->answers = (hq_buffer){NULL, 0, 0};
    hq_count(&w->run_count, 1);
    hq_count(&w->entry_count, applied);
    *result = made;
    return HQ_OK;
}

void hq_run_result_free(hq_run_result *result) {
    if (!result)
        return;
    for (uint32_t i = 0; i < result->slow_count; i++)
        free(result->slow_texts[i]);
    free(result->answers);
    free(result->offsets);
    free(result);
}

/* ------------------------------------------------------------------ life */

hq_apply *hq_apply_open(sqlite3 *db, const hq_guard_api *guard_api, uint32_t texts_max, hq_failure *why) {
    hq_apply *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->db = db;
    w->guard_api = guard_api;
    w->guard = guard_api->attach(db, HQ_ROLE_WRITER);
    w->rowid_watch = w->defers_watch = -1;
    w->mark_fd = -1;
    if (!w->guard || hq_texts_open(&w->texts, texts_max) != 0) {
        hq_stop(w, SQLITE_NOMEM, "the connection has no guard, or memory is short");
    } else {
        sqlite3_mutex *mutex = sqlite3_db_mutex(db);
        sqlite3_mutex_enter(mutex);
        hq_own_open(w);
        sqlite3_mutex_leave(mutex);
    }
    *why = w->failure;
    if (w->failure.code) {
        hq_apply_close(w);
        return NULL;
    }
    return w;
}

/* Lets go of the connection: every statement of ours is finalized, so that it can be closed. */
void hq_apply_close(hq_apply *w) {
    if (!w)
        return;
    if (w->texts.buckets)
        hq_texts_close(&w->texts);
    hq_own_close(w);
    hq_sessions_close(w);
    hq_recorded_clear(w);
    hq_slow_clear(w);
    free(w->recorded);
    free(w->results);
    free(w->text_table);
    free(w->answers.data);
    free(w);
}
