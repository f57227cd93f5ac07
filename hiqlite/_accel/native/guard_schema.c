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
    free(schema->virtuals);
    memset(schema, 0, sizeof *schema);
}

static int no_case_compare(const void *a, const void *b) {
    return sqlite3_stricmp(*(char *const *)a, *(char *const *)b);
}

int hq_is_virtual(const hq_schema *schema, const char *name) {
    if (!name || !schema->virtual_count)
        return 0;
    return bsearch(&name, schema->virtuals, (size_t)schema->virtual_count, sizeof(char *), no_case_compare) != NULL;
}

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

static int add_virtual(hq_schema *schema, const unsigned char *name) {
    char **grown = realloc(schema->virtuals, sizeof(char *) * (size_t)(schema->virtual_count + 1));
    if (!grown)
        return SQLITE_NOMEM;
    schema->virtuals = grown;
    grown[schema->virtual_count] = strdup((const char *)name);
    if (!grown[schema->virtual_count])
        return SQLITE_NOMEM;
    schema->virtual_count++;
    return SQLITE_OK;
}

static int read_schema(hq_guard *g) {
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(g->db,
                                "SELECT name, sql LIKE 'create virtual%' FROM main.sqlite_schema"
                                " WHERE sql LIKE 'create virtual%' OR sql LIKE '%changes%'",
                                -1, &stmt, NULL);
    if (rc != SQLITE_OK)
        return rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const unsigned char *name = sqlite3_column_text(stmt, 0);
        if (!sqlite3_column_int(stmt, 1)) {
            g->schema.uses_changes = 1;
        } else if (name && add_virtual(&g->schema, name) != SQLITE_OK) {
            sqlite3_finalize(stmt);
            return SQLITE_NOMEM;
        }
    }
    rc = sqlite3_finalize(stmt);
    if (rc == SQLITE_OK && g->schema.virtual_count > 1)
        qsort(g->schema.virtuals, (size_t)g->schema.virtual_count, sizeof(char *), no_case_compare);
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
