/* apply_split.c: where a statement ends in a text of several.

   Needed only behind a statement that did not compile (SQLite tells the end of those that do), so that a batch can go on
   with the next one. A `;` ends a statement unless it stands in a string, a quoted name, a comment, or inside the body of
   CREATE [TEMP|TEMPORARY] TRIGGER, which ends with `; END ;`. Must not know connections; never reads beyond `end`. */
#include <string.h>

#include "apply.h"

enum token { TOKEN_SEMICOLON, TOKEN_BLANK, TOKEN_OTHER, TOKEN_EXPLAIN, TOKEN_CREATE, TOKEN_TEMP, TOKEN_TRIGGER, TOKEN_END };

/* Where in a statement we stand; only a CREATE TRIGGER takes another way than from START over PLAIN to its `;`. */
enum place { START, AFTER_EXPLAIN, AFTER_CREATE, PLAIN, TRIGGER_BODY, BODY_SEMICOLON, BODY_END };

static int is_word(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' || c >= 0x80;
}

static int same_word(const char *p, size_t size, const char *word) {
    for (size_t i = 0; i < size; i++)
        if (word[i] == 0 || (p[i] | 0x20) != word[i])
            return 0;
    return word[size] == 0;
}

static enum token word_token(const char *p, size_t size) {
    if (same_word(p, size, "create"))
        return TOKEN_CREATE;
    if (same_word(p, size, "trigger"))
        return TOKEN_TRIGGER;
    if (same_word(p, size, "temp") || same_word(p, size, "temporary"))
        return TOKEN_TEMP;
    if (same_word(p, size, "end"))
        return TOKEN_END;
    if (same_word(p, size, "explain"))
        return TOKEN_EXPLAIN;
    return TOKEN_OTHER;
}

/* Behind a quoted token that begins at p. A doubled quote reads as two tokens side by side, which ends at the same place. */
static const char *behind_quote(const char *p, const char *end) {
    char close = *p == '[' ? ']' : *p;
    const char *found = memchr(p + 1, close, (size_t)(end - p - 1));
    return found ? found + 1 : end;
}

static const char *behind_comment(const char *p, const char *end) {
    if (*p == '-') {
        const char *line = memchr(p, '\n', (size_t)(end - p));
        return line ? line + 1 : end;
    }
    for (p += 2; end - p >= 2; p++)
        if (p[0] == '*' && p[1] == '/')
            return p + 2;
    return end;
}

static const char *next(const char *p, const char *end, enum token *token) {
    unsigned char c = (unsigned char)*p;
    const char *start = p;
    *token = TOKEN_BLANK;
    if (c == ' ' || (c >= '\t' && c <= '\r'))
        return p + 1;
    if (end - p >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        return p + 3;
    if (end - p >= 2 && ((c == '-' && p[1] == '-') || (c == '/' && p[1] == '*')))
        return behind_comment(p, end);
    *token = c == ';' ? TOKEN_SEMICOLON : TOKEN_OTHER;
    if (c == '\'' || c == '"' || c == '`' || c == '[')
        return behind_quote(p, end);
    if (!is_word(c))
        return p + 1;
    while (p < end && is_word((unsigned char)*p))
        p++;
    *token = word_token(start, (size_t)(p - start));
    return p;
}

static enum place advance(enum place place, enum token token) {
    switch (place) {
    case START:
        return token == TOKEN_CREATE ? AFTER_CREATE : token == TOKEN_EXPLAIN ? AFTER_EXPLAIN : PLAIN;
    case AFTER_EXPLAIN: /* EXPLAIN QUERY PLAN CREATE ... */
        return token == TOKEN_CREATE ? AFTER_CREATE : AFTER_EXPLAIN;
    case AFTER_CREATE:
        return token == TOKEN_TRIGGER ? TRIGGER_BODY : token == TOKEN_TEMP ? AFTER_CREATE : PLAIN;
    case TRIGGER_BODY:
        return token == TOKEN_SEMICOLON ? BODY_SEMICOLON : TRIGGER_BODY;
    case BODY_SEMICOLON:
        return token == TOKEN_END ? BODY_END : token == TOKEN_SEMICOLON ? BODY_SEMICOLON : TRIGGER_BODY;
    case BODY_END:
        return TRIGGER_BODY;
    default:
        return PLAIN;
    }
}

/* Behind the `;` that ends the first statement of [sql, end), or `end`. */
const char *hq_script_end(const char *sql, const char *end) {
    enum place place = START;
    while (sql < end) {
        enum token token;
        sql = next(sql, end, &token);
        if (token == TOKEN_BLANK)
            continue;
        int in_body = place == TRIGGER_BODY || place == BODY_SEMICOLON;
        if (token == TOKEN_SEMICOLON && !in_body && place != START)
            return sql;
        place = token == TOKEN_SEMICOLON && place == START ? START : advance(place, token);
    }
    return end;
}
