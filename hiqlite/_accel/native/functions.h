/* functions.h: scalar functions of SQLite whose work is linear in their arguments.

   What is unknown here could be anything; LIKE, GLOB, and unhex with two arguments are more than linear. instr, replace and
   trim are the guard's own. json_extract parses its text, which is linear too. SQLITE_LIMIT_LENGTH bounds values besides;
   what makes JSON of many or long values asks for memory beyond it, so it is not here. */
#ifndef HQ_FUNCTIONS_H
#define HQ_FUNCTIONS_H

#include <string.h>

static const char *const hq_short_functions[] = {
    "->", "->>", "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "ceiling", "changes",
    "char", "coalesce", "concat", "concat_ws", "cos", "cosh", "current_date", "current_time", "current_timestamp",
    "date", "datetime", "degrees", "exp", "floor", "hex", "ifnull", "iif", "instr", "json",
    "json_array_length", "json_extract", "json_type", "json_valid", "julianday",
    "last_insert_rowid", "length", "likelihood", "likely", "ln", "log", "log10", "log2", "lower", "ltrim", "max",
    "min", "mod", "nullif", "octet_length", "pi", "pow", "power", "quote", "radians", "random", "replace", "round",
    "rtrim", "sign", "sin", "sinh", "sqlite_source_id", "sqlite_version", "sqrt", "strftime", "substr", "substring",
    "subtype", "tan", "tanh", "time", "timediff", "trim", "trunc", "typeof", "unicode", "unixepoch", "unlikely",
    "upper",
};

static inline int hq_names_contain(const char *const *names, size_t count, const char *name, size_t size) {
    for (size_t i = 0; i < count; i++)
        if (strncmp(names[i], name, size) == 0 && names[i][size] == 0)
            return 1;
    return 0;
}

/* `shown` is how EXPLAIN names the function of an opcode. */
static inline int hq_is_short_function(const char *shown) {
    if (shown == NULL)
        return 0;
    const char *open = strchr(shown, '('); /* shown as name(argument count) */
    size_t size = open ? (size_t)(open - shown) : strlen(shown);
    size_t count = sizeof hq_short_functions / sizeof *hq_short_functions;
    return hq_names_contain(hq_short_functions, count, shown, size);
}

#endif
