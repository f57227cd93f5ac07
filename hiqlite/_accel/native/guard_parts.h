/* guard_parts.h: what the C files of the guard share; no other extension includes it.

   Invariants: every call to SQLite goes through `sqlite3_api` of the library that loaded this extension; entry
   contexts are thread-local; a struct hq_guard is touched by one thread at a time. */
#ifndef HQ_GUARD_PARTS_H
#define HQ_GUARD_PARTS_H

#include <stddef.h>
#include <stdint.h>

#ifdef HQ_GUARD_CORE
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1
#else
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT3
#endif

#include "guard.h"

#define HQ_REASON_MAX 240

/* What the text of the statement in preparation says by itself. */
typedef struct hq_text {
    int explain;      /* EXPLAIN or EXPLAIN QUERY PLAN */
    int pragma;       /* PRAGMA */
    int pragma_nested; /* and its text has the name of one that virtual tables prepare for themselves */
    int vacuum;       /* VACUUM */
    int writes;       /* first word creates, drops, alters, inserts, updates, deletes, reindexes or analyzes */
    int create_index; /* CREATE [UNIQUE] INDEX */
    int ddl;          /* CREATE or ALTER: names may be defined in it */
} hq_text;

/* What is remembered of the schema, valid for one schema cookie. */
typedef struct hq_schema {
    int known;
    int64_t cookie;
    int uses_changes; /* the word "changes" stands in some CREATE text */
    int joins_by_name; /* USING or NATURAL stands in a view or a trigger */
    char **virtuals;  /* names of virtual tables, in malloc'ed strings, ascending */
    int virtual_count;
    char **trees; /* those of R-trees among them */
    int tree_count;
} hq_schema;

typedef struct hq_guard {
    sqlite3 *db;
    int role;
    int own;        /* our own statements: everything passes */
    int preparing;  /* inside prepare(): `text` describes the user's statement */
    int internal;   /* the guard itself reads the schema */
    int last_rowid; /* a row with rowid 2^63-1 was written */
    int wrote_rows; /* any row of a table that has rowids */
    hq_text text;
    uint32_t seen;
    int refusal_class;
    char reason[HQ_REASON_MAX];
    hq_schema schema;
} hq_guard;

/* The entry that this thread applies or tries. */
typedef struct hq_entry {
    int active;
    int local_time_refused;
    int64_t julian_ms;
    uint64_t seed;
    uint64_t state[4];
} hq_entry;

extern __thread hq_entry hq_current_entry;

/* guard_core.c */
hq_guard *hq_guard_of(sqlite3 *db);
const hq_guard_api *hq_guard_table(void);
int hq_guard_loaded(void);
void hq_refuse(hq_guard *guard, int error_class, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* guard_names.c: names are compared as SQLite compares them, NULL is none; `prefix` is in lower case */
int hq_same(const char *a, const char *b);
int hq_begins(const char *name, const char *prefix);
int hq_in_list(const char *name, const char *const *list);
int hq_name_reserved(const char *name);
const char *hq_shadow_suffix(const char *table); /* its `_data`, `_node` ..., or NULL */
int hq_is_trees_own(const hq_guard *guard, const char *table);
void hq_judge_names(hq_guard *guard, const char *sql, int size); /* of a finished program's text */

/* guard_rules.c */
int hq_authorize(void *guard, int code, const char *a, const char *b, const char *database, const char *inner);
const char *hq_judge(hq_guard *guard, int read_only, int *error_class);

/* guard_text.c */
void hq_read_text(const char *sql, int size, hq_text *out); /* of the first statement */
/* Whether a reserved name stands behind REFERENCES or RENAME [COLUMN] TO; sql[0, size) is one CREATE or ALTER. */
int hq_text_names_reserved(const char *sql, int size);

int hq_text_joins_by_name(const char *sql, int size); /* whether USING or NATURAL stands in it */
/* Calls `each` for every name in sql[0, size), quoted or not, cut at 127 bytes. */
void hq_text_names(const char *sql, int size, void (*each)(void *context, const char *name), void *context);

/* guard_cost.c */
int hq_cost_is_bounded(hq_guard *guard, const char *sql, int size);
/* What else is known of its work, below; 0 where the text cannot be explained. */
enum {
    HQ_COST_LEVEL = 1, /* no loop stands in another, and all functions are short: linear in the tables, by any parameters */
    HQ_COST_PLAIN = 2, /* no function at all */
};
int hq_cost_shape(hq_guard *guard, const char *sql, int size);

/* guard_schema.c */
int hq_schema_refresh(hq_guard *guard);
void hq_schema_forget(hq_schema *schema);
int hq_is_virtual(const hq_schema *schema, const char *name);
int hq_is_tree(const hq_schema *schema, const char *name);

/* guard_clock.c */
void hq_entry_begin(int64_t wall_ns, uint64_t seed);
void hq_entry_statement(uint32_t ordinal);
void hq_entry_end(void);
int hq_in_entry(void);
int hq_clock_register(void);

/* guard_walfile.c */
size_t hq_walfile_bytes(void);
int hq_walfile_open(sqlite3_vfs *base, sqlite3_filename name, sqlite3_file *file, int flags, int *out_flags);

/* guard_chance.c */
void hq_chance_seed(hq_entry *entry, uint64_t seed, uint32_t ordinal);
int hq_functions_install(hq_guard *guard);
int hq_strings_install(hq_guard *guard); /* guard_strings.c */
int hq_functions_remove(hq_guard *guard);

#endif
