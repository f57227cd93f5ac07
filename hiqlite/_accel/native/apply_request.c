/* apply_request.c: writes that carry an id of their caller's, so that he may send them again, from wherever he is.

   They stand in a table of the database, because there may be many and they outlive every session. Invariant: an id names
   one write; until its time is over, the same write under it gets the first answer, and another one is refused. */
#include <string.h>

#include "apply.h"
#include "siphash.h"

enum { DIGEST = 16 };

/* Of all that the write says, save who sent it. Callers are not each other's adversaries: a fixed key will do. */
static void digest_of(const hq_command *c, uint8_t digest[DIGEST]) {
    uint8_t key[16] = {c->operation};
    hq_put_u16(key + 2, c->flags);
    hq_put_u32(key + 4, c->statement_count);
    hq_put_u16(key + 8, c->text_count);
    hq_siphash128(key, c->texts.p, (size_t)(c->statements.end - c->texts.p), digest);
}

/* What the table says of the id; NEW with worker->claimed_request set: nothing. */
static enum hq_claim judge(hq_apply *w, const hq_command *c, int64_t group_ns, sqlite3_stmt *stmt) {
    int rc = sqlite3_step(stmt);
    w->claimed_request = rc == SQLITE_DONE || (rc == SQLITE_ROW && sqlite3_column_int64(stmt, 1) < group_ns);
    if (w->claimed_request)
        return HQ_CLAIM_NEW;
    if (rc != SQLITE_ROW) {
        hq_stop_sqlite(w, "a request id could not be looked for");
        return HQ_CLAIM_STOP;
    }
    uint8_t digest[DIGEST];
    digest_of(c, digest);
    const void *known = sqlite3_column_blob(stmt, 0);
    if (sqlite3_column_bytes(stmt, 0) != DIGEST || memcmp(known, digest, DIGEST) != 0) {
        hq_error_set(w, HQ_CLASS_USAGE, 0, "request id '%.*s' was given to another write",
                     (int)(c->request_id_size < 100 ? c->request_id_size : 100), (const char *)c->request_id);
        return HQ_CLAIM_REFUSED;
    }
    int is_kept = sqlite3_column_type(stmt, 3) == SQLITE_BLOB;
    const uint8_t *answer = is_kept ? sqlite3_column_blob(stmt, 3) : NULL;
    size_t size = is_kept ? (size_t)sqlite3_column_bytes(stmt, 3) : 0;
    hq_outcome outcome;
    if (is_kept && (!answer || size < HQ_ANSWER_HEADER)) {
        outcome = hq_stop(w, answer ? SQLITE_CORRUPT : SQLITE_NOMEM, "the answer to a request id cannot be read");
    } else if (is_kept) {
        outcome = hq_answer_again(w, answer, size, (uint64_t)sqlite3_column_int64(stmt, 2));
    } else {
        outcome = hq_answer_not_kept(w);
    }
    return outcome == HQ_OK ? HQ_CLAIM_REPEATED : HQ_CLAIM_STOP;
}

enum hq_claim hq_request_claim(hq_apply *w, const hq_command *c, int64_t group_ns) {
    sqlite3_stmt *stmt = w->own[HQ_OWN_REQUEST_GET];
    w->guard_api->own_writes(w->guard, 1);
    int rc = sqlite3_bind_text(stmt, 1, (const char *)c->request_id, c->request_id_size, SQLITE_STATIC);
    enum hq_claim claim = HQ_CLAIM_STOP;
    if (rc == SQLITE_OK)
        claim = judge(w, c, group_ns, stmt);
    else
        hq_stop(w, rc, "a request id could not be looked for");
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    w->guard_api->own_writes(w->guard, 0);
    return claim;
}

/* Forgets a few of those whose time is over, more than come: so the table does not grow, and no run pays for many. */
static int trim(hq_apply *w, int64_t group_ns) {
    sqlite3_bind_int64(w->own[HQ_OWN_REQUEST_TRIM], 1, group_ns - HQ_REQUEST_TTL_NS);
    return hq_own_step(w, HQ_OWN_REQUEST_TRIM);
}

hq_outcome hq_request_keep(hq_apply *w, const hq_command *c, int64_t group_ns, int64_t ttl_ns) {
    sqlite3_stmt *stmt = w->own[HQ_OWN_REQUEST_PUT];
    const uint8_t *answer = w->answers.data + w->entry_at;
    size_t size = w->answers.size - w->entry_at;
    uint8_t digest[DIGEST];
    digest_of(c, digest);
    int rc = sqlite3_bind_text(stmt, 1, (const char *)c->request_id, c->request_id_size, SQLITE_STATIC);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_blob(stmt, 2, digest, DIGEST, SQLITE_STATIC);
    sqlite3_bind_int64(stmt, 3, group_ns + ttl_ns);
    sqlite3_bind_int64(stmt, 4, (int64_t)w->index);
    if (rc == SQLITE_OK && (size <= HQ_KEPT_ANSWER_MAX || answer[1] == HQ_STATUS_FAILED))
        rc = sqlite3_bind_blob64(stmt, 5, answer, size, SQLITE_STATIC);
    if (rc == SQLITE_OK)
        rc = hq_own_step(w, HQ_OWN_REQUEST_PUT);
    sqlite3_clear_bindings(stmt);
    if (rc == SQLITE_DONE)
        rc = trim(w, group_ns);
    return rc == SQLITE_DONE ? HQ_OK : hq_stop_sqlite(w, "a request id could not be noted");
}
