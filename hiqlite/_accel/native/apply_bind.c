/* apply_bind.c: parameters, bound straight from the record's bytes.

   Values are bound without a copy: the record outlives the step, and every parameter is bound anew before the next one.
   A sequence binds by position, or by number where the text says $1, $2 ...; a mapping binds every parameter of that name,
   whichever prefix it has. Invariant: OK means that each parameter of the statement was bound by this call. */
#include <stdlib.h>
#include <string.h>

#include "apply.h"

enum { NAMES_ON_STACK = 16 };

/* ------------------------------------------------------------------ references to earlier rows */

/* A column of the first row of result `r`, which is a rows result with at least one row. */
static int find_value(const uint8_t *r, uint32_t column, hq_value *value) {
    uint32_t columns = hq_get_u32(r + HQ_RESULT_HEADER);
    hq_cursor at = {r + HQ_RESULT_HEADER + 8, r + HQ_RESULT_HEADER + hq_get_u32(r + 4)};
    for (uint32_t i = 0; i < columns; i++)
        at.p += 2 + (size_t)hq_get_u16(at.p);
    for (uint32_t i = 0; i <= column; i++)
        if (hq_value_read(&at, 0, value) != HQ_VALUE_OK)
            return 0;
    return 1;
}

/* Number of the column of that name: -1 there is none, -2 it occurs twice. */
static int find_column(const uint8_t *r, const uint8_t *name, uint32_t size) {
    uint32_t columns = hq_get_u32(r + HQ_RESULT_HEADER);
    const uint8_t *p = r + HQ_RESULT_HEADER + 8;
    int found = -1;
    for (uint32_t i = 0; i < columns; i++) {
        uint16_t n = hq_get_u16(p);
        if (n == size && memcmp(p + 2, name, n) == 0)
            found = found == -1 ? (int)i : -2;
        p += 2 + (size_t)n;
    }
    return found;
}

static hq_outcome usage(hq_apply *w, const char *what, uint32_t statement) {
    hq_error_set(w, HQ_CLASS_USAGE, 0, "%s (reference to statement %u)", what, statement);
    return HQ_FAILED;
}

/* Turns a reference into the value it stands for. */
static hq_outcome resolve(hq_apply *w, const hq_value *reference, hq_value *value) {
    uint32_t statement = reference->statement;
    if (statement >= w->result_count)
        return usage(w, "a reference must be to an earlier statement", statement);
    const uint8_t *r = w->answers.data + w->entry_at + w->results[statement];
    if (r[0] != HQ_RESULT_ROWS)
        return usage(w, "the statement has no RETURNING clause", statement);
    int column;
    if (reference->tag == HQ_REF_NAME) {
        column = find_column(r, reference->bytes, reference->size);
        if (column == -2)
            return usage(w, "the name occurs twice among the columns; refer by number", statement);
    } else {
        column = reference->column < hq_get_u32(r + HQ_RESULT_HEADER) ? (int)reference->column : -1;
    }
    if (column < 0)
        return usage(w, "there is no such column", statement);
    if (hq_get_u32(r + HQ_RESULT_HEADER + 4) == 0) {
        hq_error_set(w, HQ_CLASS_EXPECTATION, 0, "statement %u returned no row to refer to", statement);
        return HQ_FAILED;
    }
    if (!find_value(r, (uint32_t)column, value))
        return hq_stop(w, SQLITE_INTERNAL, "an answer of our own cannot be read");
    return HQ_OK;
}

/* ------------------------------------------------------------------ one value */

