/* guard_cost.c: is the work of a write bounded by its text? Asked once per text and schema, by its bytecode (EXPLAIN).
 *
 * A write that is replicated is applied to its end on every node, however long that takes, so the leader wants to know
 * before. Known to be bounded is a program of which the following holds, with every program that it calls (triggers,
 * actions of foreign keys; EXPLAIN lists them behind it):
 *   1. No way through it comes back to where it was, but for loops over rows of VALUES that come out of a coroutine (Goto to
 *      a Yield), and over a table that the program itself filled (RETURNING); and none of these stands within another:
 *      each row stands in the text.
 *   2. No opcode of `long_opcodes`: they walk or free whole b-trees, or run other SQL. Virtual tables (V*) run foreign code.
 *   3. No scalar function outside those of functions.h, few of these, and none where rows of VALUES are gone through.
 *   4. Called programs have no loop and cannot call themselves (actions of foreign keys do), and rows, calls and their
 *      lengths give a small product: triggers that each insert twice into the next table are exponential without any loop.
 * What is wrongly refused is tried before it is proposed: that costs time, nothing else. */
#include <stdlib.h>
#include <string.h>

#include "functions.h"
#include "guard_parts.h"

/* So few loops cannot multiply rows by much, though one may fill a table that the next one goes through twice. */
enum { LOOPS_MAX = 8, GOSUBS_MAX = 8, FUNCTIONS_MAX = 100, WORK_MAX = 1000000 };
enum { OPCODES_MAX = 1 << 16, CURSORS_MAX = 256, TEXT_MAX = 1 << 16 };
enum { EDGES_MAX = GOSUBS_MAX + 3 };

/* How an opcode goes on: to the next one unless said otherwise. */
enum kind {
    FALLS,
    BRANCHES, /* or to P2 */
    ADVANCES, /* the same; Next or Prev of cursor P1 */
    GOES,     /* to P2 only */
    ENDS,     /* nowhere */
    COMPARES, /* to P1, P2 or P3 */
    STARTS,   /* a coroutine at P3, and goes to P2 */
    YIELDS,   /* or to P2 where that is given */
    ENTERS,   /* a subroutine at P2, that comes back behind this */
    RETURNS,  /* behind each ENTERS of the same register P1; or falls */
    FORBIDDEN,
};

static const struct {
    const char *name;
    enum kind kind;
} kinds[] = {
    {"Goto", GOES}, {"Init", GOES}, {"Halt", ENDS}, {"EndCoroutine", ENDS}, {"Next", ADVANCES}, {"Prev", ADVANCES},
    {"Jump", COMPARES}, {"InitCoroutine", STARTS}, {"Yield", YIELDS}, {"Gosub", ENTERS}, {"Return", RETURNS},
    {"MustBeInt", BRANCHES}, {"Once", BRANCHES}, {"If", BRANCHES}, {"IfNot", BRANCHES}, {"IsType", BRANCHES},
    {"IfNullRow", BRANCHES}, {"SeekLT", BRANCHES}, {"SeekLE", BRANCHES}, {"SeekGE", BRANCHES}, {"SeekGT", BRANCHES},
    {"IfNotOpen", BRANCHES}, {"IfNoHope", BRANCHES}, {"NoConflict", BRANCHES}, {"NotFound", BRANCHES},
    {"Found", BRANCHES}, {"SeekRowid", BRANCHES}, {"NotExists", BRANCHES}, {"Last", BRANCHES},
    {"IfSizeBetween", BRANCHES}, {"IfSmaller", BRANCHES}, {"SorterSort", BRANCHES}, {"Sort", BRANCHES},
    {"Rewind", BRANCHES}, {"IfEmpty", BRANCHES}, {"SorterNext", BRANCHES}, {"IdxLE", BRANCHES}, {"IdxGT", BRANCHES},
    {"IdxLT", BRANCHES}, {"IdxGE", BRANCHES}, {"RowSetRead", BRANCHES}, {"RowSetTest", BRANCHES}, {"Program", BRANCHES},
    {"FkIfZero", BRANCHES}, {"IfPos", BRANCHES}, {"IfNotZero", BRANCHES}, {"DecrJumpZero", BRANCHES},
    {"Filter", BRANCHES}, {"IsNull", BRANCHES}, {"NotNull", BRANCHES}, {"Ne", BRANCHES}, {"Eq", BRANCHES},
    {"Gt", BRANCHES}, {"Le", BRANCHES}, {"Lt", BRANCHES}, {"Ge", BRANCHES}, {"ElseEq", BRANCHES}, {"SeekScan", BRANCHES},
};

