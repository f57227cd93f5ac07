/* guard_schema.c: what the guard has to know of the schema: which names are virtual tables, and whether any CREATE
   text holds the word "changes" (a CHECK is compiled without asking the authorizer again, so an INSERT would not show
   it).

   Learnt once per schema cookie. A cookie can come back after a rollback with another schema behind it: whoever rolls
   a schema change back calls schema_changed(). Keeps no statement open. */
#include <stdlib.h>
#include <string.h>

#include "guard_parts.h"

void hq_schema_forget(hq_schema *schema) {
    for (int i = 0; i < schema->virtual_count; i++)
        free(schema->virtuals[i]);
    for (int i = 0; i < schema->tree_count; i++)
        free(schema->trees[i]);
    free(schema->virtuals);
    free(schema->trees);
    memset(schema, 0, sizeof *schema);
}

static int no_case_compare(const void *a, const void *b) {
    return sqlite3_stricmp(*(char *const *)a, *(char *const *)b);
}

static int contains(char **names, int count, const char *name) {
    return name && count && bsearch(&name, names, (size_t)count, sizeof(char *), no_case_compare) != NULL;
}

int hq_is_virtual(const hq_schema *schema, const char *name) {
    return contains(schema->virtuals, schema->virtual_count, name);
}

int hq_is_tree(const hq_schema *schema, const char *name) { return contains(schema->trees, schema->tree_count, name); }

static int read_cookie(hq_guard *g, int64_t *cookie) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(g->db, "PRAGMA main.schema_version", -1, &stmt, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(stmt);
        *cookie = rc == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;
        rc = sqlite3_finalize(stmt);
    }
    return rc;
}

static int add_name(char ***names, int *count, const unsigned char *name) {
    char **grown = realloc(*names, sizeof(char *) * (size_t)(*count + 1));
    if (!grown)
        return SQLITE_NOMEM;
    *names = grown;
    grown[*count] = strdup((const char *)name);
    if (!grown[*count])
        return SQLITE_NOMEM;
    ++*count;
    return SQLITE_OK;
}

enum { A_TREE = 1, A_VIRTUAL, JOINS_BY_NAME, MENTIONS_CHANGES };

static int read_schema(hq_guard *g) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(g->db,
                                "SELECT name, 1 + (sql NOT LIKE '%using%rtree%' AND sql NOT LIKE '%using%geopoly%')"
                                " FROM main.sqlite_schema WHERE sql LIKE 'create virtual%'"
                                " UNION ALL SELECT name, 3 FROM main.sqlite_schema"
                                " WHERE type IN ('view', 'trigger') AND (sql LIKE '%using%' OR sql LIKE '%natural%')"
                                " UNION ALL SELECT name, 4 FROM main.sqlite_schema WHERE sql LIKE '%changes%'",
                                -1, &stmt, NULL);
    if (rc != SQLITE_OK)
        return rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const unsigned char *name = sqlite3_column_text(stmt, 0);
        int what = sqlite3_column_int(stmt, 1), failed = 0;
        g->schema.uses_changes |= what == MENTIONS_CHANGES;
        g->schema.joins_by_name |= what == JOINS_BY_NAME;
        if (name && (what == A_TREE || what == A_VIRTUAL))
            failed = add_name(&g->schema.virtuals, &g->schema.virtual_count, name) != SQLITE_OK;
        if (name && what == A_TREE && !failed)
            failed = add_name(&g->schema.trees, &g->schema.tree_count, name) != SQLITE_OK;
        if (failed) {
            sqlite3_finalize(stmt);
            return SQLITE_NOMEM;
        }
    }
    rc = sqlite3_finalize(stmt);
    if (rc == SQLITE_OK && g->schema.virtual_count > 1)
        qsort(g->schema.virtuals, (size_t)g->schema.virtual_count, sizeof(char *), no_case_compare);
    if (rc == SQLITE_OK && g->schema.tree_count > 1)
        qsort(g->schema.trees, (size_t)g->schema.tree_count, sizeof(char *), no_case_compare);
    return rc;
}

/* Brings g->schema up to date; on an error nothing is known and the code is returned (a read of the database failed).
 */
int hq_schema_refresh(hq_guard *g) {
    int64_t cookie = 0;
    int rc;
    g->internal++;
    rc = read_cookie(g, &cookie);
    if (rc == SQLITE_OK && !(g->schema.known && g->schema.cookie == cookie)) {
        hq_schema_forget(&g->schema);
        rc = read_schema(g);
        if (rc == SQLITE_OK) {
            g->schema.known = 1;
            g->schema.cookie = cookie;
        } else {
            hq_schema_forget(&g->schema);
        }
    }
    g->internal--;
    return rc;
}