static hq_outcome bind_value(hq_apply *w, sqlite3_stmt *stmt, int i, const hq_value *value) {
    hq_value resolved;
    sqlite3_destructor_type life = SQLITE_STATIC;
    int rc;
    if (value->tag >= HQ_REF_NUMBER) {
        hq_outcome outcome = resolve(w, value, &resolved);
        if (outcome != HQ_OK)
            return outcome;
        value = &resolved;
        life = SQLITE_TRANSIENT; /* it lies in the answers, which move when they grow */
    }
    switch (value->tag) {
    case HQ_INTEGER:
        rc = sqlite3_bind_int64(stmt, i, value->integer);
        break;
    case HQ_REAL:
        rc = sqlite3_bind_double(stmt, i, value->real);
        break;
    case HQ_TEXT:
        rc = sqlite3_bind_text64(stmt, i, (const char *)value->bytes, value->size, life, SQLITE_UTF8);
        break;
    case HQ_BLOB:
        rc = sqlite3_bind_blob64(stmt, i, value->bytes, value->size, life);
        break;
    default:
        rc = sqlite3_bind_null(stmt, i);
        break;
    }
    return rc == SQLITE_OK ? HQ_OK : hq_sqlite_error(w);
}

static hq_outcome malformed(hq_apply *w) {
    hq_error_set(w, HQ_CLASS_USAGE, 0, "the command is malformed");
    return HQ_FAILED;
}

static hq_outcome wrong_count(hq_apply *w, const hq_statement *s, const hq_prepared *p) {
    hq_error_set(w, HQ_CLASS_PARAMETER, 0, "the statement takes %d parameters, %u were given", p->parameters,
                 s->parameter_count);
    return HQ_FAILED;
}

/* ------------------------------------------------------------------ a sequence */

/* Which of the given values belongs to parameter i (from 1) of a text with $1, $2 ...; 0 if none. */
static uint32_t number_of(const hq_prepared *p, int i) {
    const char *name = sqlite3_bind_parameter_name(p->stmt, i);
    char *rest;
    if (!name || name[0] != '$')
        return (uint32_t)i;
    unsigned long number = strtoul(name + 1, &rest, 10);
    if (*rest != 0 || rest == name + 1)
        return (uint32_t)i;
    return number <= HQ_PARAMETERS_MAX ? (uint32_t)number : 0;
}

static hq_outcome bind_numbered(hq_apply *w, const hq_command *c, const hq_statement *s, const hq_prepared *p) {
    hq_parameter *given = malloc(sizeof *given * (s->parameter_count + 1));
    hq_cursor in = s->parameters;
    hq_outcome outcome = HQ_OK;
    uint32_t count = 0;
    if (!given)
        return hq_stop(w, SQLITE_NOMEM, "no memory for parameters");
    while (count < s->parameter_count && hq_parameter_next(c, s, &in, &given[count]) == 1)
        count++;
    if (count != s->parameter_count)
        outcome = malformed(w);
    for (int i = 1; outcome == HQ_OK && i <= p->parameters; i++) {
        uint32_t number = number_of(p, i);
        if (number < 1 || number > count) {
            hq_error_set(w, HQ_CLASS_PARAMETER, 0, "there is no value for parameter %s",
                         sqlite3_bind_parameter_name(p->stmt, i));
            outcome = HQ_FAILED;
        } else {
            outcome = bind_value(w, p->stmt, i, &given[number - 1].value);
        }
    }
    free(given);
    return outcome;
}

static hq_outcome bind_sequence(hq_apply *w, const hq_command *c, const hq_statement *s, const hq_prepared *p) {
    hq_cursor in = s->parameters;
    hq_parameter parameter;
    if ((uint32_t)p->parameters != s->parameter_count)
        return wrong_count(w, s, p);
    if (p->numbered)
        return bind_numbered(w, c, s, p);
    for (int i = 1; i <= p->parameters; i++) {
        if (hq_parameter_next(c, s, &in, &parameter) != 1)
            return malformed(w);
        hq_outcome outcome = bind_value(w, p->stmt, i, &parameter.value);
        if (outcome != HQ_OK)
            return outcome;
    }
    return in.p == in.end ? HQ_OK : malformed(w);
}

/* ------------------------------------------------------------------ a mapping */

typedef struct given_name {
    hq_parameter parameter;
    int32_t next; /* same bucket, -1: the last */
    int used;
} given_name;

static uint32_t hash_name(const uint8_t *name, size_t size) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ name[i]) * 16777619u;
    return hash;
}

