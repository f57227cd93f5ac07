/* guard_rules.c: what SQL may do, as SQLite's authorizer sees it (semantics: "Authorizer before prepare").

   Writer and inspector: DDL and DML of ordinary names. Never: objects of the database `temp` (they vanish with a
   restart), ATTACH, DETACH, transaction control, SAVEPOINT, internal tables, PRAGMAs outside the list. Reader: reads
   only. What can be judged only from the finished program (sqlite_stat*, functions that tell of the build inside
   a write) is noted in `seen` and judged by hq_judge() after prepare. Invariant: every SQLITE_DENY has recorded a
   reason and a class. Must not run SQL: SQLite forbids it in this callback. */
#include <stdio.h>
#include <string.h>

#include "guard_parts.h"

/* ------------------------------------------------------------------ PRAGMA */

/* Readable; `argument` says whether one may follow. The argument of these names an object or a limit, it sets
 * nothing. */
static const char *const PRAGMAS_WITH_ARGUMENT[] = {
    "table_info",       "table_xinfo",       "table_list",      "index_list",  "index_info", "index_xinfo",
    "foreign_key_list", "foreign_key_check", "integrity_check", "quick_check", NULL};
static const char *const PRAGMAS_PLAIN[] = {
    "page_count", "freelist_count", "compile_options", "function_list", "collation_list", "encoding", NULL};
static const char *const PRAGMAS_SETTABLE[] = {"user_version", "application_id", NULL};
/* What virtual tables ask of themselves (FTS5, R-tree). */
static const char *const PRAGMAS_NESTED[] = {"data_version", "page_size", NULL};
/* Allowed, but their answer is a property of this node's build or file. */
static const char *const PRAGMAS_LOCAL[] = {"page_count",    "freelist_count", "compile_options",
                                            "function_list", "collation_list", NULL};

/* A PRAGMA that a virtual table prepares for itself, and not the one of the user's own text. Whoever prepares without
   prepare() gives no text; virtual tables always name the database. */
static int is_nested(const hq_guard *g, const char *database) {
    return g->preparing ? !g->text.pragma || (database && !g->text.pragma_nested) : database != NULL;
}

static int judge_pragma(hq_guard *g, const char *name, const char *argument, const char *database) {
    if (hq_in_list(name, PRAGMAS_LOCAL))
        g->seen |= HQ_SEEN_LOCAL;
    if (hq_in_list(name, PRAGMAS_WITH_ARGUMENT)) {
        g->seen |= HQ_SEEN_VIRTUAL | HQ_SEEN_REMEMBERS; /* what it looks at may be one, and is connected for it */
        return SQLITE_OK;
    }
    if (!argument && (hq_in_list(name, PRAGMAS_PLAIN) || hq_in_list(name, PRAGMAS_SETTABLE)))
        return SQLITE_OK;
    if (argument && hq_in_list(name, PRAGMAS_SETTABLE)) {
        if (g->role != HQ_ROLE_READER)
            return SQLITE_OK;
        hq_refuse(g, HQ_CLASS_USAGE, "PRAGMA %.40s with a value writes: use execute()", name);
        return SQLITE_DENY;
    }
    if (!argument && hq_in_list(name, PRAGMAS_NESTED) && is_nested(g, database))
        return SQLITE_OK;
    hq_refuse(g, HQ_CLASS_STATEMENT, "PRAGMA %.60s is not allowed: the cluster keeps the settings of its databases",
              name);
    return SQLITE_DENY;
}

/* A table whose rows differ per node. The writer never reads one, not even in a SELECT: a virtual table over it (FTS5
   with `content=`) reads it while it is stepped, when no finished program can be judged any more. */
static int judge_local_table(hq_guard *g, const char *table) {
    g->seen |= HQ_SEEN_LOCAL;
    if (g->role == HQ_ROLE_READER)
        return SQLITE_OK;
    hq_refuse(g, HQ_CLASS_DETERMINISM, "%.60s differs from node to node, so no write may read it: use query()", table);
    return SQLITE_DENY;
}

