/* apply_entry.c: one entry: its slot in the run, its clock and chance, its answer, whatever becomes of it.

   Invariant: when hq_entry_apply returns OK, exactly one answer was added and the transaction holds what the answer says;
   no savepoint is open, and this thread is in no entry. */
#include <stdlib.h>
#include <string.h>

#include "apply.h"

/* ------------------------------------------------------------------ what is known to fail */

/* The first one that is not before this statement; they are kept in the order of entries and statements. */
static uint32_t recorded_from(const hq_apply *w, uint32_t ordinal, uint32_t statement) {
    uint32_t low = 0, high = w->recorded_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const hq_recorded *r = &w->recorded[middle];
        if (r->ordinal < ordinal || (r->ordinal == ordinal && r->statement < statement))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const hq_recorded *hq_recorded_find(const hq_apply *w, uint32_t ordinal, uint32_t statement) {
    uint32_t i = recorded_from(w, ordinal, statement);
    if (i == w->recorded_count || w->recorded[i].ordinal != ordinal || w->recorded[i].statement != statement)
        return NULL;
    return &w->recorded[i];
}

int hq_recorded_any(const hq_apply *w, uint32_t ordinal) {
    uint32_t i = recorded_from(w, ordinal, 0);
    return i < w->recorded_count && w->recorded[i].ordinal == ordinal;
}

void hq_recorded_clear(hq_apply *w) {
    for (uint32_t i = 0; i < w->recorded_count; i++)
        free(w->recorded[i].message);
    w->recorded_count = 0;
}

/* Notes worker->error as the fate of the entry (HQ_WHOLE) or of one statement of its batch, which ends at text_end. */
hq_outcome hq_record_failure(hq_apply *w, uint32_t statement, size_t text_end) {
    const hq_error *e = &w->error;
    if (w->recorded_count == w->recorded_capacity) {
        uint32_t capacity = w->recorded_capacity ? w->recorded_capacity * 2 : 16;
        hq_recorded *grown = realloc(w->recorded, capacity * sizeof *grown);
        if (!grown)
            return hq_stop(w, SQLITE_NOMEM, "no memory to note a failed entry");
        w->recorded = grown;
        w->recorded_capacity = capacity;
    }
    char *message = malloc((size_t)e->size + 1);
    if (!message)
        return hq_stop(w, SQLITE_NOMEM, "no memory to note a failed entry");
    memcpy(message, e->message, (size_t)e->size + 1);
    uint32_t at = recorded_from(w, w->ordinal, statement);
    hq_recorded *r = &w->recorded[at];
    memmove(r + 1, r, (w->recorded_count - at) * sizeof *r);
    w->recorded_count++;
    *r = (hq_recorded){w->ordinal, statement, e->size, e->class_, e->code, e->statement, text_end, message};
    return HQ_REPLAY;
}

/* ------------------------------------------------------------------ checks */

/* Whether a deferred foreign key is violated: 1, 0, or -1 if that cannot be asked. */
static int is_violated(hq_apply *w) {
    int violated = 0, highest = 0;
    int rc = sqlite3_db_status(w->db, SQLITE_DBSTATUS_DEFERRED_FKS, &violated, &highest, 0);
    return rc == SQLITE_OK ? violated != 0 : -1;
}

static hq_outcome not_asked(hq_apply *w) {
    return hq_stop(w, SQLITE_MISUSE, "deferred foreign keys cannot be asked for");
}

/* A deferred foreign key must not wait for COMMIT: where that is depends on how runs are cut. */
hq_outcome hq_entry_check(hq_apply *w) {
    int violated = is_violated(w);
    if (violated <= 0)
        return violated < 0 ? not_asked(w) : HQ_OK;
    hq_error_set(w, HQ_CLASS_CONSTRAINT, SQLITE_CONSTRAINT_FOREIGNKEY, "FOREIGN KEY constraint failed");
    return HQ_UNDO;
}

/* What a statement that stands for itself gives in the end. The rows that a failed one keeps are checked like others: a
   violation among them would fail a neighbour, or the COMMIT. SQLite goes on counting one in a row that it did not keep,
   where an immediate foreign key failed the statement behind a deferred one: that statement has to be undone too. */
hq_outcome hq_alone_check(hq_apply *w, hq_outcome outcome) {
    if (outcome == HQ_FAILED) {
        int violated = is_violated(w);
        return violated < 0 ? not_asked(w) : violated ? HQ_UNDO : HQ_FAILED;
    }
    if (outcome != HQ_OK && outcome != HQ_PARTIAL)
        return outcome;
    hq_outcome checked = hq_entry_check(w);
    return checked == HQ_OK ? outcome : checked;
}

int hq_entry_wants_foreign_keys_off(const uint8_t *record) {
    const uint8_t *payload = hq_record_payload(record);
    uint8_t kind = hq_record_entry_kind(record);
    if ((kind != HQ_ENTRY_MIGRATION && kind != HQ_ENTRY_COMMAND) || hq_record_payload_length(record) < HQ_COMMAND_HEADER)
        return 0;
    return payload[1] == HQ_OP_MIGRATION && (hq_get_u16(payload + 2) & HQ_FLAG_FOREIGN_KEYS_OFF) != 0;
}

/* ------------------------------------------------------------------ the way of an entry */

static hq_outcome by_operation(hq_apply *w, const hq_command *c) {
    switch (c->operation) {
    case HQ_OP_EXECUTE:
        return hq_execute(w, c);
    case HQ_OP_EXECUTE_MANY:
    case HQ_OP_TXN:
        return hq_several(w, c);
    case HQ_OP_BATCH:
        return hq_batch(w, c);
    default: /* hq_command_open lets no other pass */
        return hq_migration(w, c);
    }
}

static hq_outcome run_command(hq_apply *w, const hq_command *c, const uint8_t *record) {
    w->error.statement = 0;
    w->wall_ns = hq_record_wall_ns(record);
    w->starts_clean = 0;
    w->began_fresh = w->schema_fresh;
    w->schema_fresh = 0;
    sqlite3_set_last_insert_rowid(w->db, 0);
    w->guard_api->entry_begin(w->wall_ns, hq_record_seed(record));
    hq_outcome outcome = by_operation(w, c);
    w->guard_api->entry_end();
    return outcome;
}

/* Leaves the savepoint, if there is one, so that nothing of a failed entry remains. */
static hq_outcome settle(hq_apply *w, hq_outcome outcome) {
    if (outcome == HQ_ENDED)
        w->in_savepoint = 0; /* gone with the transaction */
    if (outcome == HQ_ENDED || (outcome == HQ_UNDO && !w->in_savepoint))
        return hq_record_failure(w, HQ_WHOLE, 0);
    if (!w->in_savepoint)
        return outcome;
    if (outcome == HQ_OK)
        return hq_savepoint_close(w) == SQLITE_DONE ? HQ_OK : hq_stop_sqlite(w, "a savepoint could not be closed");
    /* A single statement that kept a part keeps it, savepoint or not; several are all or nothing. */
    if (outcome == HQ_PARTIAL && w->partial_stays)
        return hq_savepoint_close(w) == SQLITE_DONE ? outcome : hq_stop_sqlite(w, "a savepoint could not be closed");
    /* A full-text table that was made and written, and is gone again: SQLite asks it at COMMIT all the same, and fails.
       Where the whole run is undone nobody is asked. */
    if (w->touched_virtual && w->changed_schema)
        return hq_record_failure(w, HQ_WHOLE, 0);
    if (hq_savepoint_undo(w) != SQLITE_DONE)
        return hq_stop_sqlite(w, "an entry could not be undone");
    return HQ_FAILED;
}

/* A virtual table keeps what was written until a savepoint begins, or COMMIT, where no entry is to blame. What it says is
   the entry's error, as a statement's would be; FULL is so only if the disk has no part in it (see hq_full_is_proven). */
hq_outcome hq_flush_failed(hq_apply *w) {
    if ((sqlite3_extended_errcode(w->db) & 0xff) != SQLITE_FULL) {
        hq_outcome outcome = hq_sqlite_error(w);
        return outcome == HQ_STOP ? outcome : hq_record_failure(w, HQ_WHOLE, 0);
    }
    if (!hq_full_is_proven(w))
        return HQ_REPLAY;
    hq_error_set(w, HQ_CLASS_STATEMENT, SQLITE_FULL, "the virtual table is full");
    return hq_record_failure(w, HQ_WHOLE, 0);
}

static hq_outcome flush(hq_apply *w, hq_outcome outcome) {
    if (hq_own_step(w, HQ_OWN_SAVEPOINT) != SQLITE_DONE)
        return hq_flush_failed(w);
    return hq_own_step(w, HQ_OWN_RELEASE) == SQLITE_DONE ? outcome : hq_stop_sqlite(w, "a savepoint could not be closed");
}

static hq_outcome answer_failure(hq_apply *w, hq_outcome outcome) {
    hq_answer_begin(w);
    hq_outcome written = hq_answer_error(w, &w->error, 0);
    if (written != HQ_OK)
        return written;
    return hq_answer_end(w, outcome == HQ_PARTIAL ? HQ_STATUS_PARTIAL : HQ_STATUS_FAILED, w->index);
}

/* A command that was not answered before; its answer. */
static hq_outcome apply_command(hq_apply *w, const hq_command *c, const uint8_t *record) {
    const hq_recorded *known = w->recorded_count ? hq_recorded_find(w, w->ordinal, HQ_WHOLE) : NULL;
    if (known) {
        hq_error_set(w, known->class_, known->code, "%s", known->message);
        w->error.statement = known->error_statement;
        return answer_failure(w, HQ_FAILED);
    }
    hq_outcome outcome = run_command(w, c, record);
    if (outcome != HQ_STOP && outcome != HQ_REPLAY)
        outcome = settle(w, outcome);
    if ((outcome == HQ_OK || outcome == HQ_PARTIAL) && w->touched_virtual)
        outcome = flush(w, outcome);
    if (outcome == HQ_STOP || outcome == HQ_REPLAY)
        return outcome;
    return outcome == HQ_OK ? hq_answer_end(w, HQ_STATUS_DONE, w->index) : answer_failure(w, outcome);
}

static hq_outcome command(hq_apply *w, const uint8_t *record) {
    hq_command c;
    if (hq_command_open(&c, hq_record_payload(record), hq_record_payload_length(record)) != HQ_COMMAND_OK) {
        w->error.statement = 0;
        hq_error_set(w, HQ_CLASS_USAGE, 0, "the command is malformed");
        return answer_failure(w, HQ_FAILED);
    }
    /* What it would be answered now may not be what it is answered when it is applied: a trial runs it in any case. */
    if ((c.session == 0 && c.request_id_size == 0) || w->trying)
        return apply_command(w, &c, record);
    hq_outcome outcome = HQ_OK;
    switch (hq_session_claim(w, &c, hq_record_group_ns(record))) {
    case HQ_CLAIM_NEW:
        outcome = apply_command(w, &c, record);
        break;
    case HQ_CLAIM_REFUSED:
        outcome = answer_failure(w, HQ_FAILED);
        break;
    case HQ_CLAIM_REPEATED:
        break;
    case HQ_CLAIM_STOP:
        return HQ_STOP;
    }
    return outcome == HQ_OK ? hq_session_keep(w, &c, hq_record_group_ns(record)) : outcome;
}

/* Applies the entry; OK (whatever its answer says), REPLAY, or STOP. */
hq_outcome hq_entry_apply(hq_apply *w, const uint8_t *record, uint32_t ordinal) {
    w->ordinal = ordinal;
    w->index = hq_record_index(record);
    w->entry_at = w->answers.size;
    w->in_savepoint = w->partial_stays = 0;
    if (hq_buffer_reserve(&w->answers, HQ_ANSWER_HEADER) != 0)
        return hq_stop(w, SQLITE_NOMEM, "no memory for an answer");
    hq_answer_begin(w);
    hq_outcome outcome;
    switch (hq_record_entry_kind(record)) {
    case HQ_ENTRY_COMMAND:
    case HQ_ENTRY_MIGRATION:
        return command(w, record);
    case HQ_ENTRY_SESSION:
        w->error.statement = 0;
        outcome = w->trying ? HQ_OK : hq_session_open(w, record);
        if (outcome == HQ_FAILED)
            return answer_failure(w, HQ_FAILED);
        return outcome == HQ_OK ? hq_answer_end(w, HQ_STATUS_DONE, w->index) : outcome;
    default:
        return hq_answer_end(w, HQ_STATUS_DONE, w->index); /* it only moves the applied index */
    }
}