static const char *const long_opcodes[] = {
    "Count", "Clear", "Destroy", "IntegrityCk", "IncrVacuum", "Vacuum", "Checkpoint", "JournalMode", "ParseSchema",
    "LoadAnalysis", "Expire", "MaxPgcnt", "SqlExec", "OpenAutoindex", "DropTable", "DropIndex", "DropTrigger",
};

typedef struct opcode {
    uint8_t kind;
    int p1, p2, p3;
} opcode;

typedef struct program {
    opcode *ops;
    int count, capacity, calls, functions;
    int yields;               /* rows that come out of coroutines, at most one each time one is gone through */
    int gosubs[GOSUBS_MAX], gosub_count;
    uint8_t own[CURSORS_MAX]; /* cursors over what the program itself filled */
} program;

static enum kind kind_of(const char *name, const char *p4) {
    if (hq_names_contain(long_opcodes, sizeof long_opcodes / sizeof *long_opcodes, name, strlen(name)))
        return FORBIDDEN;
    if (name[0] == 'V' && strcmp(name, "Variable") != 0)
        return FORBIDDEN;
    if (strcmp(name, "Function") == 0 || strcmp(name, "PureFunc") == 0)
        return hq_is_short_function(p4) ? FALLS : FORBIDDEN;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return kinds[i].kind;
    return FALLS;
}

/* ------------------------------------------------------------------ the ways through a program */

/* Whether the jump from `at` to P2 is one of the two loops of rule 1. */
static int is_known_loop(const program *p, int at) {
    const opcode *o = &p->ops[at];
    if (o->p2 <= 0 || o->p2 >= at)
        return 0;
    if (o->kind == ADVANCES)
        return o->p1 >= 0 && o->p1 < CURSORS_MAX && p->own[o->p1];
    return o->kind == GOES && p->ops[o->p2].kind == YIELDS && p->ops[o->p2].p2 > 0;
}

/* Where `at` may go on, loops of rule 1 left out. P2 0 is no address. */
static int edges_of(const program *p, int at, int *to) {
    const opcode *o = &p->ops[at];
    int count = 0;
    if (o->kind == FALLS || o->kind == BRANCHES || o->kind == ADVANCES || o->kind == YIELDS || o->kind == ENTERS ||
        (o->kind == RETURNS && o->p3) || (o->kind == STARTS && o->p2 == 0))
        to[count++] = at + 1;
    if (o->kind == COMPARES)
        to[count++] = o->p1;
    if (o->kind == COMPARES || o->kind == STARTS)
        to[count++] = o->p3;
    if (o->kind != FALLS && o->kind != ENDS && o->kind != RETURNS && o->p2 > 0 && !is_known_loop(p, at))
        to[count++] = o->p2;
    for (int i = 0; o->kind == RETURNS && i < p->gosub_count; i++)
        if (p->ops[p->gosubs[i]].p1 == o->p1)
            to[count++] = p->gosubs[i] + 1;
    return count;
}

/* All opcodes such that each way goes from earlier to later ones; 0 when there is a way back, or memory is short. */
static int put_in_order(const program *p, int *order) {
    int to[EDGES_MAX], placed = 0, bounded = 1;
    int *before = calloc((size_t)p->count + 1, sizeof *before); /* ways that lead here */
    if (!before)
        return 0;
    for (int at = 0; at < p->count && bounded; at++) {
        int count = edges_of(p, at, to);
        for (int i = 0; i < count; i++) {
            if (to[i] < 0 || to[i] > p->count)
                bounded = 0;
            else
                before[to[i]]++;
        }
    }
    for (int at = 0; bounded && at < p->count; at++)
        if (before[at] == 0)
            order[placed++] = at;
    for (int next = 0; bounded && next < placed; next++) {
        int count = edges_of(p, order[next], to);
        for (int i = 0; i < count; i++)
            if (to[i] < p->count && --before[to[i]] == 0)
                order[placed++] = to[i];
    }
    free(before);
    return bounded && placed == p->count;
}

