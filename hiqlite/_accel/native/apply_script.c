/* apply_script.c: batch and migration: texts of several statements, split while they are applied.

   In a batch each statement stands for itself: a failed one is undone alone and the next one runs; a syntax error ends it.
   A migration is all or nothing, and is noted in _migrations by the very entry that made it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply.h"

static hq_outcome next_text(hq_apply *w, hq_cursor *texts, hq_text *text) {
    if (hq_text_next(texts, text) == 1)
        return HQ_OK;
    hq_error_set(w, HQ_CLASS_USAGE, 0, "the command is malformed");
    return HQ_FAILED;
}

static hq_outcome no_parameters(hq_apply *w, const hq_prepared *p) {
    if (p->parameters == 0)
        return HQ_OK;
    hq_error_set(w, HQ_CLASS_PARAMETER, 0, "the statements of a batch or migration take no parameters");
    return HQ_FAILED;
}

static int is_syntax_error(const hq_error *e) {
    static const char *const begins[] = {"unrecognized token: ", "incomplete input", "parser stack overflow"};
    size_t size = strlen(e->message), end = strlen(": syntax error");
    if (e->code != SQLITE_ERROR)
        return 0;
    if (size > end && strncmp(e->message, "near \"", 6) == 0 && strcmp(e->message + size - end, ": syntax error") == 0)
        return 1;
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (strncmp(e->message, begins[i], strlen(begins[i])) == 0)
            return 1;
    return 0;
}

/* ------------------------------------------------------------------ batch */

/* Undoes what a failed statement left, or has the run applied again without it. OK: the error may be answered. */
static hq_outcome settle(hq_apply *w, hq_outcome outcome, uint32_t number, size_t text_end) {
    if (outcome == HQ_STOP || outcome == HQ_REPLAY)
        return outcome;
    if (outcome == HQ_ENDED)
        w->in_savepoint = 0;
    if (outcome == HQ_ENDED || (outcome == HQ_UNDO && !w->in_savepoint))
        return hq_record_failure(w, number, text_end);
    int rc = SQLITE_DONE;
    if (w->in_savepoint)
        rc = outcome == HQ_PARTIAL ? hq_savepoint_close(w) : hq_savepoint_undo(w);
    return rc == SQLITE_DONE ? HQ_OK : hq_stop_sqlite(w, "a statement could not be undone");
}

/* One compiled statement of a batch: OK when its result or its error stands in the answer. */
static hq_outcome batch_statement(hq_apply *w, hq_prepared *p, uint32_t number, size_t text_end) {
    w->error.statement = number;
    hq_outcome outcome = no_parameters(w, p);
    /* Once one statement of this batch had to be undone by a replay, savepoints make sure that it was the only replay. Not
       for another entry's sake: what a savepoint makes a virtual table write may be counted as the next statement's. */
    int guarded = (p->seen & HQ_SEEN_VIRTUAL) || hq_recorded_any(w, w->ordinal);
    if (outcome == HQ_OK && guarded && hq_savepoint_open(w) != SQLITE_DONE)
        return hq_flush_failed(w); /* of what a statement before this one wrote */
    size_t before = w->answers.size;
    if (outcome == HQ_OK)
        outcome = hq_alone_check(w, hq_statement_run(w, p, 0));
    if (outcome == HQ_OK) {
        if (w->in_savepoint && hq_savepoint_close(w) != SQLITE_DONE)
            return hq_stop_sqlite(w, "a savepoint could not be closed");
        return HQ_OK;
    }
    if (w->answers.size > before) { /* it succeeded and left a violation */
        w->answers.size = before;
        w->result_count--;
    }
    int part_remains = outcome == HQ_PARTIAL;
    outcome = settle(w, outcome, number, text_end);
    return outcome == HQ_OK ? hq_answer_error(w, &w->error, part_remains) : outcome;
}

/* A statement that is known to fail costs a replay no more than its error: it is not even compiled. */
static hq_outcome answer_known(hq_apply *w, const hq_recorded *known) {
    w->error.statement = known->statement;
    hq_error_set(w, known->class_, known->code, "%s", known->message);
    return hq_answer_error(w, &w->error, 0);
}

