/* Local reads: what the connection of the calling thread (reads.pyx) and the reader threads (readpool.h) share.
 *
 * Knows SQLite's C API (that of the library inside apsw, handed in by sqlite3_reads_init) and bytes; knows no
 * Python object, no event loop and no Raft. Invariant: after each read, however it ended, the statement is
 * reset and its bindings are cleared, so no connection keeps a snapshot that a later read would be served from
 * (an iteration, which holds one on purpose, gives it up at its limits). */
#ifndef HQ_READS_H
#define HQ_READS_H

#include <stddef.h>
#include <stdint.h>

#include "guard.h"
#include "sqlite3ext.h"
#ifndef HQ_READS_API_HERE
SQLITE_EXTENSION_INIT3
#endif

/* ---------------------------------------------------------------- errors: kind and one sentence for people */

enum {
    HQ_READ_OK = 0,
    HQ_READ_SQLITE = 1,      /* SQLite said no: code and text are SQLite's */
    HQ_READ_WRITES = 2,      /* the statement changes something */
    HQ_READ_WRITES_ROWS = 3, /* ... and returns rows */
    HQ_READ_EMPTY = 4,       /* no statement in the text */
    HQ_READ_SEVERAL = 5,     /* more than one statement */
    HQ_READ_TRANSACTION = 6, /* BEGIN, COMMIT, SAVEPOINT ...: read-only for SQLite, and would pin a snapshot */
    HQ_READ_PARAMETER = 7,   /* count or names of the parameters do not fit the statement */
    HQ_READ_TOO_BIG = 8,     /* the result passes the limit in bytes */
    HQ_READ_CROWDED = 9,     /* results that wait to be fetched pass the pool's limit in bytes */
    HQ_READ_STOPPED = 10,    /* see hq_stop */
    HQ_READ_MEMORY = 11,
};

/* Why a running read was stopped; the first reason counts. */
enum {
    HQ_STOP_NONE = 0,
    HQ_STOP_CANCELLED = 1,
    HQ_STOP_DEADLINE = 2, /* of the call; for an iteration its total limit */
    HQ_STOP_IDLE = 3,     /* nobody fetched from the iteration for too long */
    HQ_STOP_CLOSING = 4,
};

typedef struct hq_read_error {
    int kind;
    int code; /* extended SQLite code when kind is HQ_READ_SQLITE; reason when HQ_READ_STOPPED */
    char text[480];
} hq_read_error;

void hq_read_fail(hq_read_error *error, int kind, int code, const char *format, ...);
void hq_read_fail_sqlite(hq_read_error *error, sqlite3 *db, int code);
int hq_read_environmental(int code); /* the machine's fault, not the statement's */

/* ---------------------------------------------------------------- prepare and inspect */

int hq_reads_have_api(void);
int64_t hq_reads_now_ns(void); /* CLOCK_MONOTONIC */

/* One statement out of `sql` (`size` bytes, 0-terminated). `renew`: let SQLite prepare it again by itself when
 * the schema changed; without it a changed schema ends the first step with SQLITE_SCHEMA at reset, so that the
 * new program can be inspected before it runs. `guard` (may be NULL) says why its authorizer refused something.
 * Gives HQ_READ_OK or fills `error`. */
int hq_reads_prepare(sqlite3 *db, const hq_guard_api *guard, const char *sql, int size, int renew,
                     sqlite3_stmt **statement, hq_read_error *error);

enum { HQ_PROGRAM_SHORT = 1, HQ_PROGRAM_TRANSACTION = 2, HQ_PROGRAM_CALLS = 4 };
/* Flags of the program that SQLite makes of `sql` (see reads_inspect.c for the rules), or 0 when it cannot be told. */
int hq_reads_inspect(sqlite3 *db, const char *sql, int size);

/* ---------------------------------------------------------------- budget of the inline connection */

enum {
    HQ_BUDGET_STEPS = 1000,    /* VM steps between two looks at the clock: 20 to 50 us */
    HQ_BUDGET_STEPS_CALLS = 20 /* ... of a program that calls functions, each of which may take as long */
};

typedef struct hq_budget {
    int steps;           /* between callbacks; 0: not attached */
    int64_t limit_ns;    /* time after the first callback */
    int64_t deadline_ns; /* 0: not started, the clock is not read before the first callback */
} hq_budget;

void hq_budget_start(sqlite3 *db, hq_budget *budget, int64_t limit_ns, int steps);
void hq_budget_end(sqlite3 *db, hq_budget *budget);

#endif
