/* apply_journal.c: the sessions as bytes in the database (docs/formats.md section 9).

   Each run's row carries what the run did to the sessions, so it is written with the data and costs one column. Every few
   hundred runs the sessions that changed since get a row of their own, and older runs are not needed any more. A start
   reads those rows, then the runs' in order; a record that is read twice changes nothing. Must not judge a write.
   Invariant: what is read gives the table that was there at the last COMMIT. */
#include <stdlib.h>
#include <string.h>

#include "apply.h"

enum { OPENED = 1, USED = 2, HEAD = 25, OPENED_TAIL = 20, BRIEF_TAIL = 32, WHOLE_TAIL = 20, APPLIED_TAIL = 16 };

/* ------------------------------------------------------------------ writing */

static uint8_t *put_head(hq_buffer *to, uint8_t kind, const hq_session *s, size_t tail) {
    if (hq_buffer_reserve(to, HEAD + tail) != 0)
        return NULL;
    uint8_t *p = to->data + to->size;
    p[0] = kind;
    hq_put_u64(p + 1, s->id);
    hq_put_i64(p + 9, s->now.seen_ns);
    hq_put_u64(p + 17, s->now.low);
    to->size += HEAD + tail;
    return p + HEAD;
}

static int put_opened(hq_buffer *to, const hq_session *s) {
    uint8_t *p = put_head(to, OPENED, s, OPENED_TAIL);
    if (!p)
        return -1;
    hq_put_u32(p, s->window);
    hq_put_i64(p + 4, s->ttl_ns);
    hq_put_i64(p + 12, s->request_ttl_ns);
    return 0;
}

static int put_kept(hq_buffer *to, const hq_session *s, const hq_kept *kept) {
    size_t tail = kept->form == HQ_KEPT_BRIEF ? BRIEF_TAIL : kept->form == HQ_KEPT_WHOLE ? WHOLE_TAIL + (size_t)kept->size
                                                                                        : APPLIED_TAIL;
    uint8_t *p = put_head(to, kept->form, s, tail);
    if (!p)
        return -1;
    hq_put_u64(p, kept->sequence);
    hq_put_u64(p + 8, kept->index);
    if (kept->form == HQ_KEPT_BRIEF) {
        hq_put_i64(p + 16, kept->rows_affected);
        hq_put_i64(p + 24, kept->rowid);
    } else if (kept->form == HQ_KEPT_WHOLE) {
        hq_put_u32(p + 16, kept->size);
        memcpy(p + WHOLE_TAIL, kept->answer, kept->size);
    }
    return 0;
}

int hq_journal_opened(hq_apply *w, const hq_session *s) { return put_opened(&w->sessions.journal, s); }
int hq_journal_used(hq_apply *w, const hq_session *s) {
    return put_head(&w->sessions.journal, USED, s, 0) ? 0 : -1;
}
int hq_journal_kept(hq_apply *w, const hq_session *s, const hq_kept *kept) {
    return put_kept(&w->sessions.journal, s, kept);
}

/* Everything that is known of one session. */
static int put_state(hq_buffer *to, const hq_session *s) {
    to->size = 0;
    if (put_opened(to, s) != 0)
        return -1;
    for (uint32_t at = s->now.live; at < s->end; at++)
        if (put_kept(to, s, &s->kept[at]) != 0)
            return -1;
    return 0;
}

static int step_bound(hq_apply *w, enum hq_own_statement which, uint64_t id, const hq_buffer *state) {
    sqlite3_stmt *stmt = w->own[which];
    int rc = sqlite3_bind_int64(stmt, 1, (int64_t)id);
    if (rc == SQLITE_OK && state)
        rc = sqlite3_bind_blob64(stmt, 2, state->data, state->size, SQLITE_STATIC);
    if (rc == SQLITE_OK)
        rc = hq_own_step(w, which);
    sqlite3_clear_bindings(stmt);
    return rc;
}

/* Writes the rows of sessions that changed, takes those away that nobody can use any more: twice their time, because an
   entry's group time is the measure of its use, and the newest one is that of this removal. The latest one stays, ended or
   not: it tells that all members knew sessions once. */
hq_outcome hq_journal_compact(hq_apply *w, int64_t group_ns) {
    hq_sessions *all = &w->sessions;
    hq_buffer state = {NULL, 0, 0};
    hq_outcome outcome = HQ_OK;
    all->compacts = 1;
    for (uint32_t i = 0; outcome == HQ_OK && i < all->count; i++) {
        hq_session *s = all->table[i];
        s->ended = (group_ns - s->now.seen_ns) / 2 > s->ttl_ns && i + 1 < all->count;
        if (s->ended) {
            if (step_bound(w, HQ_OWN_SESSION_DROP, s->id, NULL) != SQLITE_DONE)
                outcome = hq_stop_sqlite(w, "a session that ended could not be removed");
        } else if (s->dirty) {
            if (put_state(&state, s) != 0)
                outcome = hq_stop(w, SQLITE_NOMEM, "no memory to write a session");
            else if (step_bound(w, HQ_OWN_SESSION_PUT, s->id, &state) != SQLITE_DONE)
                outcome = hq_stop_sqlite(w, "a session could not be written");
        }
    }
    free(state.data);
    return outcome;
}

