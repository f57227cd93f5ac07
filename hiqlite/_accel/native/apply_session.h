/* apply_session.h: what a session remembers, so that a write that is sent twice is applied once (semantics.md section 6).

   The work is cut by noun: kept (the answers of one session), session (who may write what, and what was answered before),
   request (writes with an id of their caller's), journal (all of it as bytes in the database). Every rule depends on the
   entries alone, never on where runs are cut. Part of apply.h. */
#ifndef HQ_APPLY_SESSION_H
#define HQ_APPLY_SESSION_H

#include <stddef.h>
#include <stdint.h>

enum {
    HQ_SESSION_PAYLOAD = 24,            /* of the entry that opens one */
    HQ_SESSION_OPEN = 1,
    HQ_SESSION_WINDOW_MAX = 1 << 16,
    HQ_KEPT_ANSWER_MAX = 64 << 10,      /* a larger answer is kept as "applied", without its rows */
    HQ_KEPT_BYTES_MAX = 8 << 20,        /* of the answers of one session; likewise */
};

#define HQ_SESSION_TTL_MAX_NS (1LL << 60)
#define HQ_REQUEST_TTL_NS (3600LL * 1000000000LL) /* of a request id outside of a session */

enum hq_kept_form { HQ_KEPT_BRIEF = 3, HQ_KEPT_WHOLE = 4, HQ_KEPT_APPLIED = 5 }; /* kinds of the journal, too */

/* The answer to one write. */
typedef struct hq_kept {
    uint64_t sequence, index;
    int64_t rows_affected, rowid; /* BRIEF: a single result without rows */
    uint8_t *answer;              /* WHOLE: as it was given */
    uint32_t size;
    uint8_t form;
    uint8_t pending;              /* of the run that is being applied */
} hq_kept;

/* What a run may change of a session, as it was before. */
typedef struct hq_session_state {
    uint64_t low;     /* answers to writes below are not asked for any more */
    int64_t seen_ns;  /* group time of the last write */
    uint32_t live;    /* the first kept answer that is not below `low` */
    uint64_t bytes;   /* of the live answers */
} hq_session_state;

typedef struct hq_session {
    uint64_t id;      /* index of the entry that opened it */
    uint32_t window;
    int64_t ttl_ns, request_ttl_ns;
    hq_session_state now, before; /* before: of meaning while touched */
    hq_kept *kept;    /* [first, end), ascending by sequence */
    uint32_t first, end, capacity, pending_count;
    int touched;      /* by the run that is being applied */
    int fresh;        /* opened by it */
    int dirty;        /* the database's row of it is behind the journal */
    int ended;        /* it leaves with the COMMIT */
} hq_session;

typedef struct hq_sessions {
    hq_session **table; /* ascending by id */
    uint32_t count, capacity;
    hq_session **touched;
    uint32_t touched_count, touched_capacity;
    hq_session *latest;  /* the one found last */
    hq_buffer journal;   /* of the run that is being applied */
    int compacts;        /* that run writes the rows of all that are dirty */
} hq_sessions;

enum hq_claim {
    HQ_CLAIM_NEW,      /* apply it, then keep its answer */
    HQ_CLAIM_REPEATED, /* its first answer stands in worker->answers */
    HQ_CLAIM_REFUSED,  /* worker->error says why */
    HQ_CLAIM_STOP,
};

#endif
