/* guard_names.c: names in SQL, and what may be told from a name alone.

   Which names are reserved, which tables are an R-tree's own, and what a statement names that joins by the names of columns.
   Must not know how a statement is judged otherwise. */
#include <stdio.h>
#include <string.h>

#include "guard_parts.h"

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

int hq_same(const char *a, const char *b) {
    if (!a)
        return 0;
    for (; *a && *b; a++, b++)
        if (lower(*a) != lower(*b))
            return 0;
    return *a == *b;
}

int hq_begins(const char *name, const char *prefix) {
    if (!name)
        return 0;
    for (; *prefix; name++, prefix++)
        if (lower(*name) != *prefix)
            return 0;
    return 1;
}

int hq_in_list(const char *name, const char *const *list) {
    for (; *list; list++)
        if (hq_same(name, *list))
            return 1;
    return 0;
}

/* `pragma_...`: nobody could read a table of that name, for it would be taken for SQLite's table function. */
int hq_name_reserved(const char *name) {
    return hq_begins(name, "_hiqlite") || hq_begins(name, "pragma_") || hq_same(name, "_migrations");
}

/* Virtual tables prepare their own writes as soon as they are connected (R-tree, FTS): those are of their shadow tables. */
static const char *const SHADOWS[] = {"_node",   "_rowid",   "_parent",   "_data",   "_idx",  "_content",
                                      "_config", "_docsize", "_segments", "_segdir", "_stat", NULL};

const char *hq_shadow_suffix(const char *table) {
    size_t size = table ? strlen(table) : 0;
    for (const char *const *suffix = SHADOWS; *suffix; suffix++)
        if (size > strlen(*suffix) && hq_same(table + size - strlen(*suffix), *suffix))
            return table + size - strlen(*suffix);
    return NULL;
}

/* Of an R-tree that is there: it prepares its INSERTs while it is connected, which the user's statement knows nothing of. */
int hq_is_trees_own(const hq_guard *g, const char *table) {
    static const char *const own[] = {"_node", "_rowid", "_parent", NULL};
    const char *suffix = hq_shadow_suffix(table);
    char owner[HQ_REASON_MAX];
    if (!suffix || !hq_in_list(suffix, own) || suffix - table >= (int)sizeof owner)
        return 0;
    memcpy(owner, table, (size_t)(suffix - table));
    owner[suffix - table] = 0;
    return hq_is_tree(&g->schema, owner);
}

/* Columns that a join takes by their names are not told to the authorizer, and a table of nothing else is not either. */
static void judge_name(void *guard, const char *name) {
    static const char *const schema_tables[] = {"sqlite_master", "sqlite_schema", "dbstat", NULL};
    hq_guard *g = guard;
    if (hq_is_virtual(&g->schema, name))
        g->seen |= HQ_SEEN_VIRTUAL | HQ_SEEN_REMEMBERS;
    if (hq_in_list(name, schema_tables) || hq_begins(name, "_hiqlite") || hq_begins(name, "pragma_"))
        hq_refuse(g, HQ_CLASS_DETERMINISM,
                  "%.60s may not stand in a write with USING or NATURAL: join it with ON", name);
}

void hq_judge_names(hq_guard *g, const char *sql, int size) {
    if (g->role == HQ_ROLE_READER)
        return;
    if (g->schema.joins_by_name && g->schema.virtual_count) /* whatever view or trigger that is */
        g->seen |= HQ_SEEN_VIRTUAL | HQ_SEEN_REMEMBERS;
    if (hq_text_joins_by_name(sql, size))
        hq_text_names(sql, size, judge_name, g);
}
