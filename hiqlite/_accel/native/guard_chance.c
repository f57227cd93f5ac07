/* guard_chance.c: random() and randomblob() from the entry's seed, and functions that may not run at all.

   Generator: xoshiro256** (Blackman and Vigna), its state filled by splitmix64 from (seed, ordinal of the statement);
   bytes are the words in little-endian order, each call starts a fresh word. This is part of the replicated state's
   meaning: every node must draw the same, so it may never change under the same record version. `determinism.py` is
   its plain twin. Outside an entry both functions draw from SQLite's own generator.

   total_changes(), sqlite_version() and their like are refused by the authorizer when a statement is prepared; a
   database that came from elsewhere may hide them in a CHECK or an index, so on writers they also fail when called.
 */
#include <string.h>

#include "guard_parts.h"

static uint64_t splitmix(uint64_t *x) {
    uint64_t z = (*x += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

void hq_chance_seed(hq_entry *entry, uint64_t seed, uint32_t ordinal) {
    uint64_t x = seed;
    x = splitmix(&x) ^ ordinal;
    for (int i = 0; i < 4; i++)
        entry->state[i] = splitmix(&x);
}

static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

static uint64_t draw(hq_entry *entry) {
    uint64_t *s = entry->state;
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

static void fill(unsigned char *out, int64_t size) {
    hq_entry *entry = &hq_current_entry;
    if (!entry->active) {
        while (size > 0) {
            int part = size > (1 << 20) ? 1 << 20 : (int)size;
            sqlite3_randomness(part, out);
            out += part;
            size -= part;
        }
        return;
    }
    while (size > 0) {
        uint64_t word = draw(entry);
        for (int i = 0; i < 8 && size > 0; i++, size--)
            *out++ = (unsigned char)(word >> (8 * i));
    }
}

static void random_function(sqlite3_context *context, int count, sqlite3_value **arguments) {
    unsigned char bytes[8];
    uint64_t word = 0;
    int64_t value;
    (void)count;
    (void)arguments;
    fill(bytes, 8);
    for (int i = 0; i < 8; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    value = (int64_t)word;
    /* As in SQLite: never -2^63, so that abs(random()) cannot overflow. */
    if (value < 0)
        value = -(int64_t)(word & 0x7fffffffffffffffULL);
    sqlite3_result_int64(context, value);
}

static void randomblob_function(sqlite3_context *context, int count, sqlite3_value **arguments) {
    int64_t size = sqlite3_value_int64(arguments[0]);
    unsigned char *bytes;
    (void)count;
    if (size < 1)
        size = 1;
    if (size > sqlite3_limit(sqlite3_context_db_handle(context), SQLITE_LIMIT_LENGTH, -1)) {
        sqlite3_result_error_toobig(context);
        return;
    }
    bytes = sqlite3_malloc64((sqlite3_uint64)size);
    if (!bytes) {
        sqlite3_result_error_nomem(context);
        return;
    }
    fill(bytes, size);
    sqlite3_result_blob64(context, bytes, (sqlite3_uint64)size, sqlite3_free);
}

/* ------------------------------------------------------------------ functions that may not run */

typedef struct forbidden {
    const char *name;
    int arguments;
} forbidden;

static const forbidden FORBIDDEN[] = {{"total_changes", 0},
                                      {"sqlite_version", 0},
                                      {"sqlite_source_id", 0},
                                      {"fts5_source_id", 0},
                                      {"sqlite_compileoption_get", 1},
                                      {"sqlite_compileoption_used", 1},
                                      {"load_extension", 1},
                                      {"load_extension", 2}};
#define FORBIDDEN_COUNT ((int)(sizeof FORBIDDEN / sizeof *FORBIDDEN))

static void forbidden_function(sqlite3_context *context, int count, sqlite3_value **arguments) {
    static const char reason[] = "a function that differs from node to node is not allowed in a write";
    hq_guard *g = hq_guard_of(sqlite3_context_db_handle(context));
    (void)count;
    (void)arguments;
    if (g)
        hq_refuse(g, HQ_CLASS_DETERMINISM, "%s", reason);
    sqlite3_result_error(context, reason, -1);
}

/* INNOCUOUS: else triggers and views could no longer call them where the schema is not trusted. */
#define OVERRIDE (SQLITE_UTF8 | SQLITE_INNOCUOUS)

int hq_functions_install(hq_guard *g) {
    int rc = sqlite3_create_function_v2(g->db, "random", 0, OVERRIDE, NULL, random_function, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc =
            sqlite3_create_function_v2(g->db, "randomblob", 1, OVERRIDE, NULL, randomblob_function, NULL, NULL, NULL);
    for (int i = 0; rc == SQLITE_OK && g->role != HQ_ROLE_READER && i < FORBIDDEN_COUNT; i++)
        rc = sqlite3_create_function_v2(g->db, FORBIDDEN[i].name, FORBIDDEN[i].arguments, OVERRIDE, NULL,
                                        forbidden_function, NULL, NULL, NULL);
    return rc;
}

/* After this the connection has none of these functions: SQLite deletes an override together with what it hid. */
int hq_functions_remove(hq_guard *g) {
    int rc = SQLITE_OK;
    for (int i = 0; rc == SQLITE_OK && g->role != HQ_ROLE_READER && i < FORBIDDEN_COUNT; i++)
        rc = sqlite3_create_function_v2(g->db, FORBIDDEN[i].name, FORBIDDEN[i].arguments, OVERRIDE, NULL, NULL, NULL,
                                        NULL, NULL);
    return rc;
}
