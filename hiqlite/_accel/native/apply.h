/* apply.h: a worker that applies committed entries to a SQLite connection, one transaction per run of entries.

   The work is cut by noun: answer (bytes given back), text (prepared statements), bind (parameters), statement (one
   statement), cheap (what it cost), command (execute, execute_many, txn), script (batch, migration), entry (one slot),
   run (one transaction), own (our own statements), trial (writes that are tried and undone), session, kept, request and
   journal (what was answered before: apply_session.h), queue (thread and hand-over). Must not know Python, peers, terms beyond storing them, or files other than through SQLite.

   Invariants: a run's entries and its bookkeeping row are one transaction; what an entry gives depends on the entries
   before it alone, never on where runs are cut; an environmental error never becomes an answer: the run is rolled back
   and the worker stops until it is told to resume. */
#ifndef HQ_APPLY_H
#define HQ_APPLY_H

#include <pthread.h>
#include <stdint.h>
#include <stddef.h>
#include "sqlite3ext.h"
#ifndef HQ_APPLY_API
SQLITE_EXTENSION_INIT3
#endif
#include "command.h"
#include "guard.h"
#include "record.h"

enum {
    HQ_ANSWER_VERSION = 1,
    HQ_ANSWER_HEADER = 8,
    HQ_RESULT_HEADER = 24,
    HQ_ANSWER_BYTES_MAX = 64 << 20, /* of one entry; a constant, because it decides about results */
    HQ_MESSAGE_MAX = 1024,
    HQ_RUN_ENTRIES_MAX = 4096,
    HQ_RUN_BYTES_MAX = 1 << 20,          /* of records */
    HQ_RUN_ANSWER_BYTES_MAX = 4 << 20,
    HQ_RUN_NS_MAX = 20 * 1000 * 1000,    /* a run ends after the entry that passed it */
    HQ_SLOW_NS = 8 * 1000 * 1000,        /* more than one tick of the coarse clock */
    HQ_SLOW_TEXTS_MAX = 8,               /* named per run */
    HQ_RUNS_KEPT = 256,                  /* rows of the newest runs that are kept, about */
    HQ_JOURNAL_BYTES_MAX = 16 << 20,     /* in them, about */
    HQ_CHECKPOINT_PAGES = 2000,
    HQ_CHECKPOINT_REST = 256,            /* so few the apply thread moves itself, and SQLite's log starts anew */
    HQ_CHECKPOINT_OVERDUE = 8000,        /* from here on, runs stop at the synced index so that a checkpoint gets in */
    HQ_HASH_EVERY = 1024,                /* the running hash is remembered at multiples of this index ... */
    HQ_HASH_KEPT = 64,                   /* ... this many of them */
    HQ_ANSWER_REPEATED = 1,              /* flag of an answer: it was given before, by the entry named behind it */
};

enum hq_result_kind { HQ_RESULT_DONE = 0, HQ_RESULT_ERROR = 1, HQ_RESULT_ROWS = 2 };
enum hq_status { HQ_STATUS_DONE = 0, HQ_STATUS_FAILED = 1, HQ_STATUS_PARTIAL = 2 };

/* What became of a statement or an entry. Everything but OK and STOP has filled in worker->error. */
typedef enum hq_outcome {
    HQ_OK = 0,
    HQ_FAILED,  /* failed, undid itself */
    HQ_PARTIAL, /* failed, rows that were written before stay (OR FAIL, RAISE(FAIL)) */
    HQ_UNDO,    /* must count as failed, but its effects stand in the transaction */
    HQ_ENDED,   /* failed and took the whole transaction with it (OR ROLLBACK, RAISE(ROLLBACK), FULL) */
    HQ_REPLAY,  /* recorded as failed; roll the run back and apply it again */
    HQ_STOP,    /* environmental: worker->failure says why */
} hq_outcome;