/* Whether a round of the loop that `tail` closes can pass through another loop. */
static int is_around_another(const program *p, const int *order, int tail, uint8_t *reached) {
    int to[EDGES_MAX];
    memset(reached, 0, (size_t)p->count + 1);
    reached[p->ops[tail].p2] = 1;
    for (int i = 0; i < p->count; i++)
        for (int n = reached[order[i]] ? edges_of(p, order[i], to) : 0; n > 0; n--)
            reached[to[n - 1]] = 1;
    reached[tail] = 3; /* and back: what leads to the tail */
    for (int i = p->count - 1; i >= 0; i--)
        for (int n = edges_of(p, order[i], to); n > 0; n--)
            if (to[n - 1] < p->count && (reached[to[n - 1]] & 2))
                reached[order[i]] |= 2;
    for (int at = 0; at < p->count; at++)
        if (at != tail && is_known_loop(p, at) && reached[p->ops[at].p2] == 3)
            return 1;
    return 0;
}

/* Rule 1. `loops`: how many it has. */
static int ways_are_bounded(const program *p, int *loops) {
    int *order = malloc(((size_t)p->count + 1) * sizeof *order);
    uint8_t *reached = malloc((size_t)p->count + 1);
    int bounded = order && reached && put_in_order(p, order);
    *loops = 0;
    for (int at = 0; bounded && at < p->count; at++)
        if (is_known_loop(p, at))
            bounded = ++*loops <= LOOPS_MAX && !is_around_another(p, order, at, reached);
    free(order);
    free(reached);
    return bounded;
}

/* ------------------------------------------------------------------ EXPLAIN */

/* Takes in one row; 0: not bounded, or memory is short. */
static int add_opcode(program *p, sqlite3_stmt *explain, int is_called) {
    const char *name = (const char *)sqlite3_column_text(explain, 1);
    if (!name || sqlite3_column_int(explain, 0) != p->count || p->count == OPCODES_MAX)
        return 0;
    if (p->count == p->capacity) {
        int capacity = p->capacity ? p->capacity * 2 : 64;
        opcode *grown = realloc(p->ops, (size_t)capacity * sizeof *grown);
        if (!grown)
            return 0;
        p->ops = grown;
        p->capacity = capacity;
    }
    opcode *o = &p->ops[p->count++];
    o->kind = (uint8_t)kind_of(name, (const char *)sqlite3_column_text(explain, 5));
    o->p1 = sqlite3_column_int(explain, 2);
    o->p2 = sqlite3_column_int(explain, 3);
    o->p3 = sqlite3_column_int(explain, 4);
    if (strcmp(name, "OpenEphemeral") == 0 && o->p1 >= 0 && o->p1 < CURSORS_MAX)
        p->own[o->p1] = 1;
    if (o->kind == YIELDS && o->p2 == 0)
        p->yields++;
    if (o->kind == ENTERS) {
        if (p->gosub_count == GOSUBS_MAX)
            return 0;
        p->gosubs[p->gosub_count++] = p->count - 1;
    }
    if (strcmp(name, "Function") == 0 || strcmp(name, "PureFunc") == 0 || strcmp(name, "Concat") == 0)
        p->functions++;
    if (strcmp(name, "Program") == 0) {
        p->calls++;
        /* P5 0: it may run inside of itself, as the action of a foreign key. */
        if (is_called && sqlite3_column_int(explain, 6) == 0)
            return 0;
    }
    return o->kind != FORBIDDEN && p->functions <= FUNCTIONS_MAX;
}

/* What is known of the programs that went by. */
typedef struct sum {
    int programs, calls_max, called_ops_max, rows;
} sum;

/* Rule 1 of a complete program, and what rule 4 wants to know of it. */
static int add_program(sum *all, const program *p) {
    int loops, called = all->programs++ > 0;
    if (!ways_are_bounded(p, &loops) || (called && loops) || (p->functions && p->yields && loops))
        return 0;
    all->calls_max = p->calls > all->calls_max ? p->calls : all->calls_max;
    if (called)
        all->called_ops_max = p->count > all->called_ops_max ? p->count : all->called_ops_max;
    else
        all->rows = p->yields + 1;
    return 1;
}

static int work_is_small(const sum *all) {
    int64_t work = all->programs > 1 ? (int64_t)all->rows * all->called_ops_max : 0;
    for (int i = 1; i < all->programs && work <= WORK_MAX; i++)
        work *= all->calls_max > 1 ? all->calls_max : 1;
    return work <= WORK_MAX;
}