/* The table function pragma_<name>: the same list, by the name of the table. */
static int judge_pragma_table(hq_guard *g, const char *table) {
    const char *name = table + strlen("pragma_");
    g->seen |= HQ_SEEN_VIRTUAL | HQ_SEEN_REMEMBERS;
    if (hq_in_list(name, PRAGMAS_LOCAL))
        return judge_local_table(g, table);
    if (hq_in_list(name, PRAGMAS_WITH_ARGUMENT) || hq_in_list(name, PRAGMAS_PLAIN) || hq_in_list(name, PRAGMAS_SETTABLE))
        return SQLITE_OK;
    hq_refuse(g, HQ_CLASS_STATEMENT, "the table function %.60s is not allowed", table);
    return SQLITE_DENY;
}

/* ------------------------------------------------------------------ functions and reads */

static const char *const BUILD_FUNCTIONS[] = {
    "sqlite_version",           "sqlite_source_id",          "fts5_source_id",
    "sqlite_compileoption_get", "sqlite_compileoption_used", NULL};
static const char *const TIME_FUNCTIONS[] = {
    "date",     "time",         "datetime",     "julianday",         "strftime", "unixepoch",
    "timediff", "current_time", "current_date", "current_timestamp", NULL};

static int judge_function(hq_guard *g, const char *name) {
    if (hq_same(name, "load_extension")) {
        hq_refuse(g, HQ_CLASS_DETERMINISM, "load_extension() is not allowed: nodes could load different code");
        return SQLITE_DENY;
    }
    if (hq_same(name, "fts3_tokenizer")) {
        /* SQLite lets it through as soon as its argument is a bound parameter, whatever the connection is set to. */
        hq_refuse(g, HQ_CLASS_DETERMINISM, "fts3_tokenizer() is not allowed: it takes and gives addresses of a process");
        return SQLITE_DENY;
    }
    if (hq_same(name, "total_changes")) {
        hq_refuse(
            g, HQ_CLASS_DETERMINISM,
            "total_changes() is not allowed: it counts since the connection was opened, which differs per node");
        return SQLITE_DENY;
    }
    if (hq_in_list(name, BUILD_FUNCTIONS))
        g->seen |= HQ_SEEN_LOCAL;
    if (hq_same(name, "changes"))
        g->seen |= HQ_SEEN_CHANGES;
    if (hq_same(name, "random") || hq_same(name, "randomblob"))
        g->seen |= HQ_SEEN_RANDOM;
    if (hq_in_list(name, TIME_FUNCTIONS))
        g->seen |= HQ_SEEN_TIME;
    return SQLITE_OK;
}

static const char *const EPONYMOUS[] = {"json_each", "json_tree", "jsonb_each",   "jsonb_tree",
                                        "carray",    "dbstat",    "fts3tokenize", NULL};

/* Where a table's or an index's pages begin depends on how runs were cut: to whatever may write, it is NULL on every node.
   DROP looks at it itself; anybody's SELECT can only be in a trigger (`inner`) that its cascades fire. */
static int is_page_number(const hq_guard *g, const char *table, const char *column, const char *inner) {
    static const char *const schema_tables[] = {"sqlite_master", "sqlite_schema", "sqlite_temp_master",
                                                "sqlite_temp_schema", NULL};
    return g->role != HQ_ROLE_READER && (inner || !(g->seen & HQ_SEEN_DROP)) && hq_same(column, "rootpage") &&
           hq_in_list(table, schema_tables);
}

static int judge_read(hq_guard *g, const char *table, const char *column, const char *inner) {
    if (is_page_number(g, table, column, inner))
        return SQLITE_IGNORE;
    if (hq_begins(table, "pragma_"))
        return judge_pragma_table(g, table);
    if (hq_same(table, "dbstat") || hq_begins(table, "_hiqlite"))
        return judge_local_table(g, table);
    if (hq_in_list(table, EPONYMOUS))
        g->seen |= HQ_SEEN_VIRTUAL;
    if (hq_is_virtual(&g->schema, table))
        g->seen |= HQ_SEEN_VIRTUAL | HQ_SEEN_REMEMBERS;
    return SQLITE_OK;
}

/* ------------------------------------------------------------------ writes */

static int refuse_temp(hq_guard *g) {
    hq_refuse(g, HQ_CLASS_STATEMENT,
              "temporary objects are not allowed: they would exist on one node only, and vanish with a restart");
    return SQLITE_DENY;
}

static int refuse_reserved(hq_guard *g, const char *name) {
    hq_refuse(g, HQ_CLASS_STATEMENT,
              "%.60s is reserved: names that begin with _hiqlite or pragma_, and _migrations, belong to the database itself",
              name);
    return SQLITE_DENY;
}

