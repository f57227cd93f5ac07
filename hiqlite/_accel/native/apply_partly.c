/* apply_partly.c: whether a failed statement keeps the rows before the one that it failed at (OR FAIL, RAISE(FAIL)).

   SQLite does not tell where triggers wrote. The program of the statement tells, those of its triggers included: EXPLAIN
   names each way in which it may stop, and what it writes. */
#include <stdio.h>
#include <string.h>

#include "apply.h"

enum { ON_ERROR_FAIL = 3, COUNTS_CHANGES = 1, HALTS_FAILING = 1, HALTS_OTHERWISE = 2, TABLE_MAY_FAIL = 4 };

typedef struct opcode {
    int address;
    const char *name, *p4;
    int p1, p2, p3, p5;
} opcode;

/* What has been read of the program; statement and triggers number their registers and cursors each for themselves. */
typedef struct reading {
    const hq_error *error;
    int programs;            /* the statement's own, then those of its triggers */
    uint64_t keyed;          /* a bit for each cursor that writes a table without rowids, or an index */
    int text_register;       /* what the opcode before loaded, and where to */
    char text[HQ_MESSAGE_MAX];
    int how;                 /* it may have stopped with this error: HALTS_... */
    int wrote_unseen;        /* a trigger writes a table without rowids: what it wrote nobody is told */
} reading;

static const char *text_or_empty(sqlite3_stmt *explain, int column) {
    const char *text = (const char *)sqlite3_column_text(explain, column);
    return text ? text : "";
}

static opcode opcode_of(sqlite3_stmt *explain) {
    return (opcode){sqlite3_column_int(explain, 0), text_or_empty(explain, 1),      text_or_empty(explain, 5),
                    sqlite3_column_int(explain, 2), sqlite3_column_int(explain, 3), sqlite3_column_int(explain, 4),
                    sqlite3_column_int(explain, 6)};
}

/* How it could have stopped the program with the error at hand: a Halt of that code whose message is the one that was
   heard. A message that is computed may have been anything. What a virtual table says of a row that breaks its rules
   stands in no program. */
static int halts_how(const reading *r, const opcode *o) {
    if (strcmp(o->name, "VUpdate") == 0 && (r->error->code & 0xff) == SQLITE_CONSTRAINT)
        return o->p5 == ON_ERROR_FAIL ? TABLE_MAY_FAIL : 0;
    if (strncmp(o->name, "Halt", 4) != 0 || o->p1 != r->error->code)
        return 0;
    if (strcmp(o->name, "Halt") == 0 && o->p3 != 0) {
        if (o->p3 == r->text_register && strcmp(r->text, r->error->message) != 0)
            return 0;
    } else if (!strstr(r->error->message, o->p4)) {
        return 0;
    }
    return o->p2 == ON_ERROR_FAIL ? HALTS_FAILING : HALTS_OTHERWISE;
}

static int writes_unseen(reading *r, const opcode *o) {
    uint64_t cursor = 1ull << (o->p1 & 63);
    if (strcmp(o->name, "OpenWrite") == 0 && o->p4[0] == 'k')
        r->keyed |= cursor;
    if (strcmp(o->name, "Delete") == 0)
        return (r->keyed & cursor) != 0;
    return strcmp(o->name, "IdxInsert") == 0 && (o->p5 & COUNTS_CHANGES);
}

static void read_opcode(reading *r, const opcode *o) {
    if (o->address == 0) {
        r->programs++;
        r->keyed = 0;
        r->text_register = 0;
    }
    r->how |= halts_how(r, o);
    if (r->programs > 1 && writes_unseen(r, o))
        r->wrote_unseen = 1;
    r->text_register = 0;
    if (strcmp(o->name, "String8") == 0) {
        r->text_register = o->p2;
        snprintf(r->text, sizeof r->text, "%s", o->p4);
    }
}

/* 1, 0, or -1 if the program cannot be asked. Where the same words can come from both ways of failing, a part is said to
   remain. Where nobody is known to have `wrote` anything, a trigger that raises may have been fired by a row of a table
   without rowids. */
int hq_failed_partly(hq_apply *w, const hq_prepared *p, const hq_error *error, int wrote) {
    reading r = {.error = error};
    sqlite3_stmt *explain = NULL;
    char *sql = sqlite3_mprintf("EXPLAIN %s", sqlite3_sql(p->stmt));
    if (!sql)
        return -1;
    w->guard_api->own_writes(w->guard, 1);
    int rc = sqlite3_prepare_v2(w->db, sql, -1, &explain, NULL);
    while (rc == SQLITE_OK && sqlite3_step(explain) == SQLITE_ROW) {
        opcode o = opcode_of(explain);
        read_opcode(&r, &o);
    }
    int is_read = sqlite3_finalize(explain) == SQLITE_OK && rc == SQLITE_OK;
    w->guard_api->own_writes(w->guard, 0);
    sqlite3_free(sql);
    if (!is_read)
        return -1;
    wrote = wrote || (r.wrote_unseen && error->code == SQLITE_CONSTRAINT_TRIGGER);
    return wrote && ((r.how & HALTS_FAILING) || r.how == TABLE_MAY_FAIL);
}
