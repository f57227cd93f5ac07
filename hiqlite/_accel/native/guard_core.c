/* guard_core.c: a guard's life, prepare under all rules, and the table of functions.

   The guard hangs on its connection as client data, so it dies with it. Invariant: while a guard exists its
   authorizer is in force; prepare() leaves either a judged statement or none. Must not know entries, records, or
   Python. */
#define HQ_GUARD_CORE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guard_parts.h"

static const char CLIENT_DATA[] = "hiqlite-guard";

void hq_refuse(hq_guard *g, int error_class, const char *format, ...) {
    va_list arguments;
    g->seen |= HQ_SEEN_DENIED;
    if (g->refusal_class)
        return; /* the first reason is the cause */
    g->refusal_class = error_class;
    va_start(arguments, format);
    vsnprintf(g->reason, sizeof g->reason, format, arguments);
    va_end(arguments);
}

/* ------------------------------------------------------------------ life */

hq_guard *hq_guard_of(sqlite3 *db) { return sqlite3_api && db ? sqlite3_get_clientdata(db, CLIENT_DATA) : NULL; }

static void *guard_of(sqlite3 *db) { return hq_guard_of(db); }

/* Runs when the connection closes, or by detach(). Statements that outlive it (a zombie connection) lose the guard.
 */
static void guard_free(void *guard) {
    hq_guard *g = guard;
    sqlite3_set_authorizer(g->db, NULL, NULL);
    if (g->role == HQ_ROLE_WRITER)
        sqlite3_update_hook(g->db, NULL, NULL);
    hq_schema_forget(&g->schema);
    free(g);
}

static void note_rowid(void *guard, int operation, const char *database, const char *table, sqlite3_int64 rowid) {
    (void)database;
    (void)table;
    ((hq_guard *)guard)->wrote_rows = 1;
    if (rowid == INT64_MAX && operation != SQLITE_DELETE)
        ((hq_guard *)guard)->last_rowid = 1;
}

static void guard_detach(void *guard) {
    hq_guard *g = guard;
    sqlite3 *db;
    if (!g)
        return;
    db = g->db;
    hq_functions_remove(g);
    sqlite3_set_clientdata(db, CLIENT_DATA, NULL, NULL); /* frees it */
}

static void *guard_attach(sqlite3 *db, int role) {
    hq_guard *g;
    if (!sqlite3_api || !db || role < HQ_ROLE_WRITER || role > HQ_ROLE_INSPECTOR)
        return NULL;
    g = hq_guard_of(db);
    if (g && g->role == role)
        return g;
    guard_detach(g);
    g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->db = db;
    g->role = role;
    if (sqlite3_set_clientdata(db, CLIENT_DATA, g, guard_free) != SQLITE_OK)
        return NULL; /* SQLite has freed it */
    if (hq_functions_install(g) != SQLITE_OK || hq_strings_install(g) != SQLITE_OK ||
        sqlite3_set_authorizer(db, hq_authorize, g) != SQLITE_OK) {
        guard_detach(g);
        return NULL;
    }
    if (role == HQ_ROLE_WRITER)
        sqlite3_update_hook(db, note_rowid, g);
    return g;
}

/* ------------------------------------------------------------------ one statement */

static void own_writes(void *guard, int on) { ((hq_guard *)guard)->own = on != 0; }

static void statement_begin(void *guard) {
    hq_guard *g = guard;
    g->seen = 0;
    g->refusal_class = HQ_CLASS_NONE;
    g->reason[0] = 0;
    g->last_rowid = 0;
    g->wrote_rows = 0;
    hq_current_entry.local_time_refused = 0;
}

/* Codes that speak of this node's state, not of the statement: they pass as they are. */
static int is_environmental(int rc) {
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
    case SQLITE_IOERR:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_INTERRUPT:
    case SQLITE_CANTOPEN:
    case SQLITE_FULL:
    case SQLITE_READONLY:
        return 1;
    default:
        return 0;
    }
}

/* Judges the finished program; true when it may run. */
static int may_run(hq_guard *g, sqlite3_stmt *stmt, const char *sql, int size) {
    int explains = sqlite3_stmt_isexplain(stmt) != 0;
    int read_only = explains || (sqlite3_stmt_readonly(stmt) && !g->text.writes);
    int error_class = HQ_CLASS_STATEMENT;
    hq_judge_names(g, sql, size);
    const char *reason = hq_judge(g, read_only, &error_class);
    if (explains)
        g->seen |= HQ_SEEN_EXPLAIN;
    if (read_only)
        g->seen |= HQ_SEEN_READS;
    if (!read_only && g->schema.uses_changes)
        g->seen |= HQ_SEEN_CHANGES;
    if (!reason && g->text.ddl && hq_text_names_reserved(sql, size))
        reason = "names that begin with _hiqlite or pragma_, and _migrations, are reserved and may not be referenced or given";
    if (reason)
        hq_refuse(g, error_class, "%s", reason);
    return g->refusal_class == HQ_CLASS_NONE;
}