static int judge_change(hq_guard *g, int code, const char *table, const char *database) {
    uint32_t bit = code == SQLITE_INSERT ? HQ_SEEN_INSERT : code == SQLITE_UPDATE ? HQ_SEEN_UPDATE : HQ_SEEN_DELETE;
    /* INSERT into sqlite_temp_master precedes every CREATE in temp, however it is written; ALTER TABLE of an ordinary
       table updates sqlite_temp_master, which holds nothing here. */
    if (hq_same(database, "temp") && code == SQLITE_INSERT)
        return refuse_temp(g);
    if (hq_name_reserved(table))
        return refuse_reserved(g, table);
    if (hq_begins(table, "sqlite_stat"))
        g->seen |= HQ_SEEN_STAT;
    if (hq_is_virtual(&g->schema, table))
        g->seen |= HQ_SEEN_VIRTUAL | HQ_SEEN_REMEMBERS;
    if (!hq_begins(table, "sqlite_master") && !hq_begins(table, "sqlite_temp_master") && !hq_is_trees_own(g, table))
        g->seen |= bit;
    return SQLITE_OK;
}

/* They show pages, statements or connections of one process; under another name nothing else would tell. */
static const char *const MODULES_OF_A_NODE[] = {"dbstat",      "sqlite_dbpage", "sqlite_stmt", "sqlite_memstat",
                                                "tables_used", "bytecode",      NULL};

static int judge_ddl(hq_guard *g, int code, const char *a, const char *b, const char *database) {
    g->seen |= HQ_SEEN_SCHEMA;
    if (hq_same(database, "temp"))
        return refuse_temp(g);
    if (hq_name_reserved(a))
        return refuse_reserved(g, a);
    if (hq_name_reserved(b) && code != SQLITE_CREATE_VTABLE && code != SQLITE_DROP_VTABLE)
        return refuse_reserved(g, b);
    if (code == SQLITE_CREATE_VTABLE && hq_in_list(b, MODULES_OF_A_NODE)) {
        hq_refuse(g, HQ_CLASS_DETERMINISM, "a table of module %.40s differs from node to node", b);
        return SQLITE_DENY;
    }
    if (code == SQLITE_CREATE_VTABLE || code == SQLITE_DROP_VTABLE)
        g->seen |= HQ_SEEN_VIRTUAL | HQ_SEEN_REMEMBERS;
    if (code == SQLITE_CREATE_INDEX && g->preparing && g->text.create_index)
        g->seen |= HQ_SEEN_CREATE_INDEX;
    if (code == SQLITE_DROP_INDEX || code == SQLITE_DROP_TABLE || code == SQLITE_DROP_VTABLE ||
        code == SQLITE_DROP_TRIGGER || code == SQLITE_DROP_VIEW)
        g->seen |= HQ_SEEN_DROP;
    if (code == SQLITE_DROP_TABLE && hq_begins(a, "sqlite_stat"))
        g->seen |= HQ_SEEN_RELOAD;
    return SQLITE_OK;
}

/* ------------------------------------------------------------------ by role */

static int authorize_reading(hq_guard *g, int code, const char *a, const char *b, const char *database,
                             const char *inner) {
    switch (code) {
    case SQLITE_SELECT:
        return SQLITE_OK;
    case SQLITE_READ:
        return judge_read(g, a, b, inner);
    case SQLITE_FUNCTION:
        return judge_function(g, b);
    case SQLITE_RECURSIVE:
        g->seen |= HQ_SEEN_RECURSIVE;
        return SQLITE_OK;
    case SQLITE_PRAGMA:
        return judge_pragma(g, a, b, database);
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
        hq_refuse(g, HQ_CLASS_STATEMENT, "transaction control is not allowed: use txn() or atomic()");
        return SQLITE_DENY;
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
        hq_refuse(g, HQ_CLASS_STATEMENT, "ATTACH, DETACH and VACUUM are not allowed: a node serves one database");
        return SQLITE_DENY;
    default:
        return -1;
    }
}

/* What virtual tables prepare for themselves is never stepped on a reader: `query_only` is on. With the user's text at
   hand, writing is judged by its first word here and by the finished program in hq_judge(); without it, only tables that
   are named like a virtual table's shadow pass. */
