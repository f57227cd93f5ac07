/* apply_answer.c: answers (docs/formats.md section 4), written behind one another into the run's buffer.

   Must not run SQL; it reads the current row of a statement. Invariant: the running hash has seen exactly what an answer
   holds that every node must agree on (index, status, kinds, codes, rows affected, row counts), and no message text. */
#include <stdlib.h>
#include <string.h>

#include "apply.h"

int hq_buffer_reserve(hq_buffer *buffer, size_t more) {
    if (buffer->capacity - buffer->size >= more)
        return 0;
    size_t capacity = buffer->capacity ? buffer->capacity : 4096;
    while (capacity - buffer->size < more) {
        if (capacity > SIZE_MAX / 2)
            return -1;
        capacity *= 2;
    }
    uint8_t *data = realloc(buffer->data, capacity);
    if (!data)
        return -1;
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

/* Room for `more` bytes of the entry's answer. */
static hq_outcome answer_reserve(hq_apply *w, size_t more) {
    if (hq_buffer_reserve(&w->answers, more) != 0)
        return hq_stop(w, SQLITE_NOMEM, "no memory for an answer");
    return HQ_OK;
}

/* Forgets what the entry answered so far; its header is written by hq_answer_end. */
void hq_answer_begin(hq_apply *w) {
    w->answers.size = w->entry_at + HQ_ANSWER_HEADER;
    w->result_count = 0;
}

/* Walks the finished answer once: its header, and its share of the running hash. */
hq_outcome hq_answer_end(hq_apply *w, enum hq_status status, uint64_t index) {
    uint8_t *p = w->answers.data + w->entry_at;
    const uint8_t *end = w->answers.data + w->answers.size;
    uint64_t hash = hq_hash_add(hq_hash_add(w->hash, index), (uint64_t)status);
    p[0] = HQ_ANSWER_VERSION;
    p[1] = (uint8_t)status;
    hq_put_u16(p + 2, 0);
    hq_put_u32(p + 4, w->result_count);
    for (p += HQ_ANSWER_HEADER; p < end; p += HQ_RESULT_HEADER + hq_get_u32(p + 4)) {
        uint64_t detail = 0;
        if (p[0] == HQ_RESULT_ERROR)
            detail = (uint32_t)hq_get_i32(p + HQ_RESULT_HEADER + 4);
        else if (p[0] == HQ_RESULT_ROWS)
            detail = hq_get_u32(p + HQ_RESULT_HEADER + 4);
        hash = hq_hash_add(hash, (detail << 8) | p[0]);
        hash = hq_hash_add(hash, hq_get_u64(p + 8));
    }
    w->hash = hash;
    return HQ_OK;
}

/* The answer of a write whose first one was not kept. */
hq_outcome hq_answer_not_kept(hq_apply *w) {
    hq_error_set(w, HQ_CLASS_NOT_KEPT, 0, "the write was applied; its answer was too large to be kept");
    hq_outcome outcome = hq_answer_error(w, &w->error, 0);
    return outcome == HQ_OK ? hq_answer_end(w, HQ_STATUS_PARTIAL, w->index) : outcome;
}

/* The finished answer was given before, by entry `index`. */
hq_outcome hq_answer_of(hq_apply *w, uint64_t index) {
    if (answer_reserve(w, 8) != HQ_OK)
        return HQ_STOP;
    hq_put_u16(w->answers.data + w->entry_at + 2, HQ_ANSWER_REPEATED);
    hq_put_u64(w->answers.data + w->answers.size, index);
    w->answers.size += 8;
    w->hash = hq_hash_add(w->hash, index);
    return HQ_OK;
}

/* Gives the bytes of an earlier answer again; one that was itself given again names its first entry already. */
hq_outcome hq_answer_again(hq_apply *w, const uint8_t *answer, size_t size, uint64_t index) {
    w->answers.size = w->entry_at;
    if (answer_reserve(w, size) != HQ_OK)
        return HQ_STOP;
    memcpy(w->answers.data + w->entry_at, answer, size);
    w->answers.size += size;
    w->hash = hq_hash_add(hq_hash_add(w->hash, w->index), 0x100u | answer[1]);
    return hq_get_u16(answer + 2) == 0 ? hq_answer_of(w, index) : HQ_OK;
}

static void result_header(uint8_t *p, uint8_t kind, uint32_t tail, int64_t rows_affected, int64_t rowid) {
    memset(p, 0, 4);
    p[0] = kind;
    hq_put_u32(p + 4, tail);
    hq_put_i64(p + 8, rows_affected);
    hq_put_i64(p + 16, rowid);
}

hq_outcome hq_answer_done(hq_apply *w, int64_t rows_affected, int64_t rowid) {
    if (answer_reserve(w, HQ_RESULT_HEADER) != HQ_OK)
        return HQ_STOP;
    result_header(w->answers.data + w->answers.size, HQ_RESULT_DONE, 0, rows_affected, rowid);
    w->answers.size += HQ_RESULT_HEADER;
    w->result_count++;
    return HQ_OK;
}

/* A batch may fail a million times: from a quarter of the limit on, its errors come without their words. `part_remains`
   is told of a statement of a batch; of an entry its status tells it. */
hq_outcome hq_answer_error(hq_apply *w, const hq_error *error, int part_remains) {
    uint32_t size = w->answers.size - w->entry_at > HQ_ANSWER_BYTES_MAX / 4 ? 0 : error->size;
    if (answer_reserve(w, HQ_RESULT_HEADER + 16 + (size_t)size) != HQ_OK)
        return HQ_STOP;
    uint8_t *p = w->answers.data + w->answers.size;
    result_header(p, HQ_RESULT_ERROR, 16 + size, 0, part_remains);
    p += HQ_RESULT_HEADER;
    hq_put_u16(p, error->class_);
    hq_put_u16(p + 2, 0);
    hq_put_u32(p + 4, (uint32_t)error->code);
    hq_put_u32(p + 8, error->statement);
    hq_put_u32(p + 12, size);
    memcpy(p + 16, error->message, size);
    w->answers.size += HQ_RESULT_HEADER + 16 + (size_t)size;
    w->result_count++;
    return HQ_OK;
}

/* ------------------------------------------------------------------ rows */

static hq_outcome too_many(hq_apply *w) {
    hq_error_set(w, HQ_CLASS_STATEMENT, SQLITE_TOOBIG, "the rows returned by one write may not exceed %d MiB",
                 HQ_ANSWER_BYTES_MAX >> 20);
    return HQ_UNDO;
}

/* Opens a rows result; `at` becomes its place. Column names are written at once: they are known before the first row. */
hq_outcome hq_rows_begin(hq_apply *w, sqlite3_stmt *stmt, size_t *at) {
    int columns = sqlite3_column_count(stmt);
    *at = w->answers.size;
    if (answer_reserve(w, HQ_RESULT_HEADER + 8) != HQ_OK)
        return HQ_STOP;
    hq_put_u32(w->answers.data + w->answers.size + HQ_RESULT_HEADER, (uint32_t)columns);
    w->answers.size += HQ_RESULT_HEADER + 8;
    for (int i = 0; i < columns; i++) {
        const char *name = sqlite3_column_name(stmt, i);
        if (!name)
            return hq_stop(w, SQLITE_NOMEM, "no memory for the name of a column");
        size_t size = strlen(name);
        if (size > UINT16_MAX)
            size = UINT16_MAX;
        if (answer_reserve(w, 2 + size) != HQ_OK)
            return HQ_STOP;
        hq_put_u16(w->answers.data + w->answers.size, (uint16_t)size);
        memcpy(w->answers.data + w->answers.size + 2, name, size);
        w->answers.size += 2 + size;
    }
    return HQ_OK;
}

static hq_outcome add_bytes(hq_apply *w, uint8_t tag, const void *bytes, size_t size) {
    if (!bytes && size > 0)
        return hq_stop(w, SQLITE_NOMEM, "no memory for a column");
    if (w->answers.size - w->entry_at + 5 + size > HQ_ANSWER_BYTES_MAX)
        return too_many(w);
    if (answer_reserve(w, 5 + size) != HQ_OK)
        return HQ_STOP;
    uint8_t *p = w->answers.data + w->answers.size;
    p[0] = tag;
    hq_put_u32(p + 1, (uint32_t)size);
    if (size > 0)
        memcpy(p + 5, bytes, size);
    w->answers.size += 5 + size;
    return HQ_OK;
}

static hq_outcome add_column(hq_apply *w, sqlite3_stmt *stmt, int column) {
    uint8_t *p = w->answers.data + w->answers.size; /* nine bytes are there */
    const void *bytes;
    switch (sqlite3_column_type(stmt, column)) {
    case SQLITE_INTEGER:
        p[0] = HQ_INTEGER;
        hq_put_i64(p + 1, sqlite3_column_int64(stmt, column));
        w->answers.size += 9;
        return HQ_OK;
    case SQLITE_FLOAT:
        p[0] = HQ_REAL;
        hq_put_f64(p + 1, sqlite3_column_double(stmt, column));
        w->answers.size += 9;
        return HQ_OK;
    case SQLITE_TEXT:
        bytes = sqlite3_column_text(stmt, column);
        return add_bytes(w, HQ_TEXT, bytes, (size_t)sqlite3_column_bytes(stmt, column));
    case SQLITE_BLOB:
        bytes = sqlite3_column_blob(stmt, column);
        return add_bytes(w, HQ_BLOB, bytes, (size_t)sqlite3_column_bytes(stmt, column));
    default:
        p[0] = HQ_NULL;
        w->answers.size += 1;
        return HQ_OK;
    }
}

/* Appends the statement's current row. */
hq_outcome hq_rows_add(hq_apply *w, sqlite3_stmt *stmt) {
    int columns = sqlite3_data_count(stmt);
    for (int i = 0; i < columns; i++) {
        if (w->answers.size - w->entry_at + 9 > HQ_ANSWER_BYTES_MAX)
            return too_many(w);
        if (answer_reserve(w, 9) != HQ_OK)
            return HQ_STOP;
        hq_outcome outcome = add_column(w, stmt, i);
        if (outcome != HQ_OK)
            return outcome;
    }
    return HQ_OK;
}

void hq_rows_end(hq_apply *w, size_t at, uint32_t row_count, int64_t rows_affected, int64_t rowid) {
    uint8_t *p = w->answers.data + at;
    uint32_t tail = (uint32_t)(w->answers.size - at - HQ_RESULT_HEADER);
    result_header(p, HQ_RESULT_ROWS, tail, rows_affected, rowid);
    hq_put_u32(p + HQ_RESULT_HEADER + 4, row_count);
    w->result_count++;
}