static int is_bounded(sqlite3_stmt *explain) {
    program p = {0};
    sum all = {0};
    int bounded = 1, rc = SQLITE_ROW;
    while (bounded && rc == SQLITE_ROW) {
        rc = sqlite3_step(explain);
        if (p.count && (rc != SQLITE_ROW || sqlite3_column_int(explain, 0) == 0)) { /* a program is complete */
            bounded = add_program(&all, &p);
            p.count = p.calls = p.functions = p.yields = p.gosub_count = 0;
            memset(p.own, 0, sizeof p.own);
        }
        if (bounded && rc == SQLITE_ROW)
            bounded = add_opcode(&p, explain, all.programs > 0);
    }
    free(p.ops);
    return bounded && rc == SQLITE_DONE && work_is_small(&all);
}

/* ------------------------------------------------------------------ shape */

enum { BACKWARD_MAX = 64 };

typedef struct backward {
    int from, to; /* a jump to an earlier opcode: a loop over [to, from] */
} backward;

static int has_nested(const backward *loops, int count) {
    for (int i = 0; i < count; i++)
        for (int k = 0; k < count; k++)
            if (loops[i].to < loops[k].to && loops[k].from < loops[i].from)
                return 1;
    return 0;
}

/* Adds what of this opcode leads back. 0: there are too many. */
static int add_backward(sqlite3_stmt *explain, enum kind kind, backward *loops, int *count) {
    int at = sqlite3_column_int(explain, 0);
    for (int operand = 1; operand <= 3; operand++) {
        int to = sqlite3_column_int(explain, 1 + operand);
        if (kind == FALLS || kind == ENDS || kind == ENTERS || kind == RETURNS || kind == FORBIDDEN ||
            (operand != 2 && kind != COMPARES) || to <= 1 || to >= at) /* 1: where Init leads to in the end */
            continue;
        if (*count == BACKWARD_MAX)
            return 0;
        loops[(*count)++] = (backward){at, to};
    }
    return 1;
}

static int shape_of(sqlite3_stmt *explain) {
    backward loops[BACKWARD_MAX];
    int count = 0, programs = 0, shape = HQ_COST_LEVEL | HQ_COST_PLAIN, rc;
    while ((rc = sqlite3_step(explain)) == SQLITE_ROW && shape) {
        const char *name = (const char *)sqlite3_column_text(explain, 1);
        const char *p4 = (const char *)sqlite3_column_text(explain, 5);
        if (!name)
            return 0;
        if (sqlite3_column_int(explain, 0) == 0) {
            if (has_nested(loops, count))
                shape &= ~HQ_COST_LEVEL;
            programs++;
            count = 0;
        }
        /* What is entered by Gosub stands behind the loop that it belongs to. */
        if (kind_of(name, p4) == ENTERS)
            shape &= ~HQ_COST_LEVEL;
        int calls = strcmp(name, "Function") == 0 || strcmp(name, "PureFunc") == 0;
        if (calls || strcmp(name, "Concat") == 0)
            shape &= ~HQ_COST_PLAIN;
        if (calls && !hq_is_short_function(p4))
            shape &= ~HQ_COST_LEVEL;
        /* A called program may be called from a loop, so it may have none. */
        if (!add_backward(explain, kind_of(name, p4), loops, &count) || (programs > 1 && count))
            shape &= ~HQ_COST_LEVEL;
    }
    if (has_nested(loops, count))
        shape &= ~HQ_COST_LEVEL;
    return rc == SQLITE_DONE ? shape : 0;
}

/* ------------------------------------------------------------------ asking */

/* What `judge` says of the text's program; 0 too where it cannot be explained: it is longer than TEXT_MAX, or memory is
   short. */
static int ask(hq_guard *g, const char *sql, int size, int (*judge)(sqlite3_stmt *)) {
    static const char prefix[] = "EXPLAIN ";
    sqlite3_stmt *explain = NULL;
    int answer = 0;
    char *text = size > TEXT_MAX ? NULL : malloc(sizeof prefix + (size_t)size);
    if (!text)
        return 0;
    memcpy(text, prefix, sizeof prefix - 1);
    memcpy(text + sizeof prefix - 1, sql, (size_t)size);
    text[sizeof prefix - 1 + size] = 0;
    /* Never from a cache: a kept EXPLAIN does not look at the schema's cookie, and reads names that are gone. */
    if (hq_guard_table()->prepare(g, text, (int)sizeof prefix + size, 0, &explain, NULL) == SQLITE_OK && explain)
        answer = judge(explain);
    sqlite3_finalize(explain);
    free(text);
    return answer;
}

int hq_cost_is_bounded(hq_guard *g, const char *sql, int size) { return ask(g, sql, size, is_bounded); }

int hq_cost_shape(hq_guard *g, const char *sql, int size) { return ask(g, sql, size, shape_of); }
