/* From text to one checked statement; errors as kind and sentence; the inline connection's budget. */
#define HQ_READS_API_HERE
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1
#include "reads.h"

#ifdef _WIN32
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
int sqlite3_reads_init(sqlite3 *db, char **message, const sqlite3_api_routines *api) {
    SQLITE_EXTENSION_INIT2(api);
    (void)db;
    (void)message;
    return SQLITE_OK_LOAD_PERMANENTLY;
}

int hq_reads_have_api(void) { return sqlite3_api != 0; }

int64_t hq_reads_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void hq_read_fail(hq_read_error *error, int kind, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    error->kind = kind;
    error->code = code;
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
}

void hq_read_fail_sqlite(hq_read_error *error, sqlite3 *db, int code) {
    /* The connection's text belongs to its last error; when that is another one, the code's own text is right. */
    const char *text = (sqlite3_errcode(db) & 0xff) == (code & 0xff) ? sqlite3_errmsg(db) : sqlite3_errstr(code);
    hq_read_fail(error, (code & 0xff) == SQLITE_NOMEM ? HQ_READ_MEMORY : HQ_READ_SQLITE, code, "%s", text);
}

int hq_read_environmental(int code) {
    switch (code & 0xff) {
    case SQLITE_IOERR:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_CANTOPEN:
    case SQLITE_FULL:
    case SQLITE_READONLY:
    case SQLITE_PROTOCOL:
        return 1;
    default:
        return 0;
    }
}

/* Whether nothing but blanks, comments and semicolons is left. An open comment runs to the end, as in SQLite. */
static int only_blanks(const char *at, const char *end) {
    while (at < end) {
        char c = *at;
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == ';') {
            at++;
        } else if (c == '-' && end - at >= 2 && at[1] == '-') {
            const char *line = memchr(at, '\n', (size_t)(end - at));
            at = line ? line + 1 : end;
        } else if (c == '/' && end - at >= 2 && at[1] == '*') {
            at += 2;
            while (end - at >= 2 && !(at[0] == '*' && at[1] == '/'))
                at++;
            at = end - at >= 2 ? at + 2 : end;
        } else {
            return 0;
        }
    }
    return 1;
}

int hq_reads_prepare(sqlite3 *db, const hq_guard_api *guard, const char *sql, int size, int renew,
                     sqlite3_stmt **statement, hq_read_error *error) {
    const char *rest = sql + size;
    void *own_guard = guard ? guard->of(db) : NULL;
    if (own_guard)
        guard->statement_begin(own_guard);
    *statement = NULL;
    error->kind = HQ_READ_OK;
    int code = renew ? sqlite3_prepare_v3(db, sql, size + 1, SQLITE_PREPARE_PERSISTENT, statement, &rest)
                     : sqlite3_prepare(db, sql, size + 1, statement, &rest);
    if (code != SQLITE_OK) {
        hq_read_fail_sqlite(error, db, sqlite3_extended_errcode(db));
        if (error->kind == HQ_READ_OK || (error->code & 0xff) == SQLITE_OK)
            hq_read_fail(error, HQ_READ_SQLITE, code, "%s", sqlite3_errstr(code));
        if (own_guard && (error->code & 0xff) == SQLITE_AUTH && guard->refusal(own_guard))
            hq_read_fail(error, HQ_READ_SQLITE, error->code, "%s", guard->refusal(own_guard));
        return error->kind;
    }
    if (*statement == NULL)
        hq_read_fail(error, only_blanks(sql, sql + size) ? HQ_READ_EMPTY : HQ_READ_SEVERAL, 0, "%s", "");
    else if (!only_blanks(rest, sql + size))
        hq_read_fail(error, HQ_READ_SEVERAL, 0, "%s", "");
    else if (!sqlite3_stmt_readonly(*statement))
        hq_read_fail(error, sqlite3_column_count(*statement) ? HQ_READ_WRITES_ROWS : HQ_READ_WRITES, 0, "%s", "");
    if (error->kind != HQ_READ_OK) {
        sqlite3_finalize(*statement);
        *statement = NULL;
    }
    return error->kind;
}

static int on_progress(void *argument) {
    hq_budget *budget = argument;
    int64_t now = hq_reads_now_ns();
    if (budget->deadline_ns == 0) {
        budget->deadline_ns = now + budget->limit_ns;
        return 0;
    }
    return now > budget->deadline_ns;
}

void hq_budget_start(sqlite3 *db, hq_budget *budget, int64_t limit_ns, int steps) {
    budget->limit_ns = limit_ns;
    budget->deadline_ns = 0;
    if (budget->steps != steps) {
        budget->steps = steps;
        sqlite3_progress_handler(db, steps, on_progress, budget);
    }
}

void hq_budget_end(sqlite3 *db, hq_budget *budget) {
    budget->steps = 0;
    sqlite3_progress_handler(db, 0, NULL, NULL);
}