static int may_prepare_on_reader(const hq_guard *g, const char *table) {
    return g->preparing ? g->text.explain || !g->text.writes : hq_shadow_suffix(table) != NULL;
}

static int authorize_reader(hq_guard *g, int code, const char *a) {
    int changes = code == SQLITE_INSERT || code == SQLITE_UPDATE || code == SQLITE_DELETE;
    if (changes && may_prepare_on_reader(g, a))
        return SQLITE_OK;
    hq_refuse(g, HQ_CLASS_USAGE,
              "this statement writes: use execute(), or execute_returning() for the rows of RETURNING");
    return SQLITE_DENY;
}

static int authorize_writer(hq_guard *g, int code, const char *a, const char *b, const char *database) {
    switch (code) {
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
        return judge_change(g, code, a, database);
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_TEMP_VIEW:
    case SQLITE_DROP_TEMP_INDEX:
    case SQLITE_DROP_TEMP_TABLE:
    case SQLITE_DROP_TEMP_TRIGGER:
    case SQLITE_DROP_TEMP_VIEW:
        return refuse_temp(g);
    case SQLITE_CREATE_INDEX:
    case SQLITE_CREATE_TABLE:
    case SQLITE_CREATE_TRIGGER:
    case SQLITE_CREATE_VIEW:
    case SQLITE_CREATE_VTABLE:
    case SQLITE_DROP_INDEX:
    case SQLITE_DROP_TABLE:
    case SQLITE_DROP_TRIGGER:
    case SQLITE_DROP_VIEW:
    case SQLITE_DROP_VTABLE:
        return judge_ddl(g, code, a, b, database);
    case SQLITE_ALTER_TABLE: /* a: database, b: table */
        return judge_ddl(g, code, b, NULL, a);
    case SQLITE_REINDEX:
        g->seen |= HQ_SEEN_SCHEMA | HQ_SEEN_RELOAD;
        return SQLITE_OK;
    case SQLITE_ANALYZE:
        g->seen |= HQ_SEEN_SCHEMA | HQ_SEEN_RELOAD;
        /* The row count of internal tables depends on how runs were cut, which differs per node: left out of
         * sqlite_stat1. */
        return hq_begins(a, "_hiqlite") ? SQLITE_IGNORE : SQLITE_OK;
    default:
        hq_refuse(g, HQ_CLASS_STATEMENT, "this kind of statement is not allowed (authorizer code %d)", code);
        return SQLITE_DENY;
    }
}

#define STATISTICS \
    "sqlite_stat tables are written by ANALYZE only: a connection reads them once, so nodes would plan differently"

int hq_authorize(void *guard, int code, const char *a, const char *b, const char *database, const char *inner) {
    hq_guard *g = guard;
    int rc;
    if (g->internal || g->own)
        return SQLITE_OK;
    rc = authorize_reading(g, code, a, b, database, inner);
    if (rc >= 0)
        return rc;
    if (g->role == HQ_ROLE_READER)
        return authorize_reader(g, code, a);
    if (inner && (code == SQLITE_INSERT || code == SQLITE_UPDATE || code == SQLITE_DELETE)) {
        g->seen |= HQ_SEEN_TRIGGER;
        if (hq_begins(a, "sqlite_stat")) {
            hq_refuse(g, HQ_CLASS_STATEMENT, STATISTICS);
            return SQLITE_DENY;
        }
    }
    return authorize_writer(g, code, a, b, database);
}

/* What only the finished program tells: the reason of a refusal, or NULL. */
const char *hq_judge(hq_guard *g, int read_only, int *error_class) {
    *error_class = HQ_CLASS_STATEMENT;
    if (g->text.vacuum)
        return "VACUUM is not allowed: it changes rowids, and each node keeps its own file";
    if (g->role == HQ_ROLE_READER) {
        *error_class = HQ_CLASS_USAGE;
        if (!read_only)
            return "this statement writes: use execute(), or execute_returning() for the rows of RETURNING";
        return NULL;
    }
    if ((g->seen & HQ_SEEN_STAT) && !(g->seen & (HQ_SEEN_DROP | HQ_SEEN_RELOAD)))
        return STATISTICS;
    if ((g->seen & HQ_SEEN_LOCAL) && !read_only) {
        *error_class = HQ_CLASS_DETERMINISM;
        return "the version and the build of SQLite differ from node to node: a write must not read them";
    }
    return NULL;
}
