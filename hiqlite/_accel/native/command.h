/* The command payload (docs/formats.md section 3) as C iterators, over bytes that may be hostile.
 *
 *   hq_command command;
 *   if (hq_command_open(&command, payload, size) != HQ_COMMAND_OK) ...
 *   hq_cursor at = hq_command_texts(&command);       while (hq_text_next(&at, &text) == 1) ...
 *   hq_cursor at = hq_command_statements(&command);  while (hq_statement_next(&command, &at, &statement) == 1)
 *       hq_cursor in = statement.parameters;
 *       while (hq_parameter_next(&command, &statement, &in, &parameter) == 1) ...
 *
 * hq_command_open has then walked header and texts; hq_command_check walks everything, parameters and UTF-8
 * included: a command that passed it cannot fail in any iterator afterwards (the iterators check bounds all the
 * same). No allocation, no recursion, time linear in the size. Must not know Python, SQLite or records. */
#ifndef HQ_COMMAND_H
#define HQ_COMMAND_H

#include "value.h"

enum { HQ_COMMAND_HEADER = 40, HQ_COMMAND_VERSION = 1, HQ_STATEMENT_HEADER = 16, HQ_PARAMETERS_MAX = 32766 };

enum hq_operation {
    HQ_OP_EXECUTE = 1,
    HQ_OP_EXECUTE_MANY = 2,
    HQ_OP_TXN = 3,
    HQ_OP_BATCH = 4,
    HQ_OP_MIGRATION = 5,
};

enum { HQ_FLAG_ROWS_WANTED = 1, HQ_FLAG_FOREIGN_KEYS_OFF = 2, HQ_FLAGS_KNOWN = 3 };
enum { HQ_STATEMENT_NAMED = 1, HQ_STATEMENT_EXPECTS = 2, HQ_STATEMENT_FLAGS_KNOWN = 3 };

enum hq_command_code {
    HQ_COMMAND_OK = 0,
    HQ_COMMAND_SHORT = 1,          /* the bytes end too early */
    HQ_COMMAND_BAD_HEADER = 2,     /* version, operation, flags, reserved, or counts that the operation cannot have */
    HQ_COMMAND_BAD_TEXT = 3,       /* NUL inside, no 0 byte behind, not UTF-8 (request id and names too) */
    HQ_COMMAND_BAD_STATEMENT = 4,  /* size, text number, flags, parameter count, expectation */
    HQ_COMMAND_BAD_PARAMETER = 5,  /* tag, NaN, or a reference that is not to an earlier statement of a txn */
    HQ_COMMAND_EXCESS = 6,         /* bytes are left over */
};

typedef struct hq_text {
    const char *utf8; /* 0-terminated in place */
    uint32_t size;    /* without the 0 */
} hq_text;

typedef struct hq_command {
    uint8_t operation;
    uint16_t flags;
    uint32_t statement_count;
    uint64_t session, sequence, window_low;
    const uint8_t *request_id;
    uint16_t request_id_size;
    uint16_t text_count;
    hq_cursor texts, statements; /* where each begins; the statements' end is the payload's */
} hq_command;

typedef struct hq_statement {
    uint32_t number;      /* 0 for the first of the command; set by hq_statement_next from its own count */
    uint16_t text_number; /* below the command's text_count */
    uint16_t flags;
    uint32_t parameter_count;
    int64_t expected_rows; /* of meaning with HQ_STATEMENT_EXPECTS */
    hq_cursor parameters;
} hq_statement;

typedef struct hq_parameter {
    const uint8_t *name; /* NULL unless the statement is HQ_STATEMENT_NAMED; without its `:`, `@`, `$` */
    uint16_t name_size;
    hq_value value;
} hq_parameter;

/* 1: one was read. 0: the end. Below 0: minus the code. */
static inline int hq_text_next(hq_cursor *at, hq_text *text) {
    const uint8_t *bytes;
    if (at->p == at->end)
        return 0;
    if (hq_sized_read(at, &bytes, &text->size) != HQ_VALUE_OK || at->p == at->end)
        return -(int)HQ_COMMAND_SHORT;
    if (*at->p++ != 0 || memchr(bytes, 0, text->size) != NULL)
        return -(int)HQ_COMMAND_BAD_TEXT;
    text->utf8 = (const char *)bytes;
    return 1;
}

