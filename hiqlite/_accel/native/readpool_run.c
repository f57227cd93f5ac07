/* One reader thread's work: a connection, its statements, and one job after the other stepped to its end.
 *
 * Runs without the GIL and touches no Python object. Invariant: a job leaves the connection as it found it:
 * statement reset, bindings cleared, autocommit on. */
#include <stdlib.h>
#include <string.h>

#include "readpool_inside.h"

enum { FIRST_CHUNK_BYTES = 4096, BUSY_TIMEOUT_MS = 2000, STEPS_BETWEEN_CHECKS = HQ_BUDGET_STEPS, KEPT_TEXT_BYTES_MAX = 64 << 10 };

typedef struct {
    sqlite3_stmt *statement;
    char *sql;
    int size;
    uint64_t used; /* tick of the last use: the lowest one goes first */
} kept_statement;

struct hq_worker {
    hq_pool *pool;
    sqlite3 *db;
    const hq_guard_api *guard; /* NULL: the connection has none */
    hq_job *job; /* what the progress handler watches */
    uint64_t tick;
    int statements, statements_max;
    kept_statement *kept;
};

hq_worker *hq_worker_new(hq_pool *pool, sqlite3 *db, const hq_guard_api *guard, int statements_max) {
    hq_worker *worker = calloc(1, sizeof *worker);
    kept_statement *kept = calloc((size_t)(statements_max > 0 ? statements_max : 1), sizeof *kept);
    if (worker == NULL || kept == NULL) {
        free(worker);
        free(kept);
        return NULL;
    }
    worker->pool = pool;
    worker->db = db;
    worker->guard = guard;
    worker->kept = kept;
    worker->statements_max = statements_max > 0 ? statements_max : 1;
    return worker;
}

sqlite3 *hq_worker_db(const hq_worker *worker) { return worker->db; }

void hq_worker_free(hq_worker *worker) {
    sqlite3_progress_handler(worker->db, 0, NULL, NULL);
    for (int i = 0; i < worker->statements; i++) {
        sqlite3_finalize(worker->kept[i].statement);
        free(worker->kept[i].sql);
    }
    free(worker->kept);
    free(worker);
}

static int on_progress(void *argument) {
    hq_worker *worker = argument;
    hq_job *job = worker->job;
    if (job == NULL)
        return 0;
    if (atomic_load_explicit(&job->stop, memory_order_acquire))
        return 1;
    if (job->deadline_ns && hq_reads_now_ns() > job->deadline_ns) {
        int none = HQ_STOP_NONE;
        atomic_compare_exchange_strong(&job->stop, &none, HQ_STOP_DEADLINE);
        return 1;
    }
    return 0;
}

static void forget(kept_statement *kept) {
    sqlite3_finalize(kept->statement);
    free(kept->sql);
    memset(kept, 0, sizeof *kept);
}

/* The prepared statement of the job's text, from those kept or new; NULL with the job's error set. */
static sqlite3_stmt *find_statement(hq_worker *worker, hq_job *job, hq_read_error *error) {
    kept_statement *oldest = worker->kept;
    for (int i = 0; i < worker->statements; i++) {
        kept_statement *kept = &worker->kept[i];
        if (kept->size == job->sql_size && memcmp(kept->sql, job->sql, (size_t)job->sql_size) == 0) {
            kept->used = ++worker->tick;
            return kept->statement;
        }
        if (kept->used < oldest->used)
            oldest = kept;
    }
    sqlite3_stmt *statement = NULL;
    if (hq_reads_prepare(worker->db, worker->guard, job->sql, job->sql_size, 1, &statement, error) != HQ_READ_OK)
        return NULL;
    char *sql = malloc((size_t)job->sql_size + 1);
    if (sql == NULL || (hq_reads_inspect(worker->db, job->sql, job->sql_size) & HQ_PROGRAM_TRANSACTION)) {
        hq_read_fail(error, sql == NULL ? HQ_READ_MEMORY : HQ_READ_TRANSACTION, 0, "%s", "");
        sqlite3_finalize(statement);
        free(sql);
        return NULL;
    }
    memcpy(sql, job->sql, (size_t)job->sql_size + 1);
    if (worker->statements < worker->statements_max)
        oldest = &worker->kept[worker->statements++];
    else
        forget(oldest);
    *oldest = (kept_statement){statement, sql, job->sql_size, ++worker->tick};
    return statement;
}

