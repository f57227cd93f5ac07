/* apply_cheap.c: whether entries may be applied on the event loop's own thread: only texts whose cost is known.

   Size predicts the cost of a statement that is known to be short; an UPDATE of a whole table is short in bytes only. So
   every text must have run before under this schema, and none of its last eight runs may have been slow. This decides
   where an entry is applied, never how, so it may use a clock. */
#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "apply_queue.h"

enum { SLOW_MEMORY = 8, SLOW_TEXT_MAX = 64 << 10 };

/* For the owner, who judges by it what is proposed without a trial. */
static void name_slow(hq_apply *w, sqlite3_stmt *stmt) {
    const char *sql = sqlite3_sql(stmt);
    size_t size = sql ? strlen(sql) : 0;
    if (!sql || size > SLOW_TEXT_MAX || w->slow_count == HQ_SLOW_TEXTS_MAX)
        return;
    for (uint32_t i = 0; i < w->slow_count; i++)
        if (strcmp(w->slow_texts[i], sql) == 0)
            return;
    char *copy = malloc(size + 1);
    if (copy)
        w->slow_texts[w->slow_count++] = memcpy(copy, sql, size + 1);
}

/* Notes how long a text's statement ran, by a clock of some milliseconds' grain. */
void hq_note_cost(hq_apply *w, hq_prepared *p, int64_t spent_ns) {
    if (spent_ns >= HQ_SLOW_NS) {
        p->slow = SLOW_MEMORY;
        name_slow(w, p->stmt);
    } else if (p->slow > 0) {
        p->slow--;
    }
    p->known = 1;
}

void hq_slow_move(hq_apply *w, hq_run_result *result) {
    memcpy(result->slow_texts, w->slow_texts, sizeof w->slow_texts);
    result->slow_count = w->slow_count;
    w->slow_count = 0;
}

void hq_slow_clear(hq_apply *w) {
    while (w->slow_count)
        free(w->slow_texts[--w->slow_count]);
}

static int command_is_cheap(hq_apply *w, const uint8_t *record) {
    hq_command c;
    hq_text text;
    if (hq_command_open(&c, hq_record_payload(record), hq_record_payload_length(record)) != HQ_COMMAND_OK)
        return 1; /* it costs an error message */
    if (c.operation == HQ_OP_BATCH || c.operation == HQ_OP_MIGRATION)
        return 0;
    hq_cursor at = hq_command_texts(&c);
    while (hq_text_next(&at, &text) == 1)
        if (!hq_text_is_cheap(w, text.utf8, text.size))
            return 0;
    return 1;
}

/* Called by who holds `busy`. */
int hq_job_is_cheap(hq_apply *w, const hq_job *job) {
    for (uint32_t i = 0; i < job->piece_count; i++) {
        const uint8_t *p = job->pieces[i].data, *end = p + job->pieces[i].size;
        while (p < end) {
            uint8_t kind;
            if (hq_record_check(p, (size_t)(end - p), 0) != HQ_RECORD_OK)
                return 1; /* the run will say so */
            kind = hq_record_entry_kind(p);
            if ((kind == HQ_ENTRY_COMMAND || kind == HQ_ENTRY_MIGRATION) && !command_is_cheap(w, p))
                return 0;
            p += hq_record_length(p);
        }
    }
    return 1;
}
