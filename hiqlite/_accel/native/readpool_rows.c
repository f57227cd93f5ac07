/* Parameters out of bytes, rows into bytes: values as in docs/formats.md section 1, row after row.
 *
 * Invariant: no byte outside the given ranges is read or written; a row stands in a chunk whole or not at all. */
#include <stdlib.h>
#include <string.h>

#include "readpool.h"
#include "value.h"

static int bind_value(sqlite3_stmt *statement, int at, const hq_value *value) {
    switch (value->tag) {
    case HQ_INTEGER:
        return sqlite3_bind_int64(statement, at, value->integer);
    case HQ_REAL:
        return sqlite3_bind_double(statement, at, value->real);
    case HQ_TEXT:
        return sqlite3_bind_text64(statement, at, (const char *)value->bytes, value->size, SQLITE_STATIC, SQLITE_UTF8);
    case HQ_BLOB:
        return sqlite3_bind_blob64(statement, at, value->bytes, value->size, SQLITE_STATIC);
    default:
        return sqlite3_bind_null(statement, at);
    }
}

/* Index of the parameter that is called `name` behind its `:`, `@` or `$`; 0 when there is none. */
static int named_index(sqlite3_stmt *statement, int wanted, const uint8_t *name, size_t size) {
    for (int i = 1; i <= wanted; i++) {
        const char *own = sqlite3_bind_parameter_name(statement, i);
        if (own != NULL && own[0] != '?' && strlen(own + 1) == size && memcmp(own + 1, name, size) == 0)
            return i;
    }
    return 0;
}

static int bind_named(sqlite3 *db, sqlite3_stmt *statement, hq_cursor *at, uint32_t count, int wanted,
                      hq_read_error *error) {
    int bound = 0;
    for (uint32_t k = 0; k < count; k++) {
        hq_value value;
        if (hq_left(at) < 2 || hq_left(at) - 2 < hq_get_u16(at->p)) {
            hq_read_fail(error, HQ_READ_PARAMETER, 0, "the parameters' bytes are damaged");
            return error->kind;
        }
        size_t size = hq_get_u16(at->p);
        const uint8_t *name = at->p + 2;
        at->p += 2 + size;
        if (hq_value_read(at, 0, &value) != HQ_VALUE_OK) {
            hq_read_fail(error, HQ_READ_PARAMETER, 0, "the parameters' bytes are damaged");
            return error->kind;
        }
        int index = named_index(statement, wanted, name, size), code = SQLITE_OK;
        if (index == 0)
            hq_read_fail(error, HQ_READ_PARAMETER, 0, "the statement has no parameter named '%.*s'",
                         (int)(size < 100 ? size : 100), (const char *)name);
        /* One name may stand with several prefixes (:a and @a): all of them are that value. */
        for (; index != 0 && index <= wanted && code == SQLITE_OK; index++) {
            const char *own = sqlite3_bind_parameter_name(statement, index);
            if (own == NULL || own[0] == '?' || strlen(own + 1) != size || memcmp(own + 1, name, size) != 0)
                continue;
            code = bind_value(statement, index, &value);
            bound++;
        }
        if (code != SQLITE_OK)
            hq_read_fail_sqlite(error, db, code);
        if (error->kind != HQ_READ_OK)
            return error->kind;
    }
    if (bound < wanted)
        hq_read_fail(error, HQ_READ_PARAMETER, 0, "the statement has %d parameters, the mapping gives %d of them",
                     wanted, bound);
    return error->kind;
}

int hq_reads_bind(sqlite3 *db, sqlite3_stmt *statement, const uint8_t *data, size_t size, uint32_t count, int named,
                  hq_read_error *error) {
    int wanted = sqlite3_bind_parameter_count(statement);
    hq_cursor at = {data, data + size};
    error->kind = HQ_READ_OK;
    if (named)
        return bind_named(db, statement, &at, count, wanted, error);
    if (count != (uint32_t)wanted) {
        hq_read_fail(error, HQ_READ_PARAMETER, 0, "the statement has %d parameters, %u were given", wanted, count);
        return error->kind;
    }
    for (int i = 1; i <= wanted && error->kind == HQ_READ_OK; i++) {
        hq_value value;
        if (hq_value_read(&at, 0, &value) != HQ_VALUE_OK) {
            hq_read_fail(error, HQ_READ_PARAMETER, 0, "the parameters' bytes are damaged");
            break;
        }
        int code = bind_value(statement, i, &value);
        if (code != SQLITE_OK)
            hq_read_fail_sqlite(error, db, code);
    }
    return error->kind;
}