typedef struct hq_buffer {
    uint8_t *data;
    size_t size, capacity;
} hq_buffer;

#include "apply_session.h"

/* A failure as it goes into an answer. */
typedef struct hq_error {
    uint16_t class_;    /* HQ_CLASS_* */
    int32_t code;       /* extended SQLite code, 0 where SQLite has no part in it */
    uint32_t statement; /* from 0 within the entry */
    uint32_t size;
    char message[HQ_MESSAGE_MAX];
} hq_error;

/* Why the worker stopped; code 0: it did not. */
typedef struct hq_failure {
    int code;
    uint64_t index; /* of the entry, 0 when none is to blame */
    char message[HQ_MESSAGE_MAX];
} hq_failure;

/* A prepared statement and what was learnt of it; counts for one schema. */
typedef struct hq_prepared {
    sqlite3_stmt *stmt;
    uint32_t seen;       /* HQ_SEEN_* */
    int parameters;
    int columns;
    int readonly;
    int mentions_rowid;  /* the text says last_insert_rowid */
    int repairs;         /* it may take back violations of deferred foreign keys */
    int known, slow;     /* has run; how many more quick runs until it counts as quick again (apply_cheap.c) */
    int numbered;        /* has parameters $1, $2 ...: a sequence is bound by their numbers */
} hq_prepared;

typedef struct hq_text_slot {
    hq_prepared prepared;
    char *utf8;
    uint32_t size;
    uint64_t hash, epoch;
    struct hq_text_slot *next;         /* same bucket */
    struct hq_text_slot *newer, *older;
} hq_text_slot;

/* Prepared statements by text: bounded in number and bytes, the least recently used goes first. */
typedef struct hq_texts {
    hq_text_slot **buckets;
    uint32_t bucket_mask, count, count_max;
    size_t bytes;
    hq_text_slot *newest, *oldest;
    hq_text_slot loose; /* the last one that was too long to keep */
    uint64_t epoch;     /* of the schema; older slots prepare anew */
} hq_texts;

enum hq_own_statement {
    HQ_OWN_BEGIN,
    HQ_OWN_COMMIT,
    HQ_OWN_ROLLBACK,
    HQ_OWN_SAVEPOINT,
    HQ_OWN_RELEASE,
    HQ_OWN_UNDO,
    HQ_OWN_RESET_CHANGES,
    HQ_OWN_RUN,
    HQ_OWN_TRIM,
    HQ_OWN_FORGET_JOURNAL,
    HQ_OWN_MIGRATION_STATE,
    HQ_OWN_MIGRATION_INSERT,
    HQ_OWN_SESSION_PUT,
    HQ_OWN_SESSION_DROP,
    HQ_OWN_REQUEST_GET,
    HQ_OWN_REQUEST_PUT,
    HQ_OWN_REQUEST_TRIM,
    HQ_OWN_COUNT,
};

/* An entry or a statement of a batch that is known to fail: the replay gives this error instead of running it. */
typedef struct hq_recorded {
    uint32_t ordinal;   /* of the entry in its run */
    uint32_t statement; /* HQ_WHOLE: the entry */
    uint32_t size;
    uint16_t class_;
    int32_t code;
    uint32_t error_statement;
    size_t text_end;    /* of a batch's statement: where the next one begins in the text */
    char *message;
} hq_recorded;

#define HQ_WHOLE UINT32_MAX

typedef struct hq_run_entry {
    const uint8_t *record;
    int want_answer;
} hq_run_entry;

/* A finished run. answers[offsets[i], offsets[i + 1]) belongs to entry first + i; empty when it was not wanted. */
typedef struct hq_run_result {
    struct hq_run_result *next;
    uint64_t first, last, last_term;
    uint8_t *answers;
    size_t *offsets;
    int changed_schema;
    uint32_t slow_count;
    char *slow_texts[HQ_SLOW_TEXTS_MAX]; /* 0-terminated; of statements that took HQ_SLOW_NS and more */
} hq_run_result;

