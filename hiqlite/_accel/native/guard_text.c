/* guard_text.c: the little that only the text of a statement tells.

   SQLite's authorizer never names the new name of RENAME TO nor the parent of REFERENCES, and cannot tell a PRAGMA
   that the user wrote from one that a virtual table prepares for itself. So the first statement of the text is read
   token by token, with SQLite's own rules of tokens (comments, four kinds of quotes, doubled quotes). Where the text
   is not valid SQL the answer does not matter: SQLite refuses it. Must not know connections. */
#include <string.h>

#include "guard_parts.h"

typedef struct token {
    enum { TOKEN_END, TOKEN_WORD, TOKEN_OTHER } kind;
    const char *start; /* of the name itself, without its quotes */
    int size;
    char quote; /* closing quote, 0 for a bare word */
} token;

static int is_space(unsigned char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static int is_word(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
           c >= 0x80;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

/* First position after white space and comments. A byte order mark passes as white space, as in SQLite. */
static const char *skip_blank(const char *p, const char *end) {
    for (;;) {
        if (p < end && is_space((unsigned char)*p)) {
            p++;
        } else if (end - p >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) {
            p += 3;
        } else if (end - p >= 2 && p[0] == '-' && p[1] == '-') {
            while (p < end && *p != '\n')
                p++;
        } else if (end - p >= 2 && p[0] == '/' && p[1] == '*') {
            p += 2;
            while (end - p >= 2 && !(p[0] == '*' && p[1] == '/'))
                p++;
            p = end - p >= 2 ? p + 2 : end;
        } else {
            return p;
        }
    }
}

static const char *next_token(const char *p, const char *end, token *out) {
    p = skip_blank(p, end);
    out->quote = 0;
    out->start = p;
    out->size = 0;
    if (p >= end || *p == 0) {
        out->kind = TOKEN_END;
        return end;
    }
    char c = *p;
    if (c == '"' || c == '`' || c == '[' || c == '\'') {
        char close = c == '[' ? ']' : c;
        out->start = ++p;
        while (p < end && (*p != close || (close != ']' && p + 1 < end && p[1] == close)))
            p += *p == close ? 2 : 1;
        out->kind = TOKEN_WORD;
        out->quote = close;
        out->size = (int)(p - out->start);
        return p < end ? p + 1 : end;
    }
    if (is_word((unsigned char)c)) {
        while (p < end && is_word((unsigned char)*p))
            p++;
        out->kind = TOKEN_WORD;
        out->size = (int)(p - out->start);
        return p;
    }
    out->kind = TOKEN_OTHER;
    out->size = 1;
    return p + 1;
}

static int is_keyword(const token *t, const char *word) {
    int i = 0;
    if (t->kind != TOKEN_WORD || t->quote)
        return 0;
    for (; i < t->size && word[i]; i++)
        if (lower(t->start[i]) != word[i])
            return 0;
    return i == t->size && word[i] == 0;
}

/* The name with doubled quotes undone, cut where it cannot matter any more. */
static int is_reserved_token(const token *t) {
    char name[64];
    int n = 0;
    if (t->kind != TOKEN_WORD)
        return 0;
    for (int i = 0; i < t->size && n < (int)sizeof name - 1; i++) {
        name[n++] = t->start[i];
        if (t->quote && t->start[i] == t->quote)
            i++;
    }
    name[n] = 0;
    return hq_name_reserved(name);
}

static int is_writing_word(const token *t) {
    static const char *const words[] = {"create", "drop",   "alter",   "insert", "replace",
                                        "update", "delete", "reindex", "analyze"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is_keyword(t, words[i]))
            return 1;
    return 0;
}

int hq_text_names_reserved(const char *sql, int size) {
    const char *p = sql, *end = sql + size;
    token t, before = {TOKEN_END, NULL, 0, 0};
    for (p = next_token(p, end, &t); t.kind != TOKEN_END; p = next_token(p, end, &t)) {
        int naming = is_keyword(&before, "references") || is_keyword(&before, "to");
        if (naming && is_reserved_token(&t))
            return 1;
        before = t;
    }
    return 0;
}

/* Whether the rest of the statement has a word that is the name of a PRAGMA which virtual tables prepare for themselves. */
static int names_nested_pragma(const char *p, const char *end) {
    token t;
    for (p = next_token(p, end, &t); t.kind != TOKEN_END; p = next_token(p, end, &t)) {
        t.quote = 0;
        if (is_keyword(&t, "data_version") || is_keyword(&t, "page_size"))
            return 1;
        if (t.kind == TOKEN_OTHER && *t.start == ';')
            return 0;
    }
    return 0;
}

int hq_text_joins_by_name(const char *sql, int size) {
    const char *p = sql, *end = sql + size;
    token t;
    for (p = next_token(p, end, &t); t.kind != TOKEN_END; p = next_token(p, end, &t))
        if (is_keyword(&t, "using") || is_keyword(&t, "natural"))
            return 1;
    return 0;
}

void hq_text_names(const char *sql, int size, void (*each)(void *context, const char *name), void *context) {
    const char *p = sql, *end = sql + size;
    token t;
    char name[128];
    for (p = next_token(p, end, &t); t.kind != TOKEN_END; p = next_token(p, end, &t)) {
        int n = 0;
        for (int i = 0; t.kind == TOKEN_WORD && i < t.size && n < (int)sizeof name - 1; i++) {
            name[n++] = t.start[i];
            if (t.quote && t.start[i] == t.quote)
                i++;
        }
        name[n] = 0;
        if (n)
            each(context, name);
    }
}

void hq_read_text(const char *sql, int size, hq_text *out) {
    const char *end = sql + size;
    const char *p = sql;
    token t;
    memset(out, 0, sizeof *out);
    do
        p = next_token(p, end, &t);
    while (t.kind == TOKEN_OTHER && *t.start == ';');
    if (is_keyword(&t, "explain")) {
        out->explain = 1;
        p = next_token(p, end, &t);
        if (is_keyword(&t, "query")) {
            p = next_token(p, end, &t); /* PLAN */
            p = next_token(p, end, &t);
        }
    }
    out->pragma = is_keyword(&t, "pragma");
    out->pragma_nested = out->pragma && names_nested_pragma(p, end);
    out->vacuum = is_keyword(&t, "vacuum");
    out->writes = is_writing_word(&t);
    out->ddl = is_keyword(&t, "create") || is_keyword(&t, "alter");
    if (is_keyword(&t, "create")) {
        p = next_token(p, end, &t);
        if (is_keyword(&t, "unique"))
            next_token(p, end, &t);
        out->create_index = is_keyword(&t, "index");
    }
}