hq_chunk *hq_chunk_new(size_t capacity) {
    hq_chunk *chunk = malloc(sizeof *chunk + capacity);
    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->size = 0;
        chunk->capacity = capacity;
        chunk->rows = 0;
    }
    return chunk;
}

/* Bytes that the current row takes, or 0 when SQLite had no memory to hand a value out. */
static size_t row_size(sqlite3_stmt *statement, int columns) {
    size_t need = 0;
    for (int i = 0; i < columns; i++) {
        switch (sqlite3_column_type(statement, i)) {
        case SQLITE_INTEGER:
        case SQLITE_FLOAT:
            need += 9;
            break;
        case SQLITE_TEXT: /* the order matters: _text first, then _bytes tells its size */
            if (sqlite3_column_text(statement, i) == NULL)
                return 0;
            need += 5 + (size_t)sqlite3_column_bytes(statement, i);
            break;
        case SQLITE_BLOB: /* a zeroblob is not made before there is room for it */
            need += 5 + (size_t)sqlite3_column_bytes(statement, i);
            break;
        default:
            need += 1;
        }
    }
    return need;
}

static uint8_t *put_sized(uint8_t *at, uint8_t tag, const void *bytes, uint32_t size) {
    *at = tag;
    hq_put_u32(at + 1, size);
    if (size > 0)
        memcpy(at + 5, bytes, size);
    return at + 5 + size;
}

int hq_chunk_add_row(hq_chunk *chunk, sqlite3_stmt *statement, int columns, size_t *need) {
    *need = row_size(statement, columns);
    if (*need == 0)
        return HQ_ROW_MEMORY;
    if (chunk == NULL || chunk->capacity - chunk->size < *need)
        return HQ_ROW_NO_ROOM;
    uint8_t *at = chunk->data + chunk->size;
    for (int i = 0; i < columns; i++) {
        switch (sqlite3_column_type(statement, i)) {
        case SQLITE_INTEGER:
            *at = HQ_INTEGER;
            hq_put_i64(at + 1, sqlite3_column_int64(statement, i));
            at += 9;
            break;
        case SQLITE_FLOAT:
            *at = HQ_REAL;
            hq_put_f64(at + 1, sqlite3_column_double(statement, i));
            at += 9;
            break;
        case SQLITE_TEXT:
            at = put_sized(at, HQ_TEXT, sqlite3_column_text(statement, i), (uint32_t)sqlite3_column_bytes(statement, i));
            break;
        case SQLITE_BLOB: {
            const void *bytes = sqlite3_column_blob(statement, i);
            uint32_t size = (uint32_t)sqlite3_column_bytes(statement, i);
            if (bytes == NULL && size > 0)
                return HQ_ROW_MEMORY;
            at = put_sized(at, HQ_BLOB, bytes, size);
            break;
        }
        default:
            *at++ = HQ_NULL;
        }
    }
    chunk->size += *need;
    chunk->rows++;
    return HQ_ROW_ADDED;
}

uint8_t *hq_column_names(sqlite3_stmt *statement, size_t *size) {
    int columns = sqlite3_column_count(statement);
    size_t total = 4;
    for (int i = 0; i < columns; i++) {
        const char *name = sqlite3_column_name(statement, i);
        if (name == NULL)
            return NULL;
        size_t length = strlen(name);
        total += 2 + (length < 65535 ? length : 65535);
    }
    uint8_t *bytes = malloc(total), *at = bytes;
    if (bytes == NULL)
        return NULL;
    hq_put_u32(at, (uint32_t)columns);
    at += 4;
    for (int i = 0; i < columns; i++) {
        const char *name = sqlite3_column_name(statement, i);
        size_t length = strlen(name);
        length = length < 65535 ? length : 65535;
        hq_put_u16(at, (uint16_t)length);
        memcpy(at + 2, name, length);
        at += 2 + length;
    }
    *size = total;
    return bytes;
}
