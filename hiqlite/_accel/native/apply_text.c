/* apply_text.c: prepared statements by their text.

   A text is prepared once per schema and kept; runs of the same text hit the newest slot by one comparison. What was
   learnt about a text (what it touches, whether it reads changes()) counts for one epoch of the schema: a slot of an older
   epoch is prepared anew here, never silently by SQLite in the middle of an entry.
   Invariant: a slot's statement is reset whenever this file is entered, so any slot may be dropped. Must not know entries. */
#include <stdlib.h>
#include <string.h>

#include "apply.h"

enum { KEPT_TEXT_MAX = 64 << 10, KEPT_BYTES_MAX = 16 << 20 };

static uint64_t hash_text(const char *utf8, uint32_t size) {
    const uint8_t *p = (const uint8_t *)utf8;
    uint64_t hash = hq_mix_seed(size);
    for (; size >= 8; p += 8, size -= 8)
        hash = (hash ^ hq_get_u64(p)) * 0x9E3779B97F4A7C15ULL, hash ^= hash >> 29;
    uint64_t rest = 0;
    memcpy(&rest, p, size);
    return hq_mix_seed(hash ^ rest);
}

int hq_texts_open(hq_texts *t, uint32_t count_max) {
    uint32_t buckets = 64;
    memset(t, 0, sizeof *t);
    t->count_max = count_max ? count_max : 1;
    while (buckets < t->count_max && buckets < (1u << 20))
        buckets *= 2;
    t->buckets = calloc(buckets, sizeof *t->buckets);
    t->bucket_mask = buckets - 1;
    t->epoch = 1;
    return t->buckets ? 0 : -1;
}

static void unlink_slot(hq_texts *t, hq_text_slot *slot) {
    if (slot->newer)
        slot->newer->older = slot->older;
    else
        t->newest = slot->older;
    if (slot->older)
        slot->older->newer = slot->newer;
    else
        t->oldest = slot->newer;
    slot->newer = slot->older = NULL;
}

static void push_newest(hq_texts *t, hq_text_slot *slot) {
    slot->older = t->newest;
    slot->newer = NULL;
    if (t->newest)
        t->newest->newer = slot;
    t->newest = slot;
    if (!t->oldest)
        t->oldest = slot;
}

static void drop_slot(hq_texts *t, hq_text_slot *slot) {
    hq_text_slot **at = &t->buckets[slot->hash & t->bucket_mask];
    while (*at != slot)
        at = &(*at)->next;
    *at = slot->next;
    unlink_slot(t, slot);
    sqlite3_finalize(slot->prepared.stmt);
    t->count--;
    t->bytes -= slot->size;
    free(slot->utf8);
    free(slot);
}

void hq_texts_close(hq_texts *t) {
    while (t->oldest)
        drop_slot(t, t->oldest);
    sqlite3_finalize(t->loose.prepared.stmt);
    t->loose.prepared.stmt = NULL;
    free(t->buckets);
    t->buckets = NULL;
}

static hq_text_slot *find(hq_texts *t, const char *utf8, uint32_t size, uint64_t hash) {
    for (hq_text_slot *slot = t->buckets[hash & t->bucket_mask]; slot; slot = slot->next)
        if (slot->hash == hash && slot->size == size && memcmp(slot->utf8, utf8, size) == 0)
            return slot;
    return NULL;
}

/* ------------------------------------------------------------------ preparing */

/* Whether a foreign key of this schema may be deferred. */
static int may_defer(hq_apply *w) {
    static const char QUERY[] = "SELECT 1 FROM sqlite_schema WHERE instr(lower(sql), 'deferr') LIMIT 1";
    return hq_own_watch(w, &w->defers_watch, QUERY);
}

/* Whether the program, triggers included, may take back a violation of a deferred foreign key; also where it cannot be
   asked. */