typedef struct hq_apply {
    sqlite3 *db;
    const hq_guard_api *guard_api;
    void *guard;
    hq_texts texts;
    sqlite3_stmt *own[HQ_OWN_COUNT];

    /* where the database stands, committed */
    uint64_t applied_index, applied_term, equality_hash;
    int64_t group_time_ns; /* the newest one of an applied entry */
    uint64_t session_count;
    uint64_t durable_index; /* everything up to it is on the disk, whatever becomes of SQLite's log */
    uint64_t hash_index[HQ_HASH_KEPT], hash_value[HQ_HASH_KEPT];
    int64_t page_bytes;
    uint64_t wal_pages, checkpoint_seen_pages; /* in SQLite's log: now, and up to where the last checkpoint came */
    uint32_t runs_since_trim;
    size_t journal_since_trim; /* bytes */

    hq_sessions sessions;

    int schema_fresh;  /* it was read anew, and no statement of an entry has used it since */
    int wants_fresh;   /* the next run reads it anew before it begins */

    /* the run being applied */
    hq_buffer answers;
    hq_recorded *recorded;
    uint32_t recorded_count, recorded_capacity;
    uint64_t hash;     /* running, uncommitted */
    int foreign_keys_off;
    int full_seen;     /* a statement was told FULL; the replay finds out whether the disk had a part in it ... */
    int spill_off;     /* ... because in it nothing is written before COMMIT */
    int ends_run;      /* the entry that changed the schema or a virtual table is the last of its run */
    int changed_schema;
    int touched_virtual; /* a virtual table may be connected, and remember what is not in the database */
    int starts_clean;  /* changes() is 0 */
    uint32_t slow_count;
    char *slow_texts[HQ_SLOW_TEXTS_MAX];

    /* the entry being applied */
    uint32_t ordinal;
    uint64_t index;
    int64_t wall_ns;
    size_t entry_at;   /* where its answer begins */
    uint32_t result_count;
    int began_fresh;   /* nothing that SQLite remembers of the schema comes from before it: it may change the schema */
    int in_savepoint;
    int partial_stays; /* the savepoint is around a single statement: OR FAIL keeps its rows */
    size_t *results;   /* where each statement's result begins, for references; relative to entry_at */
    size_t results_capacity;
    hq_text *text_table;
    size_t text_table_capacity;

    int trying;          /* it is a trial: runs whatever was answered before, keeps nothing */
    hq_session *claimed; /* the session that keeps its answer */
    int claimed_request; /* whether its request id does */

    /* the last statement */
    int64_t rows_affected, rowid;
    uint64_t row_count;
    int rowid_watch;   /* -1 not known in this schema, 0 nothing reads last_insert_rowid(), 1 something may */
    int defers_watch;  /* the same: whether a foreign key may be deferred */
    hq_error error;

    hq_failure failure;
    int mark_fd;       /* of the checkpoint mark; -1: this database has none */
    const char *log_name; /* of SQLite's log, where there is a mark */
    int log_is_new;    /* nothing was committed to it in this life */
    pthread_mutex_t mark_lock; /* of what stands in the mark */
    uint64_t run_count, entry_count, replay_count, checkpoint_count;
} hq_apply;

/* ---- answer */
int hq_buffer_reserve(hq_buffer *buffer, size_t more); /* 0, or -1 without memory */
void hq_answer_begin(hq_apply *w);
hq_outcome hq_answer_end(hq_apply *w, enum hq_status status, uint64_t index);
hq_outcome hq_answer_done(hq_apply *w, int64_t rows_affected, int64_t rowid);
hq_outcome hq_answer_error(hq_apply *w, const hq_error *error, int part_remains);
hq_outcome hq_answer_not_kept(hq_apply *w);
hq_outcome hq_answer_of(hq_apply *w, uint64_t index);
hq_outcome hq_answer_again(hq_apply *w, const uint8_t *answer, size_t size, uint64_t index);
hq_outcome hq_rows_begin(hq_apply *w, sqlite3_stmt *stmt, size_t *at);
hq_outcome hq_rows_add(hq_apply *w, sqlite3_stmt *stmt);
void hq_rows_end(hq_apply *w, size_t at, uint32_t row_count, int64_t rows_affected, int64_t rowid);