static given_name *find_given(given_name *given, const int32_t *buckets, uint32_t mask, const char *name, size_t size) {
    int32_t i = buckets[hash_name((const uint8_t *)name, size) & mask];
    while (i >= 0) {
        if (given[i].parameter.name_size == size && memcmp(given[i].parameter.name, name, size) == 0)
            return &given[i];
        i = given[i].next;
    }
    return NULL;
}

/* Reads the given names into a table. */
static hq_outcome read_given(hq_apply *w, const hq_command *c, const hq_statement *s, given_name *given,
                             int32_t *buckets, uint32_t mask) {
    hq_cursor in = s->parameters;
    for (uint32_t i = 0; i <= mask; i++)
        buckets[i] = -1;
    for (uint32_t i = 0; i < s->parameter_count; i++) {
        hq_parameter *parameter = &given[i].parameter;
        if (hq_parameter_next(c, s, &in, parameter) != 1)
            return malformed(w);
        if (find_given(given, buckets, mask, (const char *)parameter->name, parameter->name_size)) {
            hq_error_set(w, HQ_CLASS_PARAMETER, 0, "parameter %.*s is given twice", (int)parameter->name_size,
                         (const char *)parameter->name);
            return HQ_FAILED;
        }
        int32_t *bucket = &buckets[hash_name(parameter->name, parameter->name_size) & mask];
        given[i].next = *bucket;
        given[i].used = 0;
        *bucket = (int32_t)i;
    }
    return in.p == in.end ? HQ_OK : malformed(w);
}

static hq_outcome bind_given(hq_apply *w, const hq_statement *s, const hq_prepared *p, given_name *given,
                             const int32_t *buckets, uint32_t mask) {
    for (int i = 1; i <= p->parameters; i++) {
        const char *name = sqlite3_bind_parameter_name(p->stmt, i);
        if (!name || name[0] == '?') {
            hq_error_set(w, HQ_CLASS_PARAMETER, 0, "parameter %d has no name; a mapping cannot bind it", i);
            return HQ_FAILED;
        }
        given_name *found = find_given(given, buckets, mask, name + 1, strlen(name + 1));
        if (!found) {
            hq_error_set(w, HQ_CLASS_PARAMETER, 0, "there is no value for parameter %.200s", name);
            return HQ_FAILED;
        }
        found->used = 1;
        hq_outcome outcome = bind_value(w, p->stmt, i, &found->parameter.value);
        if (outcome != HQ_OK)
            return outcome;
    }
    for (uint32_t i = 0; i < s->parameter_count; i++) {
        if (!given[i].used) {
            const hq_parameter *unused = &given[i].parameter;
            hq_error_set(w, HQ_CLASS_PARAMETER, 0, "the statement has no parameter %.*s",
                         (int)(unused->name_size > 200 ? 200 : unused->name_size), (const char *)unused->name);
            return HQ_FAILED;
        }
    }
    return HQ_OK;
}

static hq_outcome bind_mapping(hq_apply *w, const hq_command *c, const hq_statement *s, const hq_prepared *p) {
    given_name few[NAMES_ON_STACK];
    int32_t few_buckets[NAMES_ON_STACK];
    given_name *given = few;
    int32_t *buckets = few_buckets;
    uint32_t size = NAMES_ON_STACK;
    while (size < s->parameter_count)
        size *= 2;
    if (size > NAMES_ON_STACK) {
        given = malloc(size * sizeof *given);
        buckets = malloc(size * sizeof *buckets);
    }
    hq_outcome outcome;
    if (!given || !buckets) {
        outcome = hq_stop(w, SQLITE_NOMEM, "no memory for parameters");
    } else {
        outcome = read_given(w, c, s, given, buckets, size - 1);
        if (outcome == HQ_OK)
            outcome = bind_given(w, s, p, given, buckets, size - 1);
    }
    if (size > NAMES_ON_STACK) {
        free(given);
        free(buckets);
    }
    return outcome;
}

hq_outcome hq_bind(hq_apply *w, const hq_command *c, const hq_statement *s, const hq_prepared *p) {
    return s->flags & HQ_STATEMENT_NAMED ? bind_mapping(w, c, s, p) : bind_sequence(w, c, s, p);
}
