/* guard_strings.c: instr, replace and trim in time that is linear in their arguments; concat within the length of values.

   SQLite's own compare each place with the whole of the second argument. Nothing can interrupt a function, so with values
   of many megabytes one call would hold its thread for hours: the apply thread while a write is tried, or a reader's. These
   give the same results; only trim() takes no more than TRIM_OTHERS_MAX characters beyond ASCII to trim. SQLite's concat asks
   for memory for all its arguments: above 2 GiB that fails on every machine, and looks like the failure of this one. */
#define _GNU_SOURCE /* memmem */
#include <string.h>

#include "guard_parts.h"

enum { TRIM_OTHERS_MAX = 100, TRIM_LEFT = 1, TRIM_RIGHT = 2 };

static int continues(unsigned char byte) { return (byte & 0xC0) == 0x80; }

/* The same first place at which SQLite finds the needle: a text is gone through character by character. */
static const unsigned char *find(const unsigned char *hay, size_t size, const unsigned char *needle, size_t length,
                                 int is_text) {
    if (is_text && continues(needle[0])) /* no character but a broken first one begins so */
        return length <= size && memcmp(hay, needle, length) == 0 ? hay : NULL;
    return memmem(hay, size, needle, length);
}

static int place_in(const unsigned char *hay, size_t size, const unsigned char *needle, size_t length, int is_text) {
    const unsigned char *found = size ? find(hay, size, needle, length, is_text) : NULL;
    int place = found ? 1 : 0;
    for (const unsigned char *p = hay + 1; found && p <= found; p++)
        place += !is_text || !continues(*p);
    return place;
}

static void instr_function(sqlite3_context *context, int count, sqlite3_value **arguments) {
    int types[2] = {sqlite3_value_type(arguments[0]), sqlite3_value_type(arguments[1])};
    sqlite3_value *values[2] = {arguments[0], arguments[1]};
    (void)count;
    if (types[0] == SQLITE_NULL || types[1] == SQLITE_NULL)
        return;
    int is_text = types[0] != SQLITE_BLOB || types[1] != SQLITE_BLOB;
    for (int i = 0; i < 2; i++) /* a blob that is read as text must stay a blob for its owner */
        if (is_text && types[i] == SQLITE_BLOB)
            values[i] = sqlite3_value_dup(arguments[i]);
    const unsigned char *parts[2] = {NULL, NULL};
    size_t sizes[2] = {0, 0};
    int complete = 1;
    for (int i = 0; i < 2; i++) {
        if (values[i])
            parts[i] = is_text ? sqlite3_value_text(values[i]) : sqlite3_value_blob(values[i]);
        sizes[i] = values[i] ? (size_t)sqlite3_value_bytes(values[i]) : 0;
        complete = complete && values[i] && (parts[i] || sizes[i] == 0);
    }
    if (!complete)
        sqlite3_result_error_nomem(context);
    else
        sqlite3_result_int(context, sizes[1] == 0 ? 1 : place_in(parts[0], sizes[0], parts[1], sizes[1], is_text));
    for (int i = 0; i < 2; i++)
        if (values[i] != arguments[i])
            sqlite3_value_free(values[i]);
}

/* ------------------------------------------------------------------ replace */

static void replace_function(sqlite3_context *context, int count, sqlite3_value **arguments) {
    const unsigned char *text = sqlite3_value_text(arguments[0]);
    (void)count;
    if (!text)
        return;
    int64_t size = sqlite3_value_bytes(arguments[0]);
    const unsigned char *old = sqlite3_value_text(arguments[1]);
    if (!old)
        return;
    if (old[0] == 0) {
        sqlite3_result_text64(context, (const char *)text, (sqlite3_uint64)size, SQLITE_TRANSIENT, SQLITE_UTF8);
        return;
    }
    int64_t old_size = sqlite3_value_bytes(arguments[1]);
    const unsigned char *fresh = sqlite3_value_text(arguments[2]);
    if (!fresh)
        return;
    int64_t fresh_size = sqlite3_value_bytes(arguments[2]), made_size = size;
    int64_t limit = sqlite3_limit(sqlite3_context_db_handle(context), SQLITE_LIMIT_LENGTH, -1);
    const unsigned char *end = text + size, *found;
    for (const unsigned char *p = text; (found = memmem(p, (size_t)(end - p), old, (size_t)old_size)); p = found + old_size)
        made_size += fresh_size - old_size;
    if (made_size > limit || size + 1 > limit) {
        sqlite3_result_error_toobig(context);
        return;
    }
    unsigned char *made = sqlite3_malloc64((sqlite3_uint64)made_size + 1), *to = made;
    if (!made) {
        sqlite3_result_error_nomem(context);
        return;
    }
    while ((found = memmem(text, (size_t)(end - text), old, (size_t)old_size))) {
        memcpy(to, text, (size_t)(found - text));
        to += found - text;
        memcpy(to, fresh, (size_t)fresh_size);
        to += fresh_size;
        text = found + old_size;
    }
    memcpy(to, text, (size_t)(end - text));
    made[made_size] = 0;
    sqlite3_result_text64(context, (char *)made, (sqlite3_uint64)made_size, sqlite3_free, SQLITE_UTF8);
}

/* ------------------------------------------------------------------ concat */