/* ---- errors */
void hq_error_set(hq_apply *w, int class_, int code, const char *format, ...) __attribute__((format(printf, 4, 5)));
hq_outcome hq_sqlite_error(hq_apply *w);          /* from the connection's last error: FAILED, or STOP */
hq_outcome hq_stop(hq_apply *w, int code, const char *what);
hq_outcome hq_stop_sqlite(hq_apply *w, const char *what);
int hq_is_environmental(int extended_code);

/* ---- text */
int hq_texts_open(hq_texts *texts, uint32_t count_max);
void hq_texts_close(hq_texts *texts);
hq_outcome hq_text_get(hq_apply *w, const char *utf8, uint32_t size, hq_prepared **prepared);
hq_outcome hq_prepare(hq_apply *w, const char *utf8, uint32_t size, unsigned flags, hq_prepared *out, const char **tail);
void hq_schema_changed(hq_apply *w);
int hq_text_is_cheap(hq_apply *w, const char *utf8, uint32_t size);

/* ---- cost (apply_cheap.c) */
void hq_note_cost(hq_apply *w, hq_prepared *p, int64_t spent_ns);
void hq_slow_move(hq_apply *w, hq_run_result *result);
void hq_slow_clear(hq_apply *w);

/* ---- bind */
hq_outcome hq_bind(hq_apply *w, const hq_command *c, const hq_statement *s, const hq_prepared *p);

/* ---- statement */
hq_outcome hq_statement_run(hq_apply *w, hq_prepared *p, int keep_rows);
int hq_failed_partly(hq_apply *w, const hq_prepared *p, const hq_error *error, int wrote);

/* ---- command, script, entry */
hq_outcome hq_execute(hq_apply *w, const hq_command *c);
hq_outcome hq_several(hq_apply *w, const hq_command *c);
hq_outcome hq_batch(hq_apply *w, const hq_command *c);
hq_outcome hq_migration(hq_apply *w, const hq_command *c);
hq_outcome hq_entry_check(hq_apply *w);           /* deferred foreign keys */
hq_outcome hq_alone_check(hq_apply *w, hq_outcome outcome);
hq_outcome hq_entry_apply(hq_apply *w, const uint8_t *record, uint32_t ordinal);
const hq_recorded *hq_recorded_find(const hq_apply *w, uint32_t ordinal, uint32_t statement);
int hq_recorded_any(const hq_apply *w, uint32_t ordinal);
hq_outcome hq_record_failure(hq_apply *w, uint32_t statement, size_t text_end);
int hq_full_is_proven(hq_apply *w); /* 0: the run has to be applied again, with spilling off */
hq_outcome hq_flush_failed(hq_apply *w); /* a savepoint could not be begun */
void hq_name_migration(hq_apply *w, const uint8_t *record);
void hq_recorded_clear(hq_apply *w);
int hq_entry_wants_foreign_keys_off(const uint8_t *record);
const char *hq_script_end(const char *sql, const char *end); /* behind the `;` that ends the first statement */

