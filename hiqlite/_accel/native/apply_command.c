/* apply_command.c: execute, execute_many and txn: statements that stand in the command, with parameters.

   execute needs no savepoint: a failing statement undoes itself. execute_many and txn are all or nothing, so they run
   inside one. Must not split text. */
#include <stdlib.h>
#include <string.h>

#include "apply.h"

static hq_outcome malformed(hq_apply *w) {
    hq_error_set(w, HQ_CLASS_USAGE, 0, "the command is malformed");
    return HQ_FAILED;
}

static hq_outcome expectation(hq_apply *w, const hq_statement *s, const hq_prepared *p) {
    int64_t got = p->readonly ? (int64_t)w->row_count : w->rows_affected;
    if (!(s->flags & HQ_STATEMENT_EXPECTS) || got == s->expected_rows)
        return HQ_OK;
    hq_error_set(w, HQ_CLASS_EXPECTATION, 0, "%lld rows were expected, %lld were %s", (long long)s->expected_rows,
                 (long long)got, p->readonly ? "found" : "changed");
    return HQ_UNDO;
}

/* changes() is 0 at the start of an entry. Nothing but changes() itself can see the difference. */
static hq_outcome reset_changes(hq_apply *w) {
    if (w->starts_clean || sqlite3_changes64(w->db) == 0)
        return HQ_OK;
    w->starts_clean = 1;
    return hq_own_step(w, HQ_OWN_RESET_CHANGES) == SQLITE_DONE ? HQ_OK : hq_stop_sqlite(w, "changes() could not be reset");
}

static hq_outcome one(hq_apply *w, const hq_command *c, const hq_statement *s, const hq_text *text, int keep_rows) {
    hq_prepared *p;
    hq_outcome outcome = hq_text_get(w, text->utf8, text->size, &p);
    if (outcome == HQ_OK)
        outcome = hq_bind(w, c, s, p);
    if (outcome != HQ_OK)
        return outcome;
    if (p->seen & HQ_SEEN_CHANGES) {
        outcome = reset_changes(w);
        if (outcome != HQ_OK)
            return outcome;
    }
    w->starts_clean = 1; /* from here on changes() tells of this entry */
    outcome = hq_statement_run(w, p, keep_rows && !(c->operation == HQ_OP_TXN && p->readonly));
    return outcome == HQ_OK ? expectation(w, s, p) : outcome;
}

/* ------------------------------------------------------------------ execute */

/* With a savepoint where a virtual table is touched: what it keeps outside of SQLite's pages is undone by that alone. And
   in a run that is applied again because something had to be undone: it is not to be repeated for each such entry. */
hq_outcome hq_execute(hq_apply *w, const hq_command *c) {
    hq_cursor at = hq_command_statements(c);
    hq_statement s;
    hq_text text;
    hq_prepared *p;
    hq_cursor texts = hq_command_texts(c);
    if (hq_text_next(&texts, &text) != 1 || hq_statement_next(c, &at, &s) != 1 || at.p != at.end)
        return malformed(w);
    s.number = 0;
    w->error.statement = 0;
    hq_outcome outcome = hq_text_get(w, text.utf8, text.size, &p);
    if (outcome != HQ_OK)
        return outcome;
    if (((p->seen & HQ_SEEN_VIRTUAL) || w->recorded_count) && hq_savepoint_open(w) != SQLITE_DONE)
        return hq_stop_sqlite(w, "no savepoint");
    w->partial_stays = 1;
    return hq_alone_check(w, one(w, c, &s, &text, c->flags & HQ_FLAG_ROWS_WANTED));
}

/* ------------------------------------------------------------------ execute_many, txn */

static hq_outcome read_texts(hq_apply *w, const hq_command *c) {
    if (c->text_count > w->text_table_capacity) {
        hq_text *table = realloc(w->text_table, c->text_count * sizeof *table);
        if (!table)
            return hq_stop(w, SQLITE_NOMEM, "no memory for a command's texts");
        w->text_table = table;
        w->text_table_capacity = c->text_count;
    }
    hq_command_text_table(c, w->text_table);
    return HQ_OK;
}

/* Remembers where the next result begins. */
static hq_outcome note_result(hq_apply *w) {
    if (w->result_count >= w->results_capacity) {
        size_t capacity = w->results_capacity ? w->results_capacity * 2 : 64;
        size_t *results = realloc(w->results, capacity * sizeof *results);
        if (!results)
            return hq_stop(w, SQLITE_NOMEM, "no memory for a command's results");
        w->results = results;
        w->results_capacity = capacity;
    }
    w->results[w->result_count] = w->answers.size - w->entry_at;
    return HQ_OK;
}

hq_outcome hq_several(hq_apply *w, const hq_command *c) {
    hq_cursor at = hq_command_statements(c);
    int keep_rows = c->operation == HQ_OP_TXN || (c->flags & HQ_FLAG_ROWS_WANTED);
    hq_outcome outcome = read_texts(w, c);
    if (outcome != HQ_OK)
        return outcome;
    outcome = reset_changes(w);
    if (outcome != HQ_OK)
        return outcome;
    if (hq_savepoint_open(w) != SQLITE_DONE)
        return hq_stop_sqlite(w, "no savepoint");
    for (uint32_t number = 0; number < c->statement_count; number++) {
        hq_statement s;
        w->error.statement = number;
        if (hq_statement_next(c, &at, &s) != 1)
            return malformed(w);
        s.number = number;
        outcome = note_result(w);
        if (outcome == HQ_OK)
            outcome = one(w, c, &s, &w->text_table[s.text_number], keep_rows);
        if (outcome != HQ_OK)
            return outcome;
        w->guard_api->entry_statement(number + 1);
    }
    return at.p == at.end ? hq_entry_check(w) : malformed(w);
}