static int may_repair(hq_apply *w, const hq_prepared *p) {
    char *sql = sqlite3_mprintf("EXPLAIN %s", sqlite3_sql(p->stmt));
    sqlite3_stmt *explain = NULL;
    int rc, found = 0;
    if (!sql)
        return 1;
    w->guard_api->own_writes(w->guard, 1);
    rc = sqlite3_prepare_v2(w->db, sql, -1, &explain, NULL);
    while (rc == SQLITE_OK && !found && sqlite3_step(explain) == SQLITE_ROW) {
        const char *opcode = (const char *)sqlite3_column_text(explain, 1);
        found = !opcode || (strcmp(opcode, "FkCounter") == 0 && sqlite3_column_int(explain, 2) != 0 &&
                            sqlite3_column_int(explain, 3) < 0);
    }
    if (sqlite3_finalize(explain) != SQLITE_OK || rc != SQLITE_OK)
        found = 1;
    w->guard_api->own_writes(w->guard, 0);
    sqlite3_free(sql);
    return found;
}

static void learn(hq_apply *w, hq_prepared *p) {
    p->seen = w->guard_api->seen(w->guard);
    p->parameters = sqlite3_bind_parameter_count(p->stmt);
    p->columns = sqlite3_column_count(p->stmt);
    p->readonly = sqlite3_stmt_readonly(p->stmt);
    p->mentions_rowid = sqlite3_strlike("%last\\_insert\\_rowid%", sqlite3_sql(p->stmt), '\\') == 0;
    p->repairs = !p->readonly && may_defer(w) && may_repair(w, p);
    p->numbered = 0;
    for (int i = 1; i <= p->parameters; i++) {
        const char *name = sqlite3_bind_parameter_name(p->stmt, i);
        if (name && name[0] == '$' && name[1] >= '1' && name[1] <= '9' && name[1 + strspn(name + 1, "0123456789")] == 0)
            p->numbered = 1;
    }
}

/* Prepares the first statement of the 0-terminated text. OK with stmt NULL: nothing but blanks and comments. */
hq_outcome hq_prepare(hq_apply *w, const char *utf8, uint32_t size, unsigned flags, hq_prepared *out, const char **tail) {
    memset(out, 0, sizeof *out);
    if (size >= INT32_MAX - 1) {
        hq_error_set(w, HQ_CLASS_USAGE, SQLITE_TOOBIG, "the text of a statement is too long");
        return HQ_FAILED;
    }
    /* The 0 counts: SQLite copies the text unless it ends in one. */
    int rc = w->guard_api->prepare(w->guard, utf8, (int)size + 1, flags, &out->stmt, tail);
    if (w->guard_api->seen(w->guard) & HQ_SEEN_REMEMBERS) /* whether it can be run or not */
        w->ends_run = w->touched_virtual = 1;
    if (rc == SQLITE_OK) {
        if (out->stmt)
            learn(w, out);
        return HQ_OK;
    }
    const char *reason = w->guard_api->refusal(w->guard);
    if ((rc & 0xff) == SQLITE_AUTH && reason) {
        hq_error_set(w, w->guard_api->refusal_class(w->guard), rc, "%s", reason);
        return HQ_FAILED;
    }
    return hq_sqlite_error(w);
}

/* Whether anything but blanks, comments and `;` stands in [tail, end): then the caller gave several statements. */
static hq_outcome only_one(hq_apply *w, const char *tail, const char *end) {
    hq_prepared rest;
    while (tail < end && (*tail == ';' || *tail == ' ' || (*tail >= '\t' && *tail <= '\r')))
        tail++;
    if (tail >= end)
        return HQ_OK;
    hq_outcome outcome = hq_prepare(w, tail, (uint32_t)(end - tail), 0, &rest, &tail);
    if (outcome == HQ_STOP)
        return outcome;
    if (outcome == HQ_OK && !rest.stmt)
        return tail >= end ? HQ_OK : only_one(w, tail, end);
    sqlite3_finalize(rest.stmt);
    hq_error_set(w, HQ_CLASS_USAGE, 0, "one statement is expected here; batch() takes several");
    return HQ_FAILED;
}

