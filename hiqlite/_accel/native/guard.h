/* guard.h: what stands between a user's SQL and the replicated database, as a table of functions.

   For other extensions of this package (apply, reads): take the address from hiqlite._accel.guard.api_address(),
   cast it to `const hq_guard_api *`, check `version`. They never link against the guard.

   A *guard* (opaque `void *`) belongs to one sqlite3 connection. It owns that connection's authorizer, the overrides
   of random(), randomblob() and of functions that no entry may call, and (writer) its update hook. The guard is freed
   when the connection closes, or earlier by detach(). It keeps no prepared statement between calls. An *entry
   context* belongs to the calling THREAD: clock and generator of the entry that this thread applies or tries.

   No function here touches Python or takes the GIL. A guard must be used by one thread at a time (hold the
   connection's mutex, or own the connection).

   Own statements (BEGIN, COMMIT, SAVEPOINT, _hiqlite_run ...): own_writes(g, 1) around prepare AND around every step,
   because a step may prepare again; own_writes(g, 0) before the user's next statement is prepared or stepped.

   A user's statement: prepare(g, ...), keep seen(g) beside the statement; per entry entry_begin(wall_ns, seed); per
   statement entry_statement(ordinal), statement_begin(g), step...; entry_end() at last, also on every way out by error.

   What was learnt about a text counts for one schema: after an entry whose seen() has HQ_SEEN_SCHEMA, and after a
   rollback (or ROLLBACK TO) of such an entry, drop the prepared statements and call schema_changed(g). A statement that
   SQLite re-prepares by itself does not tell in time that a new trigger reads changes(). */
#ifndef HQ_GUARD_H
#define HQ_GUARD_H

#include <stdint.h>

struct sqlite3;
struct sqlite3_stmt;

#define HQ_GUARD_API_VERSION 1

/* Roles of attach(). */
#define HQ_ROLE_WRITER 1    /* applies entries: DDL and DML of users, nothing that leaves the entry's transaction */
#define HQ_ROLE_READER 2    /* reads only */
#define HQ_ROLE_INSPECTOR 3 /* the writer's rules; prepares, never steps */

/* Bits of seen(). */
#define HQ_SEEN_CHANGES 0x0001u   /* may read changes(): in the text, a trigger, or a default or CHECK of the schema */
#define HQ_SEEN_VIRTUAL 0x0002u   /* touches a virtual table (eponymous ones such as json_each included) */
#define HQ_SEEN_SCHEMA 0x0004u    /* creates, drops or alters; REINDEX and ANALYZE too */
#define HQ_SEEN_RELOAD 0x0008u    /* ANALYZE, REINDEX, DROP of sqlite_stat*: every node reloads the schema after it */
#define HQ_SEEN_RANDOM 0x0010u    /* random(), randomblob() */
#define HQ_SEEN_TIME 0x0020u      /* a date or time function */
#define HQ_SEEN_DENIED 0x0040u    /* something was refused: see refusal() */
#define HQ_SEEN_RECURSIVE 0x0080u /* WITH RECURSIVE */
#define HQ_SEEN_INSERT 0x0100u    /* inserts into a table */
#define HQ_SEEN_UPDATE 0x0200u
#define HQ_SEEN_DELETE 0x0400u
#define HQ_SEEN_STAT 0x0800u    /* writes sqlite_stat*; refused unless the statement drops or analyzes */
#define HQ_SEEN_DROP 0x1000u    /* drops an object */
#define HQ_SEEN_LOCAL 0x2000u   /* reads what differs per node (build, page layout, _hiqlite_*); refused in writes */
#define HQ_SEEN_EXPLAIN 0x4000u /* EXPLAIN or EXPLAIN QUERY PLAN: changes nothing */
#define HQ_SEEN_READS 0x8000u   /* only reads (SELECT, VALUES, PRAGMA that reads, EXPLAIN) */
#define HQ_SEEN_CREATE_INDEX 0x10000u
#define HQ_SEEN_REMEMBERS 0x20000u /* touches a virtual table that may keep something beside the database */
#define HQ_SEEN_TRIGGER 0x40000u   /* a trigger that it fires writes */

