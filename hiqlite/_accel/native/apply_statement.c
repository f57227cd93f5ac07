/* apply_statement.c: one bound statement: stepped to its end, its effect measured, its failure judged.

   Invariant: when this returns, the statement is reset, and the outcome tells exactly what of it stands in the
   transaction: everything (OK, UNDO), nothing (FAILED), a part (PARTIAL), or the transaction is gone (ENDED). */
#include <string.h>

#include "apply.h"

/* ------------------------------------------------------------------ last_insert_rowid */

/* Whether anything in this text or in the schema may read last_insert_rowid(): then its value must not be touched. */
static int reads_rowid(hq_apply *w, const hq_prepared *p) {
    static const char QUERY[] = "SELECT 1 FROM sqlite_schema WHERE instr(lower(sql), 'last_insert_rowid') LIMIT 1";
    return hq_own_watch(w, &w->rowid_watch, QUERY) || p->mentions_rowid;
}

typedef struct rowid_probe {
    int64_t before;
    int cleared;
} rowid_probe;

/* A result tells the rowid that *this* statement inserted. The first statement of an entry starts at 0; a later one is
   given a 0 to start with, unless it could see the difference. */
static rowid_probe rowid_begin(hq_apply *w, const hq_prepared *p) {
    rowid_probe probe = {0, 0};
    if (!(p->seen & HQ_SEEN_INSERT))
        return probe;
    probe.before = sqlite3_last_insert_rowid(w->db);
    if (probe.before != 0 && !reads_rowid(w, p)) {
        sqlite3_set_last_insert_rowid(w->db, 0);
        probe.cleared = 1;
    }
    return probe;
}

static int64_t rowid_end(hq_apply *w, const hq_prepared *p, const rowid_probe *probe) {
    if (!(p->seen & HQ_SEEN_INSERT))
        return 0;
    int64_t after = sqlite3_last_insert_rowid(w->db);
    if (probe->cleared && after == 0)
        sqlite3_set_last_insert_rowid(w->db, probe->before);
    return w->rows_affected > 0 ? after : 0;
}

/* ------------------------------------------------------------------ failure */

/* A statement that failed inside the transaction: did a part of it stay? SQLite sets changes() to 0 when it undid the
   statement. Only rows written by triggers leave doubt: those of a statement of theirs that fails itself are counted
   nowhere. Then the program is asked. */
static hq_outcome judge_failure(hq_apply *w, const hq_prepared *p, int64_t total_before) {
    int counted = sqlite3_total_changes64(w->db) != total_before;
    if (p->readonly || !(counted || (p->seen & HQ_SEEN_TRIGGER)))
        return HQ_FAILED;
    if (counted && sqlite3_changes64(w->db) > 0)
        return HQ_PARTIAL;
    hq_error error = w->error;
    int partly = hq_failed_partly(w, p, &error, counted || w->guard_api->wrote_rows(w->guard));
    if (partly < 0)
        return hq_stop_sqlite(w, "a failed statement could not be inspected");
    w->error = error;
    return partly ? HQ_PARTIAL : HQ_FAILED;
}

/* FULL is a result only if the disk has no part in it, as when AUTOINCREMENT has reached its maximum. That is proven, not
   guessed: the run is applied again with spilling off, where nothing is written to disk before COMMIT (statement
   journals and sorters live in memory), so that FULL from a statement can only come from the statement. */
int hq_full_is_proven(hq_apply *w) {
    if (!w->spill_off)
        w->full_seen = 1;
    return w->spill_off;
}

static hq_outcome judge_full(hq_apply *w) {
    if (!hq_full_is_proven(w))
        return HQ_REPLAY;
    hq_error_set(w, HQ_CLASS_STATEMENT, SQLITE_FULL, "no rowid is left: the AUTOINCREMENT maximum was reached");
    return sqlite3_get_autocommit(w->db) ? HQ_ENDED : HQ_FAILED;
}

/* Called right after the failing step, before the reset. */
static hq_outcome step_failed(hq_apply *w, const hq_prepared *p, int64_t total_before) {
    if ((sqlite3_extended_errcode(w->db) & 0xff) == SQLITE_FULL) {
        sqlite3_reset(p->stmt);
        return judge_full(w);
    }
    /* SQLite prepares to undo a statement inside of a transaction only where it foresees that a constraint or a function may
       end it. Where something else does (a sum that overflows, a value that is too long, one of another type than the
       column of a STRICT table has) it leaves the rows before, and says that nothing changed; alone it undoes them. */
    int code = sqlite3_extended_errcode(w->db);
    int unforeseen = !p->readonly && ((code & 0xff) != SQLITE_CONSTRAINT || code == SQLITE_CONSTRAINT_DATATYPE);
    hq_outcome outcome = hq_sqlite_error(w);
    sqlite3_reset(p->stmt);
    if (outcome == HQ_STOP)
        return outcome;
    if (sqlite3_get_autocommit(w->db))
        return HQ_ENDED;
    if (unforeseen)
        return HQ_UNDO;
    return judge_failure(w, p, total_before);
}