/* ---- kept, session, request, journal */
const hq_kept *hq_kept_find(const hq_session *s, uint64_t sequence);
int hq_kept_add(hq_session *s, const hq_kept *kept);
void hq_kept_pass(hq_session *s, uint64_t low);
void hq_kept_undo(hq_session *s);
void hq_kept_settle(hq_session *s);
void hq_kept_clear(hq_session *s);
hq_session *hq_session_find(hq_sessions *all, uint64_t id);
hq_session *hq_session_add(hq_sessions *all, uint64_t id);
hq_outcome hq_session_open(hq_apply *w, const uint8_t *record);
enum hq_claim hq_session_claim(hq_apply *w, const hq_command *c, int64_t group_ns);
hq_outcome hq_session_keep(hq_apply *w, const hq_command *c, int64_t group_ns);
void hq_sessions_begin(hq_apply *w);
void hq_sessions_undo(hq_apply *w);
void hq_sessions_commit(hq_apply *w);
void hq_sessions_close(hq_apply *w);
enum hq_claim hq_request_claim(hq_apply *w, const hq_command *c, int64_t group_ns);
hq_outcome hq_request_keep(hq_apply *w, const hq_command *c, int64_t group_ns, int64_t ttl_ns);
int hq_journal_opened(hq_apply *w, const hq_session *s);      /* these three: 0, or -1 without memory */
int hq_journal_used(hq_apply *w, const hq_session *s);
int hq_journal_kept(hq_apply *w, const hq_session *s, const hq_kept *kept);
hq_outcome hq_journal_compact(hq_apply *w, int64_t group_ns);
int hq_journal_load(hq_apply *w);

/* ---- own */
int hq_own_open(hq_apply *w);                     /* bootstrap; SQLITE_OK or a code with worker->failure set */
void hq_own_close(hq_apply *w);
int hq_own_step(hq_apply *w, enum hq_own_statement which);   /* SQLITE_DONE, or an extended code */
int hq_own_exec(hq_apply *w, const char *sql);    /* SQLITE_OK, or an extended code */
int hq_own_row_exists(hq_apply *w, const char *sql);          /* 1, 0, or -1 on an error */
int hq_own_watch(hq_apply *w, int *watch, const char *sql);
int hq_savepoint_open(hq_apply *w);
int hq_savepoint_close(hq_apply *w);
int hq_savepoint_undo(hq_apply *w);               /* and close */
void hq_durable_up_to(hq_apply *w, uint64_t index);
int hq_checkpoint(hq_apply *w, int mode);         /* SQLITE_OK, SQLITE_BUSY, or a code with worker->failure set */
uint64_t hq_checkpoint_due_pages(hq_apply *w);    /* pages written since then */

/* ---- checkpoint mark (apply_mark.c); each gives SQLITE_OK or a code */
void hq_mark_open(hq_apply *w);
void hq_mark_close(hq_apply *w);
void hq_mark_committed(hq_apply *w);
int hq_mark_begun(hq_apply *w, uint64_t index);
int hq_mark_ended(hq_apply *w, uint64_t index, int complete, sqlite3 *beside);

/* ---- run */
hq_outcome hq_run_open(hq_apply *w);                          /* BEGIN, and the settings that the run wants */
hq_outcome hq_run_undo(hq_apply *w, hq_outcome why);          /* `why`, or STOP: it could not be undone */
hq_outcome hq_run_apply(hq_apply *w, const hq_run_entry *entries, uint32_t count, hq_run_result **result);
void hq_run_result_free(hq_run_result *result);
hq_apply *hq_apply_open(sqlite3 *db, const hq_guard_api *guard_api, uint32_t texts_max, hq_failure *why);
void hq_apply_close(hq_apply *w);
int64_t hq_now_ns(void);
int64_t hq_coarse_ns(void);                       /* milliseconds' grain, for a few nanoseconds */

/* Numbers that one thread counts and others look at. */
static inline uint64_t hq_look(const uint64_t *number) { return __atomic_load_n(number, __ATOMIC_ACQUIRE); }
static inline void hq_count(uint64_t *number, uint64_t more) { __atomic_fetch_add(number, more, __ATOMIC_RELAXED); }

static inline uint64_t hq_hash_add(uint64_t hash, uint64_t x) { return hq_mix_seed(hash ^ x); }

#endif