hq_outcome hq_batch(hq_apply *w, const hq_command *c) {
    hq_cursor texts = hq_command_texts(c);
    hq_text text;
    hq_outcome outcome = next_text(w, &texts, &text);
    if (outcome != HQ_OK)
        return outcome;
    const char *at = text.utf8, *end = text.utf8 + text.size;
    int clean = sqlite3_changes64(w->db) == 0;
    if (!clean && hq_own_step(w, HQ_OWN_RESET_CHANGES) != SQLITE_DONE)
        return hq_stop_sqlite(w, "changes() could not be reset");
    for (uint32_t number = 0; at < end;) {
        hq_prepared p;
        const char *tail = end;
        const hq_recorded *known = hq_recorded_find(w, w->ordinal, number);
        if (known) {
            outcome = answer_known(w, known);
            if (outcome != HQ_OK)
                return outcome;
            at = text.utf8 + known->text_end;
            number++;
            continue;
        }
        outcome = hq_prepare(w, at, (uint32_t)(end - at), 0, &p, &tail);
        if (outcome == HQ_STOP)
            return outcome;
        if (outcome == HQ_OK && !p.stmt) { /* a comment, a lone `;`, or the end */
            at = tail > at ? tail : end;
            continue;
        }
        w->guard_api->entry_statement(number);
        if (outcome == HQ_OK) {
            outcome = batch_statement(w, &p, number, (size_t)(tail - text.utf8));
            sqlite3_finalize(p.stmt);
            at = tail;
        } else {
            w->error.statement = number;
            int ends = is_syntax_error(&w->error);
            outcome = hq_answer_error(w, &w->error, 0);
            at = ends ? end : hq_script_end(at, end);
        }
        if (outcome != HQ_OK)
            return outcome;
        number++;
    }
    return HQ_OK;
}

/* ------------------------------------------------------------------ migration */

/* Any failure of a migration is a MigrationError; the words say what it was. */
static hq_outcome as_migration_error(hq_apply *w, hq_outcome outcome, const hq_text *name) {
    if (outcome == HQ_OK || outcome == HQ_STOP || outcome == HQ_REPLAY)
        return outcome;
    hq_error cause = w->error;
    hq_error_set(w, HQ_CLASS_MIGRATION, cause.code, "migration %.200s, statement %u: %s", name->utf8,
                 cause.statement + 1, cause.message);
    return outcome;
}

/* The same of what was found behind its end; an entry that is no migration keeps its error. */
void hq_name_migration(hq_apply *w, const uint8_t *record) {
    hq_command c;
    hq_text text, name;
    hq_error cause = w->error;
    if (hq_command_open(&c, hq_record_payload(record), hq_record_payload_length(record)) != HQ_COMMAND_OK ||
        c.operation != HQ_OP_MIGRATION)
        return;
    hq_cursor texts = hq_command_texts(&c);
    if (hq_text_next(&texts, &text) == 1 && hq_text_next(&texts, &name) == 1)
        hq_error_set(w, HQ_CLASS_MIGRATION, cause.code, "migration %.200s: %s", name.utf8, cause.message);
}

static hq_outcome migration_statements(hq_apply *w, const hq_text *text) {
    const char *at = text->utf8, *end = text->utf8 + text->size;
    for (uint32_t number = 0; at < end;) {
        hq_prepared p;
        const char *tail = end;
        w->error.statement = number;
        hq_outcome outcome = hq_prepare(w, at, (uint32_t)(end - at), 0, &p, &tail);
        if (outcome != HQ_OK)
            return outcome;
        at = tail > at ? tail : end;
        if (!p.stmt)
            continue;
        w->guard_api->entry_statement(number);
        outcome = no_parameters(w, &p);
        if (outcome == HQ_OK)
            outcome = hq_statement_run(w, &p, 0);
        sqlite3_finalize(p.stmt);
        if (outcome != HQ_OK)
            return outcome;
        number++;
    }
    if (!w->foreign_keys_off)
        return hq_entry_check(w);
    int violated = hq_own_row_exists(w, "PRAGMA foreign_key_check");
    if (violated < 0) /* a parent that has no such key: the migration's doing */
        return hq_is_environmental(sqlite3_extended_errcode(w->db)) ? hq_stop_sqlite(w, "foreign_key_check failed")
                                                                    : hq_sqlite_error(w);
    if (!violated)
        return HQ_OK;
    hq_error_set(w, HQ_CLASS_CONSTRAINT, SQLITE_CONSTRAINT_FOREIGNKEY, "foreign_key_check finds violations");
    return HQ_UNDO;
}

