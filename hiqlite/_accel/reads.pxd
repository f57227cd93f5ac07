# SQLite's C API as far as reads use it (through native/reads.h: the library inside apsw), and reads.h itself.
from libc.stdint cimport int64_t


cdef extern from "reads.h" nogil:
    ctypedef struct sqlite3:
        pass
    ctypedef struct sqlite3_stmt:
        pass
    ctypedef struct sqlite3_value:
        pass
    int SQLITE_OK, SQLITE_ROW, SQLITE_DONE, SQLITE_BUSY, SQLITE_LOCKED, SQLITE_NOMEM, SQLITE_INTERRUPT
    int SQLITE_TOOBIG, SQLITE_SCHEMA, SQLITE_LIMIT_LENGTH, SQLITE_INTEGER, SQLITE_FLOAT, SQLITE_TEXT, SQLITE_BLOB
    int sqlite3_step(sqlite3_stmt *)
    int sqlite3_reset(sqlite3_stmt *)
    int sqlite3_finalize(sqlite3_stmt *)
    int sqlite3_clear_bindings(sqlite3_stmt *)
    int sqlite3_bind_null(sqlite3_stmt *, int)
    int sqlite3_bind_int64(sqlite3_stmt *, int, int64_t)
    int sqlite3_bind_double(sqlite3_stmt *, int, double)
    int sqlite3_bind_text(sqlite3_stmt *, int, const char *, int, void (*)(void *))
    int sqlite3_bind_blob(sqlite3_stmt *, int, const void *, int, void (*)(void *))
    int sqlite3_bind_parameter_count(sqlite3_stmt *)
    const char *sqlite3_bind_parameter_name(sqlite3_stmt *, int)
    int sqlite3_column_count(sqlite3_stmt *)
    const char *sqlite3_column_name(sqlite3_stmt *, int)
    sqlite3_value *sqlite3_column_value(sqlite3_stmt *, int)
    int sqlite3_value_type(sqlite3_value *)
    int64_t sqlite3_value_int64(sqlite3_value *)
    double sqlite3_value_double(sqlite3_value *)
    const unsigned char *sqlite3_value_text(sqlite3_value *)
    const void *sqlite3_value_blob(sqlite3_value *)
    int sqlite3_value_bytes(sqlite3_value *)
    int sqlite3_extended_errcode(sqlite3 *)
    int sqlite3_get_autocommit(sqlite3 *)
    int sqlite3_limit(sqlite3 *, int, int)
    int sqlite3_busy_timeout(sqlite3 *, int)
    int sqlite3_exec(sqlite3 *, const char *, void *, void *, void *)

    int HQ_READ_OK, HQ_READ_SQLITE, HQ_READ_TRANSACTION, HQ_READ_MEMORY
    int HQ_PROGRAM_SHORT, HQ_PROGRAM_TRANSACTION, HQ_PROGRAM_CALLS
    int HQ_BUDGET_STEPS, HQ_BUDGET_STEPS_CALLS
    ctypedef struct hq_guard_api:
        pass
    ctypedef struct hq_read_error:
        int kind
        int code
        char text[480]
    ctypedef struct hq_budget:
        pass
    int hq_reads_have_api()
    int64_t hq_reads_now_ns()
    void hq_read_fail_sqlite(hq_read_error *error, sqlite3 *db, int code)
    int hq_reads_prepare(sqlite3 *, const hq_guard_api *, const char *sql, int size, int renew, sqlite3_stmt **, hq_read_error *)
    int hq_reads_inspect(sqlite3 *, const char *sql, int size)
    void hq_budget_start(sqlite3 *, hq_budget *, int64_t limit_ns, int steps)
    void hq_budget_end(sqlite3 *, hq_budget *)