/* ------------------------------------------------------------------ running */

static hq_outcome step_all(hq_apply *w, hq_prepared *p, int keep_rows, size_t *at) {
    int rc;
    if (keep_rows) {
        hq_outcome outcome = hq_rows_begin(w, p->stmt, at);
        if (outcome != HQ_OK)
            return outcome;
    }
    while ((rc = sqlite3_step(p->stmt)) == SQLITE_ROW) {
        w->row_count++;
        if (keep_rows) {
            hq_outcome outcome = hq_rows_add(w, p->stmt);
            if (outcome != HQ_OK)
                return outcome; /* all changes were made before the first row came back */
        }
    }
    return rc == SQLITE_DONE ? HQ_OK : HQ_FAILED;
}

/* Whatever the statement came to: what SQLite chose behind such a row, and what followed from it, is another on each node.
   Where the statement has succeeded, or a part of it stands, so does the row. */
static hq_outcome refuse_last_rowid(hq_apply *w, hq_outcome outcome) {
    hq_error_set(w, HQ_CLASS_CONSTRAINT, SQLITE_CONSTRAINT_ROWID,
                 "rowid 9223372036854775807 is refused: after it SQLite would choose rowids at random");
    return outcome == HQ_OK || outcome == HQ_PARTIAL ? HQ_UNDO : outcome;
}

/* SQLite goes on using the types of a view's columns that it once worked out for a write, though the table behind the view
   is another by then (seen in 3.54); a node that was started in between works them out anew. So an entry changes the schema
   only where nothing was worked out before it. What a trial shows is kept by nobody. */
static int is_schema_used(const hq_apply *w, const hq_prepared *p) {
    return (p->seen & HQ_SEEN_SCHEMA) && !w->began_fresh && !w->trying;
}

/* Runs a statement whose parameters are bound; on OK its result stands in the answer. */
hq_outcome hq_statement_run(hq_apply *w, hq_prepared *p, int keep_rows) {
    if (is_schema_used(w, p)) {
        w->wants_fresh = 1;
        return HQ_REPLAY;
    }
    int64_t total_before = sqlite3_total_changes64(w->db);
    size_t at = w->answers.size, start = w->answers.size;
    if (p->seen & (HQ_SEEN_SCHEMA | HQ_SEEN_RELOAD | HQ_SEEN_VIRTUAL))
        w->ends_run = 1;
    if (p->seen & (HQ_SEEN_SCHEMA | HQ_SEEN_RELOAD))
        w->changed_schema = 1;
    if (p->seen & HQ_SEEN_REMEMBERS)
        w->touched_virtual = 1;
    if (p->repairs)
        w->ends_run = 1; /* see commit_failed in apply_run.c */
    keep_rows = keep_rows && p->columns > 0;
    w->row_count = 0;
    w->rows_affected = w->rowid = 0;
    rowid_probe probe = rowid_begin(w, p);
    w->guard_api->statement_begin(w->guard);
    int64_t begin_ns = hq_coarse_ns();
    hq_outcome outcome = step_all(w, p, keep_rows, &at);
    hq_note_cost(w, p, hq_coarse_ns() - begin_ns);
    if (outcome == HQ_FAILED) {
        outcome = step_failed(w, p, total_before);
    } else if (sqlite3_reset(p->stmt) != SQLITE_OK && outcome == HQ_OK) {
        outcome = hq_stop_sqlite(w, "a finished statement failed"); /* cannot happen: DONE was returned */
    }
    if (p->seen & (HQ_SEEN_SCHEMA | HQ_SEEN_RELOAD))
        hq_schema_changed(w);
    if (outcome == HQ_OK) {
        int changed = !p->readonly && sqlite3_total_changes64(w->db) != total_before;
        w->rows_affected = changed ? sqlite3_changes64(w->db) : 0;
        if (sqlite3_get_autocommit(w->db))
            outcome = hq_stop(w, SQLITE_INTERNAL, "a statement that succeeded ended the transaction");
    }
    if (outcome != HQ_STOP && outcome != HQ_REPLAY && w->guard_api->took_last_rowid(w->guard))
        outcome = refuse_last_rowid(w, outcome);
    if (outcome != HQ_OK) {
        rowid_end(w, p, &probe);
        w->answers.size = start;
        return outcome;
    }
    w->rowid = rowid_end(w, p, &probe);
    if (!keep_rows)
        return hq_answer_done(w, w->rows_affected, w->rowid);
    hq_rows_end(w, at, (uint32_t)w->row_count, w->rows_affected, w->rowid);
    return HQ_OK;
}