static void join(sqlite3_context *context, int count, sqlite3_value **arguments, const char *separator, int64_t length) {
    int64_t limit = sqlite3_limit(sqlite3_context_db_handle(context), SQLITE_LIMIT_LENGTH, -1), size = 0;
    int joined = 0;
    for (int i = 0; i < count; i++)
        if (sqlite3_value_text(arguments[i]))
            size += sqlite3_value_bytes(arguments[i]) + (joined++ ? length : 0);
    if (size > limit) {
        sqlite3_result_error_toobig(context);
        return;
    }
    char *made = sqlite3_malloc64((sqlite3_uint64)size + 1), *to = made;
    if (!made) {
        sqlite3_result_error_nomem(context);
        return;
    }
    joined = 0;
    for (int i = 0; i < count; i++) {
        const unsigned char *text = sqlite3_value_text(arguments[i]);
        if (!text)
            continue;
        if (joined++) {
            memcpy(to, separator, (size_t)length);
            to += length;
        }
        memcpy(to, text, (size_t)sqlite3_value_bytes(arguments[i]));
        to += sqlite3_value_bytes(arguments[i]);
    }
    *to = 0;
    sqlite3_result_text64(context, made, (sqlite3_uint64)size, sqlite3_free, SQLITE_UTF8);
}

static void concat_function(sqlite3_context *context, int count, sqlite3_value **arguments) {
    join(context, count, arguments, "", 0);
}

static void concat_ws_function(sqlite3_context *context, int count, sqlite3_value **arguments) {
    const char *separator = (const char *)sqlite3_value_text(arguments[0]);
    if (separator)
        join(context, count - 1, arguments + 1, separator, sqlite3_value_bytes(arguments[0]));
}

/* ------------------------------------------------------------------ trim */

typedef struct set {
    unsigned char ascii[128];
    const unsigned char *others[TRIM_OTHERS_MAX]; /* in the order of the text */
    size_t sizes[TRIM_OTHERS_MAX];
    int count;
} set;

/* 0: there are too many. Characters are cut as SQLite cuts them, broken ones included. */
static int read_set(set *s, const unsigned char *text) {
    memset(s, 0, sizeof *s);
    while (*text) {
        const unsigned char *begin = text++;
        if (*begin >= 0xC0)
            while (continues(*text))
                text++;
        if (*begin < 0x80) {
            s->ascii[*begin] = 1;
            continue;
        }
        if (s->count == TRIM_OTHERS_MAX)
            return 0;
        s->others[s->count] = begin;
        s->sizes[s->count++] = (size_t)(text - begin);
    }
    return 1;
}

/* Bytes of the character at the begin (or the end) that is of the set; 0: it is not. */
static size_t in_set(const set *s, const unsigned char *text, size_t size, int at_end) {
    unsigned char byte = at_end ? text[size - 1] : text[0];
    if (byte < 0x80)
        return s->ascii[byte];
    for (int i = 0; i < s->count; i++)
        if (s->sizes[i] <= size && memcmp(at_end ? text + size - s->sizes[i] : text, s->others[i], s->sizes[i]) == 0)
            return s->sizes[i];
    return 0;
}

static void trim_function(sqlite3_context *context, int count, sqlite3_value **arguments) {
    int sides = (int)(intptr_t)sqlite3_user_data(context);
    const unsigned char *chars = (const unsigned char *)" ";
    set s;
    if (sqlite3_value_type(arguments[0]) == SQLITE_NULL)
        return;
    const unsigned char *text = sqlite3_value_text(arguments[0]);
    if (!text)
        return;
    size_t size = (size_t)sqlite3_value_bytes(arguments[0]), part;
    if (count == 2 && !(chars = sqlite3_value_text(arguments[1])))
        return;
    if (!read_set(&s, chars)) {
        sqlite3_result_error(context, "trim() was given too many characters beyond ASCII", -1);
        return;
    }
    while ((sides & TRIM_LEFT) && size > 0 && (part = in_set(&s, text, size, 0)) > 0) {
        text += part;
        size -= part;
    }
    while ((sides & TRIM_RIGHT) && size > 0 && (part = in_set(&s, text, size, 1)) > 0)
        size -= part;
    sqlite3_result_text64(context, (const char *)text, size, SQLITE_TRANSIENT, SQLITE_UTF8);
}

/* ------------------------------------------------------------------ the table */

#define FLAGS (SQLITE_UTF8 | SQLITE_INNOCUOUS | SQLITE_DETERMINISTIC)

static int make(hq_guard *g, const char *name, int count, void (*function)(sqlite3_context *, int, sqlite3_value **)) {
    return sqlite3_create_function_v2(g->db, name, count, FLAGS, NULL, function, NULL, NULL, NULL);
}

/* Of any number of arguments from `least` on. One that was made and taken away again is known to SQLite as none of that
   number: it says so while it prepares, else only where it is called, and a schema could hold what no connection opens. */
static int make_any(hq_guard *g, const char *name, int least, void (*function)(sqlite3_context *, int, sqlite3_value **)) {
    int rc = make(g, name, -1, function);
    for (int count = 0; rc == SQLITE_OK && count < least; count++) {
        rc = make(g, name, count, function);
        if (rc == SQLITE_OK)
            rc = make(g, name, count, NULL);
    }
    return rc;
}

int hq_strings_install(hq_guard *g) {
    static const struct {
        const char *name;
        int sides;
    } trims[] = {{"ltrim", TRIM_LEFT}, {"rtrim", TRIM_RIGHT}, {"trim", TRIM_LEFT | TRIM_RIGHT}};
    int rc = make(g, "instr", 2, instr_function);
    if (rc == SQLITE_OK)
        rc = make(g, "replace", 3, replace_function);
    if (rc == SQLITE_OK)
        rc = make_any(g, "concat", 1, concat_function);
    if (rc == SQLITE_OK)
        rc = make_any(g, "concat_ws", 2, concat_ws_function);
    for (int i = 0; rc == SQLITE_OK && i < 6; i++)
        rc = sqlite3_create_function_v2(g->db, trims[i / 2].name, 1 + i % 2, FLAGS, (void *)(intptr_t)trims[i / 2].sides,
                                        trim_function, NULL, NULL, NULL);
    return rc;
}