static inline int hq_command_counts_ok(const hq_command *c) {
    switch (c->operation) {
    case HQ_OP_EXECUTE:
        return c->statement_count == 1 && c->text_count == 1;
    case HQ_OP_EXECUTE_MANY:
        return c->statement_count >= 1 && c->text_count == 1;
    case HQ_OP_TXN:
        return c->text_count >= 1 && c->text_count <= c->statement_count;
    case HQ_OP_BATCH:
        return c->statement_count == 0 && c->text_count == 1;
    case HQ_OP_MIGRATION:
        return c->statement_count == 0 && c->text_count == 3;
    default:
        return 0;
    }
}

static inline enum hq_command_code hq_command_open(hq_command *c, const uint8_t *payload, size_t size) {
    memset(c, 0, sizeof *c);
    if (size < HQ_COMMAND_HEADER)
        return HQ_COMMAND_SHORT;
    const uint8_t *end = payload + size;
    c->operation = payload[1];
    c->flags = hq_get_u16(payload + 2);
    c->statement_count = hq_get_u32(payload + 4);
    c->session = hq_get_u64(payload + 8);
    c->sequence = hq_get_u64(payload + 16);
    c->window_low = hq_get_u64(payload + 24);
    c->request_id_size = hq_get_u16(payload + 32);
    c->text_count = hq_get_u16(payload + 34);
    c->request_id = payload + HQ_COMMAND_HEADER;
    if (payload[0] != HQ_COMMAND_VERSION || hq_get_u32(payload + 36) != 0 || (c->flags & ~HQ_FLAGS_KNOWN) != 0)
        return HQ_COMMAND_BAD_HEADER;
    if ((c->flags & HQ_FLAG_FOREIGN_KEYS_OFF) && c->operation != HQ_OP_MIGRATION)
        return HQ_COMMAND_BAD_HEADER;
    if (!hq_command_counts_ok(c))
        return HQ_COMMAND_BAD_HEADER;
    if ((size_t)(end - c->request_id) < c->request_id_size)
        return HQ_COMMAND_SHORT;
    hq_cursor at = {c->request_id + c->request_id_size, end};
    c->texts = at;
    for (uint32_t i = 0; i < c->text_count; i++) {
        hq_text text;
        int got = hq_text_next(&at, &text);
        if (got != 1)
            return got < 0 ? (enum hq_command_code)-got : HQ_COMMAND_SHORT;
    }
    c->texts.end = at.p;
    c->statements = at;
    if ((uint64_t)hq_left(&at) < (uint64_t)c->statement_count * (4 + HQ_STATEMENT_HEADER))
        return HQ_COMMAND_SHORT; /* so that a count can be trusted for an allocation */
    if (c->statement_count == 0 && hq_left(&at) != 0)
        return HQ_COMMAND_EXCESS;
    return HQ_COMMAND_OK;
}

static inline hq_cursor hq_command_texts(const hq_command *c) { return c->texts; }
static inline hq_cursor hq_command_statements(const hq_command *c) { return c->statements; }

/* Writes the command's texts to texts[0 .. text_count), which the caller made that long. */
static inline void hq_command_text_table(const hq_command *c, hq_text *texts) {
    hq_cursor at = c->texts;
    for (uint32_t i = 0; i < c->text_count && hq_text_next(&at, &texts[i]) == 1; i++)
        ;
}

/* 1: one was read. 0: the end. Below 0: minus the code. The caller sets statement->number. */
static inline int hq_statement_next(const hq_command *c, hq_cursor *at, hq_statement *statement) {
    const uint8_t *body;
    uint32_t size;
    if (at->p == at->end)
        return 0;
    if (hq_sized_read(at, &body, &size) != HQ_VALUE_OK)
        return -(int)HQ_COMMAND_SHORT;
    if (size < HQ_STATEMENT_HEADER)
        return -(int)HQ_COMMAND_BAD_STATEMENT;
    statement->text_number = hq_get_u16(body);
    statement->flags = hq_get_u16(body + 2);
    statement->parameter_count = hq_get_u32(body + 4);
    statement->expected_rows = hq_get_i64(body + 8);
    statement->parameters.p = body + HQ_STATEMENT_HEADER;
    statement->parameters.end = body + size;
    if (statement->text_number >= c->text_count || (statement->flags & ~HQ_STATEMENT_FLAGS_KNOWN) != 0)
        return -(int)HQ_COMMAND_BAD_STATEMENT;
    if (statement->parameter_count > HQ_PARAMETERS_MAX)
        return -(int)HQ_COMMAND_BAD_STATEMENT;
    if (statement->expected_rows < 0 || (!(statement->flags & HQ_STATEMENT_EXPECTS) && statement->expected_rows != 0))
        return -(int)HQ_COMMAND_BAD_STATEMENT;
    return 1;
}