/* The current row into `*chunk`; full chunks are published. HQ_READ_OK or an error kind. */
static int take_row(hq_worker *worker, hq_job *job, sqlite3_stmt *statement, int columns, hq_chunk **chunk,
                    size_t *total, hq_read_error *error) {
    size_t need = 0;
    int added = hq_chunk_add_row(*chunk, statement, columns, &need);
    if (added == HQ_ROW_NO_ROOM && *total + need > job->result_bytes_max) {
        hq_read_fail(error, HQ_READ_TOO_BIG, 0, "%s", "");
        return error->kind;
    }
    if (added == HQ_ROW_NO_ROOM) {
        size_t capacity = *chunk == NULL ? FIRST_CHUNK_BYTES : job->chunk_bytes;
        if (*chunk != NULL) {
            int refused = hq_pool_publish(worker->pool, job, *chunk);
            *chunk = NULL;
            if (!refused && job->kind == HQ_JOB_ITERATE && hq_pool_await_demand(worker->pool, job))
                refused = HQ_READ_STOPPED;
            if (refused) {
                hq_read_fail(error, refused, atomic_load(&job->stop), "%s", "");
                return refused;
            }
        }
        *chunk = hq_chunk_new(need > capacity ? need : capacity);
        added = *chunk == NULL ? HQ_ROW_MEMORY : hq_chunk_add_row(*chunk, statement, columns, &need);
    }
    *total += need;
    if (added != HQ_ROW_ADDED)
        hq_read_fail(error, HQ_READ_MEMORY, 0, "%s", "");
    return error->kind;
}

/* Steps the bound statement to its end; rows go out in chunks. */
static void step_all(hq_worker *worker, hq_job *job, sqlite3_stmt *statement, hq_read_error *error) {
    hq_chunk *chunk = NULL;
    size_t total = 0, names_size = 0;
    int columns = -1, code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW || code == SQLITE_DONE) {
        if (columns < 0) { /* only now: the first step may have prepared it anew for a changed schema */
            uint8_t *names = hq_column_names(statement, &names_size);
            columns = sqlite3_column_count(statement);
            if (names == NULL) {
                hq_read_fail(error, HQ_READ_MEMORY, 0, "%s", "");
                break;
            }
            hq_pool_set_names(worker->pool, job, names, names_size);
        }
        if (code == SQLITE_DONE || take_row(worker, job, statement, columns, &chunk, &total, error) != HQ_READ_OK)
            break;
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        hq_read_fail_sqlite(error, worker->db, sqlite3_extended_errcode(worker->db));
    if (chunk != NULL && error->kind == HQ_READ_OK && chunk->rows > 0) {
        int refused = hq_pool_publish(worker->pool, job, chunk);
        if (refused)
            hq_read_fail(error, refused, 0, "%s", "");
    } else {
        free(chunk);
    }
}

/* Texts that are so long are seldom given twice, and would fill the memory of every thread. */
static void forget_long(hq_worker *worker, const hq_job *job, sqlite3_stmt *statement) {
    if (job->sql_size <= KEPT_TEXT_BYTES_MAX)
        return;
    for (int i = 0; i < worker->statements; i++)
        if (worker->kept[i].statement == statement) {
            forget(&worker->kept[i]);
            worker->kept[i] = worker->kept[--worker->statements];
            memset(&worker->kept[worker->statements], 0, sizeof *worker->kept);
            return;
        }
}

void hq_worker_run(hq_worker *worker, hq_job *job) {
    hq_read_error *error = &job->error;
    error->kind = HQ_READ_OK;
    worker->job = job;
    sqlite3_progress_handler(worker->db, STEPS_BETWEEN_CHECKS, on_progress, worker);
    sqlite3_busy_timeout(worker->db, BUSY_TIMEOUT_MS);
    /* A job whose time passed in the queue does not begin. */
    sqlite3_stmt *statement = NULL;
    if (job->deadline_ns && hq_reads_now_ns() > job->deadline_ns)
        hq_read_fail(error, HQ_READ_STOPPED, HQ_STOP_DEADLINE, "%s", "");
    else
        statement = find_statement(worker, job, error);
    if (statement != NULL) {
        if (hq_reads_bind(worker->db, statement, job->parameters, job->parameters_size, job->parameter_count,
                          job->named, error) == HQ_READ_OK) {
            /* An interrupt before the first step is forgotten by SQLite. */
            if (atomic_load(&job->stop))
                hq_read_fail(error, HQ_READ_STOPPED, atomic_load(&job->stop), "%s", "");
            else
                step_all(worker, job, statement, error);
        }
        sqlite3_reset(statement);
        sqlite3_clear_bindings(statement);
        forget_long(worker, job, statement);
    }
    if (!sqlite3_get_autocommit(worker->db)) {
        sqlite3_exec(worker->db, "ROLLBACK", NULL, NULL, NULL);
        if (error->kind == HQ_READ_OK)
            hq_read_fail(error, HQ_READ_TRANSACTION, 0, "%s", "");
    }
    int stop = atomic_load(&job->stop);
    if (stop != HQ_STOP_NONE && error->kind != HQ_READ_OK)
        hq_read_fail(error, HQ_READ_STOPPED, stop, "%s", "");
    worker->job = NULL;
}