static hq_outcome prepare_single(hq_apply *w, const char *utf8, uint32_t size, unsigned flags, hq_prepared *out) {
    const char *tail = NULL, *end = utf8 + size;
    hq_outcome outcome = hq_prepare(w, utf8, size, flags, out, &tail);
    if (outcome != HQ_OK)
        return outcome;
    if (!out->stmt) {
        hq_error_set(w, HQ_CLASS_USAGE, 0, "the statement is empty");
        return HQ_FAILED;
    }
    outcome = only_one(w, tail, end);
    if (outcome != HQ_OK) {
        sqlite3_finalize(out->stmt);
        out->stmt = NULL;
    }
    return outcome;
}

/* ------------------------------------------------------------------ keeping */

static hq_outcome keep(hq_apply *w, const char *utf8, uint32_t size, uint64_t hash, const hq_prepared *p,
                       hq_prepared **prepared) {
    hq_texts *t = &w->texts;
    hq_text_slot *slot = calloc(1, sizeof *slot);
    if (slot)
        slot->utf8 = malloc(size ? size : 1);
    if (!slot || !slot->utf8) {
        free(slot);
        sqlite3_finalize(p->stmt);
        return hq_stop(w, SQLITE_NOMEM, "no memory for a prepared statement");
    }
    memcpy(slot->utf8, utf8, size);
    slot->size = size;
    slot->hash = hash;
    slot->epoch = t->epoch;
    slot->prepared = *p;
    while (t->oldest && (t->count >= t->count_max || t->bytes + size > KEPT_BYTES_MAX))
        drop_slot(t, t->oldest);
    slot->next = t->buckets[hash & t->bucket_mask];
    t->buckets[hash & t->bucket_mask] = slot;
    push_newest(t, slot);
    t->count++;
    t->bytes += size;
    *prepared = &slot->prepared;
    return HQ_OK;
}

/* The statement of a text that must hold exactly one. It stays valid until the next call. */
hq_outcome hq_text_get(hq_apply *w, const char *utf8, uint32_t size, hq_prepared **prepared) {
    hq_texts *t = &w->texts;
    hq_text_slot *slot = t->newest;
    hq_prepared made;
    if (slot && slot->size == size && slot->epoch == t->epoch && memcmp(slot->utf8, utf8, size) == 0) {
        *prepared = &slot->prepared;
        return HQ_OK;
    }
    if (size > KEPT_TEXT_MAX) {
        sqlite3_finalize(t->loose.prepared.stmt);
        t->loose.prepared.stmt = NULL;
        *prepared = &t->loose.prepared;
        return prepare_single(w, utf8, size, 0, &t->loose.prepared);
    }
    uint64_t hash = hash_text(utf8, size);
    slot = find(t, utf8, size, hash);
    if (slot && slot->epoch == t->epoch) {
        unlink_slot(t, slot);
        push_newest(t, slot);
        *prepared = &slot->prepared;
        return HQ_OK;
    }
    if (slot)
        drop_slot(t, slot);
    hq_outcome outcome = prepare_single(w, utf8, size, SQLITE_PREPARE_PERSISTENT, &made);
    return outcome == HQ_OK ? keep(w, utf8, size, hash, &made, prepared) : outcome;
}

/* Whether a text is known under this schema and was quick of late. */
int hq_text_is_cheap(hq_apply *w, const char *utf8, uint32_t size) {
    hq_texts *t = &w->texts;
    hq_text_slot *slot = t->newest;
    if (size > KEPT_TEXT_MAX)
        return 0;
    if (!slot || slot->size != size || memcmp(slot->utf8, utf8, size) != 0)
        slot = find(t, utf8, size, hash_text(utf8, size));
    return slot && slot->epoch == t->epoch && slot->prepared.known && !slot->prepared.slow;
}

/* What was learnt under the schema before counts no longer. */
void hq_schema_changed(hq_apply *w) {
    w->texts.epoch++;
    w->rowid_watch = w->defers_watch = -1;
    w->guard_api->schema_changed(w->guard);
}
