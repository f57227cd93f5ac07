/* apply_session.c: who may write under which session, and what was answered to a write before.

   A session is opened by an entry and named by its index. Each of its writes carries a sequence and the low end of the
   client's window: answers below it are not asked for any more. An answer is found out, kept and given again by the very
   rules that stand here, on every node alike. Must not know SQL. Invariant: between runs the table holds what the
   database's own tables hold (apply_journal.c). */
#include <stdlib.h>
#include <string.h>

#include "apply.h"

/* ------------------------------------------------------------------ the table */

/* The first one whose id is not below. */
static uint32_t place_of(const hq_sessions *all, uint64_t id) {
    uint32_t low = 0, high = all->count;
    if (high > 0 && all->table[high - 1]->id < id)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (all->table[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

hq_session *hq_session_find(hq_sessions *all, uint64_t id) {
    if (all->latest && all->latest->id == id)
        return all->latest;
    uint32_t at = place_of(all, id);
    if (at == all->count || all->table[at]->id != id)
        return NULL;
    return all->latest = all->table[at];
}

/* A new one in the table, or NULL without memory. */
hq_session *hq_session_add(hq_sessions *all, uint64_t id) {
    if (all->count == all->capacity) {
        uint32_t capacity = all->capacity ? all->capacity * 2 : 16;
        hq_session **grown = realloc(all->table, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        all->table = grown;
        all->capacity = capacity;
    }
    hq_session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    uint32_t at = place_of(all, id);
    memmove(&all->table[at + 1], &all->table[at], (all->count - at) * sizeof *all->table);
    all->table[at] = s;
    all->count++;
    s->id = id;
    return s;
}

static void release(hq_session *s) {
    hq_kept_clear(s);
    free(s);
}

/* Takes those out for which `leaves` holds. */
static void sweep(hq_sessions *all, int (*leaves)(const hq_session *)) {
    uint32_t to = 0;
    for (uint32_t from = 0; from < all->count; from++)
        if (leaves(all->table[from]))
            release(all->table[from]);
        else
            all->table[to++] = all->table[from];
    all->count = to;
    all->latest = NULL;
}

static int is_any(const hq_session *s) { return s != NULL; }
static int is_fresh(const hq_session *s) { return s->fresh; }
static int is_ended(const hq_session *s) { return s->ended; }

void hq_sessions_close(hq_apply *w) {
    sweep(&w->sessions, is_any);
    free(w->sessions.table);
    free(w->sessions.touched);
    free(w->sessions.journal.data);
    memset(&w->sessions, 0, sizeof w->sessions);
}

/* ------------------------------------------------------------------ a run */

void hq_sessions_begin(hq_apply *w) {
    w->sessions.journal.size = 0;
    w->sessions.compacts = 0;
}

static int room_to_touch(hq_sessions *all) {
    if (all->touched_count < all->touched_capacity)
        return 0;
    uint32_t capacity = all->touched_capacity ? all->touched_capacity * 2 : 16;
    hq_session **grown = realloc(all->touched, capacity * sizeof *grown);
    if (!grown)
        return -1;
    all->touched = grown;
    all->touched_capacity = capacity;
    return 0;
}

/* Remembers how it was before this run. */
static int touch(hq_sessions *all, hq_session *s) {
    if (s->touched)
        return 0;
    if (room_to_touch(all) != 0)
        return -1;
    all->touched[all->touched_count++] = s;
    s->before = s->now;
    s->touched = s->dirty = 1;
    return 0;
}

void hq_sessions_undo(hq_apply *w) {
    hq_sessions *all = &w->sessions;
    int fresh = 0;
    for (uint32_t i = 0; i < all->touched_count; i++) {
        hq_session *s = all->touched[i];
        hq_kept_undo(s);
        s->now = s->before;
        s->touched = 0;
        fresh |= s->fresh;
    }
    all->touched_count = 0;
    if (fresh)
        sweep(all, is_fresh);
}

void hq_sessions_commit(hq_apply *w) {
    hq_sessions *all = &w->sessions;
    for (uint32_t i = 0; i < all->touched_count; i++) {
        all->touched[i]->touched = all->touched[i]->fresh = 0;
        hq_kept_settle(all->touched[i]);
    }
    all->touched_count = 0;
    if (all->compacts) {
        for (uint32_t i = 0; i < all->count; i++)
            all->table[i]->dirty = 0;
        sweep(all, is_ended);
    }
    __atomic_store_n(&w->session_count, all->count, __ATOMIC_RELEASE);
}

/* ------------------------------------------------------------------ opening one */

static hq_outcome malformed(hq_apply *w) {
    hq_error_set(w, HQ_CLASS_USAGE, 0, "the entry that opens a session is malformed");
    return HQ_FAILED;
}

hq_outcome hq_session_open(hq_apply *w, const uint8_t *record) {
    const uint8_t *p = hq_record_payload(record);
    hq_sessions *all = &w->sessions;
    if (hq_record_payload_length(record) != HQ_SESSION_PAYLOAD || p[0] != 1 || p[1] != HQ_SESSION_OPEN)
        return malformed(w);
    uint32_t window = hq_get_u32(p + 4);
    int64_t ttl_ns = hq_get_i64(p + 8), request_ttl_ns = hq_get_i64(p + 16);
    if (window == 0 || window > HQ_SESSION_WINDOW_MAX || hq_get_u16(p + 2) != 0)
        return malformed(w);
    if (ttl_ns <= 0 || ttl_ns > HQ_SESSION_TTL_MAX_NS || request_ttl_ns <= 0 || request_ttl_ns > HQ_SESSION_TTL_MAX_NS)
        return malformed(w);
    hq_session *s = room_to_touch(all) == 0 ? hq_session_add(all, w->index) : NULL;
    if (!s)
        return hq_stop(w, SQLITE_NOMEM, "no memory for a session");
    touch(all, s); /* there is room */
    s->window = window;
    s->ttl_ns = ttl_ns;
    s->request_ttl_ns = request_ttl_ns;
    s->now.low = 1;
    s->now.seen_ns = hq_record_group_ns(record);
    s->fresh = 1;
    return hq_journal_opened(w, s) == 0 ? HQ_OK : hq_stop(w, SQLITE_NOMEM, "no memory for a session");
}

/* ------------------------------------------------------------------ a write of one */

static enum hq_claim stop(hq_apply *w) {
    hq_stop(w, SQLITE_NOMEM, "no memory for a session");
    return HQ_CLAIM_STOP;
}

/* Gives the first answer again. What was kept without its rows is told as applied. */
static enum hq_claim repeat(hq_apply *w, const hq_kept *kept) {
    hq_outcome outcome = HQ_OK;
    if (kept->form == HQ_KEPT_APPLIED) {
        outcome = hq_answer_not_kept(w);
    } else if (kept->form == HQ_KEPT_BRIEF) {
        outcome = hq_answer_done(w, kept->rows_affected, kept->rowid);
        if (outcome == HQ_OK)
            outcome = hq_answer_end(w, HQ_STATUS_DONE, w->index);
        if (outcome == HQ_OK)
            outcome = hq_answer_of(w, kept->index);
    } else {
        outcome = hq_answer_again(w, kept->answer, kept->size, kept->index);
    }
    return outcome == HQ_OK ? HQ_CLAIM_REPEATED : HQ_CLAIM_STOP;
}

/* The entry is a write of this session, or of none: was it answered before? NEW and REFUSED with worker->claimed set: the
   answer is to be kept (hq_session_keep). */
enum hq_claim hq_session_claim(hq_apply *w, const hq_command *c, int64_t group_ns) {
    w->error.statement = 0;
    w->claimed = NULL;
    w->claimed_request = 0;
    if (c->session) {
        hq_session *s = hq_session_find(&w->sessions, c->session);
        if (!s || group_ns - s->now.seen_ns > s->ttl_ns) {
            hq_error_set(w, HQ_CLASS_SESSION, 0, "session %llu is not known, or was not used for too long",
                         (unsigned long long)c->session);
            return HQ_CLAIM_REFUSED;
        }
        if (c->sequence < s->now.low) {
            hq_error_set(w, HQ_CLASS_SESSION, 0, "the answer to write %llu of session %llu is not kept any more",
                         (unsigned long long)c->sequence, (unsigned long long)c->session);
            return HQ_CLAIM_REFUSED;
        }
        uint64_t low = c->window_low > s->now.low ? c->window_low : s->now.low;
        if (low > c->sequence || c->sequence - low >= s->window) {
            hq_error_set(w, HQ_CLASS_USAGE, 0, "write %llu lies outside of the window of session %llu",
                         (unsigned long long)c->sequence, (unsigned long long)c->session);
            return HQ_CLAIM_REFUSED;
        }
        if (touch(&w->sessions, s) != 0)
            return stop(w);
        hq_kept_pass(s, low);
        if (group_ns > s->now.seen_ns)
            s->now.seen_ns = group_ns;
        const hq_kept *kept = hq_kept_find(s, c->sequence);
        if (kept)
            return hq_journal_used(w, s) == 0 ? repeat(w, kept) : stop(w);
        w->claimed = s;
    }
    return c->request_id_size ? hq_request_claim(w, c, group_ns) : HQ_CLAIM_NEW;
}

/* ------------------------------------------------------------------ its answer */

static int is_brief(const uint8_t *answer, size_t size) {
    return size == HQ_ANSWER_HEADER + HQ_RESULT_HEADER && hq_get_u32(answer) == HQ_ANSWER_VERSION &&
           hq_get_u32(answer + 4) == 1 && answer[HQ_ANSWER_HEADER] == HQ_RESULT_DONE;
}

/* The entry's answer is finished: keeps it for who claimed it. */
hq_outcome hq_session_keep(hq_apply *w, const hq_command *c, int64_t group_ns) {
    const uint8_t *answer = w->answers.data + w->entry_at;
    size_t size = w->answers.size - w->entry_at;
    hq_session *s = w->claimed;
    if (w->claimed_request) {
        hq_outcome outcome = hq_request_keep(w, c, group_ns, s ? s->request_ttl_ns : HQ_REQUEST_TTL_NS);
        if (outcome != HQ_OK)
            return outcome;
    }
    if (!s)
        return HQ_OK;
    hq_kept kept = {.sequence = c->sequence, .index = w->index, .pending = 1};
    if (is_brief(answer, size)) {
        kept.form = HQ_KEPT_BRIEF;
        kept.rows_affected = hq_get_i64(answer + HQ_ANSWER_HEADER + 8);
        kept.rowid = hq_get_i64(answer + HQ_ANSWER_HEADER + 16);
    } else if (answer[1] == HQ_STATUS_FAILED || (size <= HQ_KEPT_ANSWER_MAX && s->now.bytes + size <= HQ_KEPT_BYTES_MAX)) {
        kept.form = HQ_KEPT_WHOLE;
        kept.size = (uint32_t)size;
        kept.answer = malloc(size);
        if (!kept.answer)
            return hq_stop(w, SQLITE_NOMEM, "no memory to keep an answer");
        memcpy(kept.answer, answer, size);
    } else {
        kept.form = HQ_KEPT_APPLIED;
    }
    if (hq_kept_add(s, &kept) != 0) {
        free(kept.answer);
        return hq_stop(w, SQLITE_NOMEM, "no memory to keep an answer");
    }
    return hq_journal_kept(w, s, &kept) == 0 ? HQ_OK : hq_stop(w, SQLITE_NOMEM, "no memory to keep an answer");
}