/* Classes of refusal() and error_class(): the error classes of docs/formats.md section 4. */
#define HQ_CLASS_NONE 0
#define HQ_CLASS_STATEMENT 1
#define HQ_CLASS_CONSTRAINT 2
#define HQ_CLASS_SCHEMA 3
#define HQ_CLASS_EXPECTATION 4
#define HQ_CLASS_DETERMINISM 5
#define HQ_CLASS_USAGE 6
#define HQ_CLASS_PARAMETER 7
#define HQ_CLASS_MIGRATION 8
#define HQ_CLASS_SESSION 9
#define HQ_CLASS_NOT_KEPT 10

typedef struct hq_guard_api {
    int version; /* HQ_GUARD_API_VERSION */
    int size;    /* sizeof(hq_guard_api) */

    /* The guard of `db`, made and put in force when there is none yet (an existing one gets the new role).
       NULL: the extension was not loaded (guard.load), memory is short, or the role is unknown. */
    void *(*attach)(struct sqlite3 *db, int role);
    /* The guard of `db`, NULL if none. */
    void *(*of)(struct sqlite3 *db);
    /* Takes authorizer and hook off and frees the guard. Not while a statement of the connection runs. NULL is fine.
     */
    void (*detach)(void *guard);

    /* From here to entry_end(), this THREAD's clock stands still at wall_ns (nanoseconds since 1970) on every
       connection of the VFS `hiqlite`/`hiqlite-shared`, its random() comes from `seed`, and localtime/utc are
       refused. A second entry_begin() replaces the first: no nesting. */
    void (*entry_begin)(int64_t wall_ns, uint64_t seed);
    /* Restarts the generator for statement `ordinal` of this entry (0 after entry_begin). What a statement draws
       depends on (seed, ordinal) alone, so a replay that skips a failed neighbour draws the same. Does nothing
       outside an entry. */
    void (*entry_statement)(uint32_t ordinal);
    void (*entry_end)(void);
    int (*in_entry)(void);

    /* on: everything passes (our own statements). Off by default. Writer and reader roles alike. */
    void (*own_writes)(void *guard, int on);

    /* Clears seen(), refusal(), took_last_rowid() and wrote_rows(). prepare() does it by itself; call it before the first
       step of each execution, so that a refusal found afterwards belongs to that execution. */
    void (*statement_begin)(void *guard);

    /* sqlite3_prepare_v3 of the first statement in sql[0, size) under all rules, those included that need the text or
       the finished program (VACUUM, reserved names behind REFERENCES and RENAME TO, sqlite_stat*, node-dependent
       reads in writes). flags: SQLITE_PREPARE_*. tail may be NULL. sql need not end in 0. Empty text: SQLITE_OK and
       *stmt = NULL. Refused: SQLITE_AUTH, *stmt = NULL, reason by refusal(). Other errors: SQLite's code, text by
       sqlite3_errmsg(). */
    int (*prepare)(void *guard, const char *sql, int size, unsigned flags, struct sqlite3_stmt **stmt,
                   const char **tail);

    /* HQ_SEEN_* since statement_begin(): complete after prepare(). */
    uint32_t (*seen)(void *guard);

    /* Reason of the refusal since statement_begin() (of the authorizer, an override at run time, or localtime in this
       thread's entry): one English sentence without a full stop, or NULL. Valid until the next call with this guard.
     */
    const char *(*refusal)(void *guard);
    int (*refusal_class)(void *guard); /* HQ_CLASS_*, NONE without refusal */

    /* Class of a deterministic SQLite error: CONSTRAINT by code, SCHEMA by code or message (no such table ...), else
     * STATEMENT. */
    int (*error_class)(int extended_code, const char *message);

    /* Forget what was learnt of the schema (names of virtual tables, use of changes()). */
    void (*schema_changed)(void *guard);

    /* Whether a row with rowid 2^63-1 was written since statement_begin() (writer role): the statement must fail and
       be undone, because SQLite would pick random rowids in that table from then on. */
    int (*took_last_rowid)(void *guard);

    /* Whether any row of a table that has rowids was written since statement_begin() (writer role), undone or not. */
    int (*wrote_rows)(void *guard);
} hq_guard_api;

#endif