/* 1: one was read. 0: the end. Below 0: minus the code. Ends with the statement's bytes, whatever its count says;
 * hq_command_check has verified that both agree. */
static inline int hq_parameter_next(const hq_command *c, const hq_statement *s, hq_cursor *in, hq_parameter *out) {
    if (in->p == in->end)
        return 0;
    memset(out, 0, sizeof *out);
    if (s->flags & HQ_STATEMENT_NAMED) {
        if (hq_left(in) < 2)
            return -(int)HQ_COMMAND_SHORT;
        uint16_t size = hq_get_u16(in->p);
        if (hq_left(in) - 2 < size)
            return -(int)HQ_COMMAND_SHORT;
        out->name = in->p + 2;
        out->name_size = size;
        in->p += 2 + (size_t)size;
    }
    switch (hq_value_read(in, c->operation == HQ_OP_TXN, &out->value)) {
    case HQ_VALUE_OK:
        return 1;
    case HQ_VALUE_SHORT:
        return -(int)HQ_COMMAND_SHORT;
    default:
        return -(int)HQ_COMMAND_BAD_PARAMETER;
    }
}

static inline enum hq_command_code hq_statement_check(const hq_command *c, const hq_statement *s) {
    hq_cursor in = s->parameters;
    hq_parameter parameter = {0};
    uint32_t count = 0;
    int got;
    while ((got = hq_parameter_next(c, s, &in, &parameter)) == 1) {
        const hq_value *value = &parameter.value;
        count++;
        if (parameter.name != NULL && !hq_utf8_valid(parameter.name, parameter.name_size))
            return HQ_COMMAND_BAD_TEXT;
        if (value->tag == HQ_TEXT && !hq_utf8_valid(value->bytes, value->size))
            return HQ_COMMAND_BAD_TEXT;
        if (value->tag == HQ_REF_NAME && !hq_utf8_valid(value->bytes, value->size))
            return HQ_COMMAND_BAD_TEXT;
        if (value->tag >= HQ_REF_NUMBER && value->statement >= s->number)
            return HQ_COMMAND_BAD_PARAMETER;
    }
    if (got < 0)
        return (enum hq_command_code)-got;
    return count == s->parameter_count ? HQ_COMMAND_OK : HQ_COMMAND_BAD_STATEMENT;
}

static inline enum hq_command_code hq_command_texts_check(const hq_command *c) {
    hq_cursor at = c->texts;
    hq_text text;
    if (!hq_utf8_valid(c->request_id, c->request_id_size))
        return HQ_COMMAND_BAD_TEXT;
    while (hq_text_next(&at, &text) == 1)
        if (!hq_utf8_valid((const uint8_t *)text.utf8, text.size))
            return HQ_COMMAND_BAD_TEXT;
    return HQ_COMMAND_OK;
}

/* Opens the command and walks all of it: what comes from outside passes here once, before it is replicated. */
static inline enum hq_command_code hq_command_check(hq_command *c, const uint8_t *payload, size_t size) {
    enum hq_command_code code = hq_command_open(c, payload, size);
    if (code == HQ_COMMAND_OK)
        code = hq_command_texts_check(c);
    if (code != HQ_COMMAND_OK)
        return code;
    hq_cursor at = c->statements;
    for (uint32_t number = 0; number < c->statement_count; number++) {
        hq_statement statement;
        int got = hq_statement_next(c, &at, &statement);
        if (got != 1)
            return got < 0 ? (enum hq_command_code)-got : HQ_COMMAND_SHORT;
        statement.number = number;
        code = hq_statement_check(c, &statement);
        if (code != HQ_COMMAND_OK)
            return code;
    }
    return hq_left(&at) == 0 ? HQ_COMMAND_OK : HQ_COMMAND_EXCESS;
}

#endif