/* ------------------------------------------------------------------ reading */

/* Takes one answer in; -1: no memory. */
static int read_kept(hq_session *s, uint8_t form, const uint8_t *p) {
    hq_kept kept = {.sequence = hq_get_u64(p), .index = hq_get_u64(p + 8), .form = form};
    if (kept.sequence < s->now.low || hq_kept_find(s, kept.sequence))
        return 0;
    if (form == HQ_KEPT_BRIEF) {
        kept.rows_affected = hq_get_i64(p + 16);
        kept.rowid = hq_get_i64(p + 24);
    } else if (form == HQ_KEPT_WHOLE) {
        kept.size = hq_get_u32(p + 16);
        kept.answer = malloc(kept.size ? kept.size : 1);
        if (!kept.answer)
            return -1;
        memcpy(kept.answer, p + WHOLE_TAIL, kept.size);
    }
    if (hq_kept_add(s, &kept) == 0)
        return 0;
    free(kept.answer);
    return -1;
}

/* Bytes behind a record's head; 0 for USED, -1: there is no such record. */
static int64_t tail_of(uint8_t kind, const uint8_t *p, size_t left) {
    switch (kind) {
    case OPENED:
        return OPENED_TAIL;
    case USED:
        return 0;
    case HQ_KEPT_BRIEF:
        return BRIEF_TAIL;
    case HQ_KEPT_WHOLE:
        if (left < WHOLE_TAIL || hq_get_u32(p + 16) < HQ_ANSWER_HEADER)
            return -1;
        return WHOLE_TAIL + (int64_t)hq_get_u32(p + 16);
    case HQ_KEPT_APPLIED:
        return APPLIED_TAIL;
    default:
        return -1;
    }
}

/* Reads records into the table. SQLITE_OK, NOMEM, or CORRUPT. A session that ended is not there: what was done to it
   before that is passed over. */
static int read_records(hq_sessions *all, const uint8_t *p, size_t size) {
    const uint8_t *end = p + size;
    while (p < end) {
        size_t left = (size_t)(end - p);
        if (left < HEAD)
            return SQLITE_CORRUPT;
        int64_t tail = tail_of(p[0], p + HEAD, left - HEAD);
        if (tail < 0 || (uint64_t)tail > left - HEAD)
            return SQLITE_CORRUPT;
        uint64_t id = hq_get_u64(p + 1);
        hq_session *s = hq_session_find(all, id);
        if (!s && p[0] == OPENED) {
            s = hq_session_add(all, id);
            if (!s)
                return SQLITE_NOMEM;
            s->window = hq_get_u32(p + HEAD);
            s->ttl_ns = hq_get_i64(p + HEAD + 4);
            s->request_ttl_ns = hq_get_i64(p + HEAD + 12);
            s->dirty = 1;
        }
        if (s) {
            if (hq_get_i64(p + 9) > s->now.seen_ns)
                s->now.seen_ns = hq_get_i64(p + 9);
            hq_kept_pass(s, hq_get_u64(p + 17));
            if (p[0] >= HQ_KEPT_BRIEF && read_kept(s, p[0], p + HEAD) != 0)
                return SQLITE_NOMEM;
            hq_kept_settle(s);
        }
        p += HEAD + tail;
    }
    return SQLITE_OK;
}

static int read_column(hq_apply *w, const char *sql, size_t *size) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(w->db, sql, -1, &stmt, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const uint8_t *bytes = sqlite3_column_blob(stmt, 0);
        rc = read_records(&w->sessions, bytes, (size_t)sqlite3_column_bytes(stmt, 0));
        *size += (size_t)sqlite3_column_bytes(stmt, 0);
    }
    int finished = sqlite3_finalize(stmt);
    return rc == SQLITE_DONE || rc == SQLITE_OK ? finished : rc;
}

/* The table as it was at the last COMMIT; under own_writes. SQLITE_OK or a code. */
int hq_journal_load(hq_apply *w) {
    size_t kept = 0;
    int rc = read_column(w, "SELECT state FROM _hiqlite_session ORDER BY id", &kept);
    if (rc == SQLITE_OK)
        rc = read_column(w, "SELECT answers FROM _hiqlite_run WHERE answers IS NOT NULL ORDER BY last_index",
                         &w->journal_since_trim);
    w->session_count = w->sessions.count;
    return rc;
}
