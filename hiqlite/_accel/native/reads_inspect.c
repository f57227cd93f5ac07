/* Is a program known to be short? Asked once per text and schema, by its bytecode (EXPLAIN).
 *
 * A progress handler is called only between opcodes, so what may run on the event loop's thread must have no
 * opcode that is long by itself, and no loop over a whole table:
 *   1. No opcode of `long_opcodes`: Count walks a b-tree in one step (23 ms for 3M rows), virtual tables (V*) run
 *      foreign code, the rest belong to pragmas that read or rewrite files.
 *   2. No loop (Next, Prev) over a table or index cursor that starts at its end (Rewind, Last), unless a LIMIT
 *      leaves it (DecrJumpZero inside the loop that jumps behind it). Loops over what the program built itself are
 *      as short as what filled them. min() and max() keep a Next that is never reached: a Goto stands before it
 *      and nothing jumps to it.
 *   3. No scalar function outside those of functions.h. Those inside are linear, so a program that calls any looks at
 *      the clock more often.
 * What passes still runs under a budget; what is wrongly refused runs on a reader thread: both are only slower. */
#include <stdlib.h>
#include <string.h>

#include "functions.h"
#include "reads.h"

enum { PROGRAM_MAX = 2000, CURSORS_MAX = 256 };

enum { OP_OTHER, OP_OPEN, OP_FIRST, OP_ADVANCE, OP_LIMIT, OP_GOTO, OP_CALL, OP_LONG, OP_TRANSACTION };

typedef struct {
    uint8_t op;
    int p1, p2;
} instruction;

static const char *const long_opcodes[] = {
    "Count", "IntegrityCk", "IncrVacuum", "Checkpoint", "JournalMode", "ParseSchema", "LoadAnalysis",
    "Destroy", "Expire", "MaxPgcnt", "Program", "SqlExec", "OpenAutoindex",
};

static int kind_of(const char *name, const char *p4) {
    if (strcmp(name, "OpenRead") == 0 || strcmp(name, "ReopenIdx") == 0)
        return OP_OPEN;
    if (strcmp(name, "Rewind") == 0 || strcmp(name, "Last") == 0)
        return OP_FIRST;
    if (strcmp(name, "Next") == 0 || strcmp(name, "Prev") == 0)
        return OP_ADVANCE;
    if (strcmp(name, "DecrJumpZero") == 0)
        return OP_LIMIT;
    if (strcmp(name, "Goto") == 0)
        return OP_GOTO;
    if (strcmp(name, "AutoCommit") == 0 || strcmp(name, "Savepoint") == 0)
        return OP_TRANSACTION;
    if (strcmp(name, "Function") == 0 || strcmp(name, "PureFunc") == 0)
        return hq_is_short_function(p4) ? OP_CALL : OP_LONG;
    if (name[0] == 'V' && strcmp(name, "Variable") != 0)
        return OP_LONG; /* virtual tables; Vacuum */
    return hq_names_contain(long_opcodes, sizeof long_opcodes / sizeof *long_opcodes, name, strlen(name)) ? OP_LONG : OP_OTHER;
}

/* Rule 2 for the loop that the Next or Prev at `end` closes. */
static int loop_is_bounded(const instruction *program, int count, int end) {
    int start = program[end].p2;
    for (int i = start; i < end && i >= 0; i++)
        if (program[i].op == OP_LIMIT && program[i].p2 > end)
            return 1;
    if (end > 0 && program[end - 1].op == OP_GOTO && program[end - 1].p2 > end) {
        for (int i = 0; i < count; i++)
            if (i != end && program[i].p2 == end)
                return 0;
        return 1;
    }
    return 0;
}

static int judge(const instruction *program, int count) {
    uint8_t stored[CURSORS_MAX] = {0}, from_end[CURSORS_MAX] = {0};
    int flags = HQ_PROGRAM_SHORT;
    for (int i = 0; i < count; i++) {
        int cursor = program[i].p1;
        if (program[i].op == OP_LONG)
            flags &= ~HQ_PROGRAM_SHORT;
        if (program[i].op == OP_CALL)
            flags |= HQ_PROGRAM_CALLS;
        if (program[i].op == OP_TRANSACTION)
            return HQ_PROGRAM_TRANSACTION;
        if (program[i].op != OP_OPEN && program[i].op != OP_FIRST)
            continue;
        if (cursor < 0 || cursor >= CURSORS_MAX)
            flags &= ~HQ_PROGRAM_SHORT;
        else if (program[i].op == OP_OPEN)
            stored[cursor] = 1;
        else
            from_end[cursor] = 1;
    }
    for (int i = 0; i < count && (flags & HQ_PROGRAM_SHORT); i++) {
        int cursor = program[i].p1;
        if (program[i].op == OP_ADVANCE && cursor >= 0 && cursor < CURSORS_MAX && stored[cursor] && from_end[cursor] &&
            !loop_is_bounded(program, count, i))
            flags &= ~HQ_PROGRAM_SHORT;
    }
    return flags;
}

int hq_reads_inspect(sqlite3 *db, const char *sql, int size) {
    static const char prefix[] = "EXPLAIN ";
    sqlite3_stmt *explain = NULL;
    instruction *program = NULL;
    int count = 0, flags = 0, code = SQLITE_NOMEM;
    char *text = malloc(sizeof prefix + (size_t)size);
    if (text == NULL)
        return 0;
    memcpy(text, prefix, sizeof prefix - 1);
    memcpy(text + sizeof prefix - 1, sql, (size_t)size);
    text[sizeof prefix - 1 + size] = 0;
    if (sqlite3_prepare_v3(db, text, (int)sizeof prefix + size, 0, &explain, NULL) == SQLITE_OK && explain != NULL)
        program = malloc(sizeof *program * PROGRAM_MAX);
    if (program != NULL) {
        while ((code = sqlite3_step(explain)) == SQLITE_ROW && count < PROGRAM_MAX) {
            const char *name = (const char *)sqlite3_column_text(explain, 1);
            program[count].op = (uint8_t)(name ? kind_of(name, (const char *)sqlite3_column_text(explain, 5)) : OP_LONG);
            program[count].p1 = sqlite3_column_int(explain, 2);
            program[count].p2 = sqlite3_column_int(explain, 3);
            count++;
        }
        if (code == SQLITE_DONE)
            flags = judge(program, count);
    }
    sqlite3_finalize(explain);
    free(program);
    free(text);
    return flags;
}
