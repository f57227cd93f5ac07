/* Values (docs/formats.md section 1), read from bytes that may be hostile.
 *
 * Must not know where the bytes come from, Python, or SQLite. Invariant: a cursor never passes its end; what a
 * function gave back points into the bytes it was given and lives as long as they do. */
#ifndef HQ_VALUE_H
#define HQ_VALUE_H

#include "bytes.h"

enum hq_tag {
    HQ_NULL = 0,
    HQ_INTEGER = 1,
    HQ_REAL = 2,
    HQ_TEXT = 3,
    HQ_BLOB = 4,
    HQ_REF_NUMBER = 5, /* column of an earlier statement's RETURNING, by number */
    HQ_REF_NAME = 6,   /* ... by name */
};

enum hq_value_code {
    HQ_VALUE_OK = 0,
    HQ_VALUE_SHORT = 1,   /* the bytes end inside it */
    HQ_VALUE_BAD_TAG = 2, /* no such tag, or a reference where none may stand */
    HQ_VALUE_BAD_REAL = 3 /* NaN: SQLite would store NULL, so it has no encoding */
};

typedef struct hq_value {
    uint8_t tag;
    uint32_t size;         /* of bytes: TEXT, BLOB, name of HQ_REF_NAME */
    const uint8_t *bytes;  /* not 0-terminated; never NULL for a TEXT or BLOB, so that an empty BLOB is no NULL */
    int64_t integer;
    double real;
    uint32_t statement;    /* HQ_REF_*: which earlier statement of the txn, from 0 */
    uint32_t column;       /* HQ_REF_NUMBER */
} hq_value;

static inline enum hq_value_code hq_sized_read(hq_cursor *at, const uint8_t **bytes, uint32_t *size) {
    if (hq_left(at) < 4)
        return HQ_VALUE_SHORT;
    uint32_t n = hq_get_u32(at->p);
    if (hq_left(at) - 4 < n)
        return HQ_VALUE_SHORT;
    *bytes = at->p + 4;
    *size = n;
    at->p += 4 + (size_t)n;
    return HQ_VALUE_OK;
}

static inline enum hq_value_code hq_reference_read(hq_cursor *at, hq_value *value) {
    if (hq_left(at) < 8)
        return HQ_VALUE_SHORT;
    value->statement = hq_get_u32(at->p);
    at->p += 4;
    if (value->tag == HQ_REF_NAME)
        return hq_sized_read(at, &value->bytes, &value->size);
    value->column = hq_get_u32(at->p);
    at->p += 4;
    return HQ_VALUE_OK;
}

/* Reads one value, moves the cursor behind it. On failure the cursor's place is of no meaning. */
static inline enum hq_value_code hq_value_read(hq_cursor *at, int references_allowed, hq_value *value) {
    if (at->p >= at->end)
        return HQ_VALUE_SHORT;
    value->tag = *at->p++;
    switch (value->tag) {
    case HQ_NULL:
        return HQ_VALUE_OK;
    case HQ_INTEGER:
        if (hq_left(at) < 8)
            return HQ_VALUE_SHORT;
        value->integer = hq_get_i64(at->p);
        at->p += 8;
        return HQ_VALUE_OK;
    case HQ_REAL:
        if (hq_left(at) < 8)
            return HQ_VALUE_SHORT;
        value->real = hq_get_f64(at->p);
        at->p += 8;
        return value->real == value->real ? HQ_VALUE_OK : HQ_VALUE_BAD_REAL;
    case HQ_TEXT:
    case HQ_BLOB:
        return hq_sized_read(at, &value->bytes, &value->size);
    case HQ_REF_NUMBER:
    case HQ_REF_NAME:
        return references_allowed ? hq_reference_read(at, value) : HQ_VALUE_BAD_TAG;
    default:
        return HQ_VALUE_BAD_TAG;
    }
}

#endif