static int guard_prepare(void *guard, const char *sql, int size, unsigned flags, sqlite3_stmt **stmt,
                         const char **tail) {
    hq_guard *g = guard;
    const char *end = sql + size;
    int rc;
    *stmt = NULL;
    if (tail)
        *tail = end;
    statement_begin(g);
    if (g->own)
        return sqlite3_prepare_v3(g->db, sql, size, flags, stmt, tail);
    rc = hq_schema_refresh(g);
    if (rc != SQLITE_OK)
        return rc;
    hq_read_text(sql, size, &g->text);
    g->preparing = 1;
    rc = sqlite3_prepare_v3(g->db, sql, size, flags, stmt, &end);
    g->preparing = 0;
    if (tail)
        *tail = end;
    if (rc != SQLITE_OK)
        return g->refusal_class && !is_environmental(rc) ? SQLITE_AUTH : rc;
    if (!*stmt || may_run(g, *stmt, sql, (int)(end - sql)))
        return SQLITE_OK;
    sqlite3_finalize(*stmt);
    *stmt = NULL;
    return SQLITE_AUTH;
}

static uint32_t seen(void *guard) { return ((hq_guard *)guard)->seen; }

static const char *refusal(void *guard) {
    hq_guard *g = guard;
    if (g->refusal_class)
        return g->reason;
    if (hq_current_entry.local_time_refused)
        return "the modifiers localtime and utc are not allowed in a write: nodes may live in different time zones";
    return NULL;
}

static int refusal_class(void *guard) {
    hq_guard *g = guard;
    if (g->refusal_class)
        return g->refusal_class;
    return hq_current_entry.local_time_refused ? HQ_CLASS_DETERMINISM : HQ_CLASS_NONE;
}

static int took_last_rowid(void *guard) { return ((hq_guard *)guard)->last_rowid; }

static int wrote_rows(void *guard) { return ((hq_guard *)guard)->wrote_rows; }

static void schema_changed(void *guard) { hq_schema_forget(&((hq_guard *)guard)->schema); }

/* ------------------------------------------------------------------ classes of errors */

static int error_class(int extended_code, const char *message) {
    static const char *const parts[] = {"no such ",
                                        " already exists",
                                        "already another table",
                                        "has no column named",
                                        " columns but ",
                                        "duplicate column name",
                                        "foreign key mismatch",
                                        "ambiguous column name",
                                        "unknown column",
                                        "malformed database schema",
                                        "because it is a view",
                                        "there is already",
                                        "unknown table option",
                                        "may not be modified",
                                        "may not be dropped",
                                        "may not be altered"};
    int code = extended_code & 0xff;
    if (code == SQLITE_CONSTRAINT)
        return HQ_CLASS_CONSTRAINT;
    if (code == SQLITE_SCHEMA)
        return HQ_CLASS_SCHEMA;
    if (code != SQLITE_ERROR || !message)
        return HQ_CLASS_STATEMENT;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(message, parts[i]))
            return HQ_CLASS_SCHEMA;
    return HQ_CLASS_STATEMENT;
}

/* ------------------------------------------------------------------ the table, and the door of the extension */

static const hq_guard_api API = {
    .version = HQ_GUARD_API_VERSION,
    .size = sizeof(hq_guard_api),
    .attach = guard_attach,
    .of = guard_of,
    .detach = guard_detach,
    .entry_begin = hq_entry_begin,
    .entry_statement = hq_entry_statement,
    .entry_end = hq_entry_end,
    .in_entry = hq_in_entry,
    .own_writes = own_writes,
    .statement_begin = statement_begin,
    .prepare = guard_prepare,
    .seen = seen,
    .refusal = refusal,
    .refusal_class = refusal_class,
    .error_class = error_class,
    .schema_changed = schema_changed,
    .took_last_rowid = took_last_rowid,
    .wrote_rows = wrote_rows,
};

const hq_guard_api *hq_guard_table(void) { return &API; }

int hq_guard_loaded(void) { return sqlite3_api != NULL; }

/* With the samples of sqlite_stat4 SQLite evaluates datetime('now') while it prepares, and plans by it. A node that keeps
   its prepared statements would then plan otherwise than one that was restarted in between, and visit rows in another
   order. Set before the connection has read any schema. */
enum { WITHOUT_STAT4 = 0x800 };

/* SQLite calls this once per connection that loads the extension; VFS and time zone rule are set up the first time.
 */
__attribute__((visibility("default"))) int sqlite3_guard_init(sqlite3 *db, char **message,
                                                              const sqlite3_api_routines *api) {
    int rc;
    SQLITE_EXTENSION_INIT2(api);
    sqlite3_test_control(SQLITE_TESTCTRL_OPTIMIZATIONS, db, WITHOUT_STAT4);
    rc = hq_clock_register();
    if (rc != SQLITE_OK) {
        if (message)
            *message = sqlite3_mprintf("hiqlite: the VFS could not be registered (code %d)", rc);
        return rc;
    }
    return SQLITE_OK_LOAD_PERMANENTLY;
}