/* What _migrations says of this id: 1 the same migration is there, 0 it is the next one, -1 an error was set, -2 stop. */
static int migration_state(hq_apply *w, int64_t id, const hq_text *hash) {
    sqlite3_stmt *stmt = w->own[HQ_OWN_MIGRATION_STATE];
    int state = -2;
    w->guard_api->own_writes(w->guard, 1);
    sqlite3_bind_int64(stmt, 1, id);
    if (sqlite3_step(stmt) == SQLITE_ROW) {
        int64_t highest = sqlite3_column_int64(stmt, 0);
        const char *known = (const char *)sqlite3_column_text(stmt, 1);
        state = known ? 1 : 0;
        if (known && strcmp(known, hash->utf8) != 0) {
            hq_error_set(w, HQ_CLASS_MIGRATION, 0, "migration %lld was applied with another content: %.64s, not %.64s",
                         (long long)id, known, hash->utf8);
            state = -1;
        } else if (!known && id != highest + 1) {
            hq_error_set(w, HQ_CLASS_MIGRATION, 0, "migration %lld cannot follow migration %lld", (long long)id,
                         (long long)highest);
            state = -1;
        }
    }
    sqlite3_reset(stmt);
    w->guard_api->own_writes(w->guard, 0);
    return state;
}

static hq_outcome note_migration(hq_apply *w, int64_t id, const hq_text *name, const hq_text *hash) {
    sqlite3_stmt *stmt = w->own[HQ_OWN_MIGRATION_INSERT];
    sqlite3_bind_int64(stmt, 1, id);
    sqlite3_bind_text64(stmt, 2, name->utf8, name->size, SQLITE_STATIC, SQLITE_UTF8);
    sqlite3_bind_int64(stmt, 3, w->wall_ns / 1000000000);
    sqlite3_bind_text64(stmt, 4, hash->utf8, hash->size, SQLITE_STATIC, SQLITE_UTF8);
    int rc = hq_own_step(w, HQ_OWN_MIGRATION_INSERT);
    sqlite3_clear_bindings(stmt);
    return rc == SQLITE_DONE ? HQ_OK : hq_stop_sqlite(w, "a migration could not be noted");
}

hq_outcome hq_migration(hq_apply *w, const hq_command *c) {
    hq_cursor texts = hq_command_texts(c);
    hq_text text, name, hash;
    char *rest = NULL;
    hq_outcome outcome = next_text(w, &texts, &text);
    if (outcome == HQ_OK)
        outcome = next_text(w, &texts, &name);
    if (outcome == HQ_OK)
        outcome = next_text(w, &texts, &hash);
    if (outcome != HQ_OK)
        return outcome;
    long long id = strtoll(name.utf8, &rest, 10);
    if (id < 1 || name.utf8[0] < '0' || name.utf8[0] > '9' || *rest != '_') {
        hq_error_set(w, HQ_CLASS_MIGRATION, 0, "the name of a migration is <n>_<name>.sql, not %.200s", name.utf8);
        return HQ_FAILED;
    }
    int state = migration_state(w, id, &hash);
    if (state == -2)
        return hq_stop_sqlite(w, "_migrations cannot be read");
    if (state == -1)
        return HQ_FAILED;
    if (state == 1)
        return hq_answer_done(w, 0, id);
    if (sqlite3_changes64(w->db) != 0 && hq_own_step(w, HQ_OWN_RESET_CHANGES) != SQLITE_DONE)
        return hq_stop_sqlite(w, "changes() could not be reset");
    if (hq_savepoint_open(w) != SQLITE_DONE)
        return hq_stop_sqlite(w, "no savepoint");
    outcome = migration_statements(w, &text);
    hq_answer_begin(w); /* one result stands for the whole migration */
    if (outcome != HQ_OK)
        return as_migration_error(w, outcome, &name);
    outcome = note_migration(w, id, &name, &hash);
    return outcome == HQ_OK ? hq_answer_done(w, 1, id) : outcome;
}
