"""Local reads: on the calling thread when the program is known to be short, on native reader threads otherwise.

Knows SQLite's C API and rows; must not know Raft, the event loop, or how connections are opened. Invariants: a
statement is reset and its bindings are cleared on every way out, so that no connection keeps a snapshot; what runs
on the calling thread was inspected (native/reads_inspect.c) and runs under a budget; reader threads never take the
GIL.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from hiqlite._accel.values cimport Columns, new_row

from hiqlite._accel.plain.read_errors import of_read, read_error
from hiqlite._accel.plain.read_params import checked_text, in_order, plain_values
from hiqlite._accel.plain.rows import bad_text
from hiqlite.errors import ParameterError, StorageError

__all__ = ["ReadConnection", "have_api"]


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object, int *overflow) except? -1
    double PyFloat_AS_DOUBLE(object)


cdef enum:
    TEXT_BYTES_MAX = 65536        # longer texts are prepared on a reader thread
    VALUE_BYTES_MAX = 65536       # longer values are read there
    RESULT_BYTES_MAX = 262144     # larger results too
    STEP_LIMIT_NS = 200_000       # time on the calling thread, after the first HQ_BUDGET_STEPS
    PREPARE_LIMIT_NS = 2_000_000
    RECHECK_NS = 5_000_000_000    # a program judged long may have become short by a new index
    SLOW_NS = 1_000_000_000       # how long a statement that passed its budget stays away; doubled up to 2^6 times
    SCHEMA_TRIES = 5


def have_api():
    """Whether SQLite's API was handed over (a connection has loaded this module as an extension)."""
    return bool(hq_reads_have_api())


@cython.final
@cython.internal
cdef class Statement:
    """One text as this connection knows it; without `handle` it is known to belong on a reader thread."""

    cdef sqlite3_stmt *handle
    cdef Columns columns
    cdef tuple names             # of its parameters, without prefix; None where one has no name
    cdef int parameters
    cdef int steps               # between two looks at the clock; 0: not short
    cdef int64_t judged_ns       # when it was found not to be short
    cdef int64_t slow_until_ns
    cdef int slow_times
    cdef bint used               # since the cache last looked for one to drop

    def __dealloc__(self):
        sqlite3_finalize(self.handle)


@cython.final
cdef class ReadConnection:
    """A connection for reads on the calling thread, which must be one and the same.

    Args:
        db_pointer: `sqlite3*` of a connection that outlives this object; nobody else may use it.
        capacity: prepared statements kept.
        guard_address: of the guard's functions (guard.api_address()); 0 when the connection has no guard.
    """

    cdef sqlite3 *db
    cdef const hq_guard_api *guard
    cdef hq_budget budget
    cdef hq_read_error error
    cdef dict statements
    cdef Py_ssize_t capacity
    cdef int schema_bytes_max           # of a value while the schema is read: a CREATE text may be long
    cdef readonly uint64_t served       # reads answered here
    cdef readonly uint64_t passed_on    # reads left to a reader thread
    cdef readonly uint64_t interrupted  # of these, because the budget was spent

    def __cinit__(self, uintptr_t db_pointer, Py_ssize_t capacity=1000, uintptr_t guard_address=0):
        if not hq_reads_have_api():
            raise StorageError("the reads extension was not loaded into SQLite")
        self.db = <sqlite3 *>db_pointer
        self.guard = <const hq_guard_api *>guard_address
        self.statements = {}
        self.capacity = max(1, capacity)
        self.schema_bytes_max = sqlite3_limit(self.db, SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
        sqlite3_busy_timeout(self.db, 0)

    def close(self):
        """Finalizes all statements; the connection can be closed then. Reads go to threads from now on."""
        if self.db != NULL:
            hq_budget_end(self.db, &self.budget)
        self.statements.clear()
        self.db = NULL

    def __len__(self):
        return len(self.statements)

    def is_short(self, sql):
        """Whether this text may run on the calling thread (prepares it when it is new)."""
        return self.db != NULL and self.statement(sql).steps > 0

    def try_rows(self, sql, params=(), *, bint bytes_for_bad_text=False):
        """The rows, or None when the read belongs on a reader thread.

        Raises:
            UsageError: it writes, is empty, or holds several statements. ParameterError: parameters do not fit.
            StatementError, SchemaError: SQLite refused it. RowMappingError: text that is not UTF-8.
        """
        cdef Statement statement
        cdef list rows
        cdef int tries
        for tries in range(SCHEMA_TRIES):
            if self.db == NULL:
                break
            statement = self.statement(sql)
            if statement.steps == 0 or (statement.slow_times and hq_reads_now_ns() < statement.slow_until_ns):
                break
            rows = self.run(statement, sql, params, bytes_for_bad_text)
            if rows is not None:
                self.served += 1
                return rows
            if statement.handle != NULL:
                break
            self.statements.pop(sql, None)  # the schema changed: prepare and inspect anew
        self.passed_on += 1
        return None

    cdef Statement statement(self, sql):
        cdef Statement statement = self.statements.get(sql) if type(sql) is str else None
        if statement is not None:
            if statement.steps > 0 or hq_reads_now_ns() - statement.judged_ns < <int64_t>RECHECK_NS:
                statement.used = True
                return statement
            del self.statements[sql]
        sqlite3_limit(self.db, SQLITE_LIMIT_LENGTH, self.schema_bytes_max)
        try:
            statement = self.prepare(sql)
        finally:
            sqlite3_limit(self.db, SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
        if len(sql) > TEXT_BYTES_MAX:
            return statement  # a reader thread's; to keep the text would cost more than to look at it again
        if len(self.statements) >= self.capacity:
            self.drop_one()
        self.statements[str.__str__(sql)] = statement
        return statement

    cdef int drop_one(self) except -1:
        """Second chance: the oldest one that was not used since it was last looked at goes."""
        cdef Statement statement
        while True:
            sql = next(iter(self.statements))
            statement = self.statements.pop(sql)
            if not statement.used:
                return 0
            statement.used = False
            self.statements[sql] = statement

    cdef Statement prepare(self, sql):
        cdef Statement statement = Statement.__new__(Statement)
        cdef bytes encoded = checked_text(sql)
        cdef const char *text = PyBytes_AS_STRING(encoded)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(encoded)
        cdef int flags, tries, code
        statement.judged_ns = hq_reads_now_ns()
        if size > TEXT_BYTES_MAX:
            return statement
        for tries in range(2):
            hq_budget_start(self.db, &self.budget, PREPARE_LIMIT_NS, HQ_BUDGET_STEPS)
            code = hq_reads_prepare(self.db, self.guard, text, <int>size, 0, &statement.handle, &self.error)
            if code == HQ_READ_OK:
                break
            if self.error.kind != HQ_READ_MEMORY and not (
                self.error.kind == HQ_READ_SQLITE and is_passing(self.error.code & 0xFF)
            ):
                raise self.failure(sql)
            if self.error.code != SQLITE_INTERRUPT:
                return statement
            # What took long may have been the schema, which is read once: without a limit, then try again.
            hq_budget_end(self.db, &self.budget)
            sqlite3_exec(self.db, b"SELECT 1 FROM sqlite_schema LIMIT 1", NULL, NULL, NULL)
        if statement.handle == NULL:
            return statement
        flags = hq_reads_inspect(self.db, text, <int>size)
        if flags & HQ_PROGRAM_TRANSACTION:
            raise read_error(HQ_READ_TRANSACTION, 0, "", sql)
        if flags & HQ_PROGRAM_SHORT:
            self.describe(statement)
            statement.steps = HQ_BUDGET_STEPS_CALLS if flags & HQ_PROGRAM_CALLS else HQ_BUDGET_STEPS
        else:
            sqlite3_finalize(statement.handle)
            statement.handle = NULL
        return statement

    cdef int describe(self, Statement statement) except -1:
        cdef sqlite3_stmt *handle = statement.handle
        cdef const char *name
        cdef list names = []
        cdef int i
        for i in range(sqlite3_column_count(handle)):
            name = sqlite3_column_name(handle, i)
            if name == NULL:
                raise MemoryError()
            names.append(name.decode("utf-8", "replace"))
        statement.columns = Columns(names)
        statement.parameters = sqlite3_bind_parameter_count(handle)
        names = []
        for i in range(1, statement.parameters + 1):
            name = sqlite3_bind_parameter_name(handle, i)
            names.append(None if name == NULL or name[0] == c"?" else (name + 1).decode("utf-8", "replace"))
        statement.names = tuple(names)
        return 0

    cdef list run(self, Statement statement, sql, params, bint bytes_for_bad_text):
        """Rows; None when a thread must do it, with the statement finalized when the schema changed."""
        cdef sqlite3_stmt *handle = statement.handle
        cdef list rows = []
        cdef tuple values
        cdef int code, primary, bound, failure = 0
        cdef Py_ssize_t left = RESULT_BYTES_MAX
        if type(params) is tuple:
            values = <tuple>params
        else:
            values = in_order(statement.names, params)
        hq_budget_start(self.db, &self.budget, STEP_LIMIT_NS, statement.steps)
        try:
            if PyTuple_GET_SIZE(values) != statement.parameters:
                raise of_read(ParameterError(
                    f"the statement has {statement.parameters} parameters, {len(values)} were given"
                ))
            bound = bind_all(handle, values)
            if bound == OTHER_TYPES:
                values = plain_values(values)  # kept until the step is over, because values are bound in place
                bound = bind_all(handle, values)
            if bound != BOUND:
                return None
            code = sqlite3_step(handle)
            while code == SQLITE_ROW and left >= 0:
                rows.append(new_row(statement.columns, row_values(handle, statement.columns, &left, bytes_for_bad_text)))
                code = sqlite3_step(handle)
        finally:
            failure = sqlite3_reset(handle)
            sqlite3_clear_bindings(handle)
            if not sqlite3_get_autocommit(self.db):
                sqlite3_exec(self.db, b"ROLLBACK", NULL, NULL, NULL)
        if code == SQLITE_DONE:
            statement.slow_times = 0
            return rows
        if code == SQLITE_ROW:
            return None
        primary = failure & 0xFF
        if primary == SQLITE_SCHEMA:
            sqlite3_finalize(handle)
            statement.handle = NULL
        elif primary == SQLITE_INTERRUPT:
            self.interrupted += 1
            statement.slow_until_ns = hq_reads_now_ns() + (<int64_t>SLOW_NS << min(statement.slow_times, 6))
            statement.slow_times += 1
        elif not is_passing(primary):
            hq_read_fail_sqlite(&self.error, self.db, sqlite3_extended_errcode(self.db))
            raise self.failure(sql)
        return None

    cdef object failure(self, sql):
        return read_error(self.error.kind, self.error.code, self.error.text.decode("utf-8", "replace"), sql)


cdef inline bint is_passing(int primary) noexcept:
    """Results that say nothing about the statement: a reader thread, with other limits, finds out."""
    return (primary == SQLITE_INTERRUPT or primary == SQLITE_TOOBIG or primary == SQLITE_BUSY
            or primary == SQLITE_LOCKED or primary == SQLITE_NOMEM)


cdef enum:
    BOUND = 0
    TOO_BIG = 1      # for the calling thread
    OTHER_TYPES = 2  # among the values


cdef int bind_all(sqlite3_stmt *handle, tuple values) except -1:
    """Binds exact built-in types in place: `values` must outlive the step."""
    cdef Py_ssize_t i, size = 0
    cdef int overflow = 0, code
    cdef long long integer
    cdef const char *utf8
    cdef object value, kind
    for i in range(PyTuple_GET_SIZE(values)):
        value = <object>PyTuple_GET_ITEM(values, i)
        kind = type(value)
        if kind is int:
            integer = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                return OTHER_TYPES  # which refuses it, naming the parameter
            code = sqlite3_bind_int64(handle, <int>i + 1, integer)
        elif kind is str:
            try:
                utf8 = PyUnicode_AsUTF8AndSize(value, &size)
            except UnicodeEncodeError:
                return OTHER_TYPES
            if size > VALUE_BYTES_MAX:
                return TOO_BIG
            code = sqlite3_bind_text(handle, <int>i + 1, utf8, <int>size, NULL)
        elif value is None:
            code = sqlite3_bind_null(handle, <int>i + 1)
        elif kind is float and PyFloat_AS_DOUBLE(value) == PyFloat_AS_DOUBLE(value):
            code = sqlite3_bind_double(handle, <int>i + 1, PyFloat_AS_DOUBLE(value))
        elif kind is bytes:
            if PyBytes_GET_SIZE(value) > VALUE_BYTES_MAX:
                return TOO_BIG
            code = sqlite3_bind_blob(handle, <int>i + 1, PyBytes_AS_STRING(value), <int>PyBytes_GET_SIZE(value), NULL)
        else:
            return OTHER_TYPES
        if code != SQLITE_OK:
            return TOO_BIG
    return BOUND


cdef tuple row_values(sqlite3_stmt *handle, Columns columns, Py_ssize_t *left, bint bytes_for_bad_text):
    """The current row; `left` goes down by the bytes of its texts and blobs."""
    cdef Py_ssize_t i, count = columns.size
    cdef tuple values = PyTuple_New(count)
    cdef sqlite3_value *cell
    cdef const char *body
    cdef object value
    cdef int kind, size
    for i in range(count):
        cell = sqlite3_column_value(handle, <int>i)
        kind = sqlite3_value_type(cell)
        if kind == SQLITE_INTEGER:
            value = sqlite3_value_int64(cell)
        elif kind == SQLITE_TEXT:
            body = <const char *>sqlite3_value_text(cell)
            size = sqlite3_value_bytes(cell)
            left[0] -= size
            try:
                value = PyUnicode_DecodeUTF8(body, size, NULL)
            except UnicodeDecodeError as error:
                if not bytes_for_bad_text:
                    raise bad_text(columns.names[i], 0) from error
                value = PyBytes_FromStringAndSize(body, size)
        elif kind == SQLITE_FLOAT:
            value = sqlite3_value_double(cell)
        elif kind == SQLITE_BLOB:
            body = <const char *>sqlite3_value_blob(cell)
            size = sqlite3_value_bytes(cell)
            left[0] -= size
            value = PyBytes_FromStringAndSize(body, size)
        else:
            value = None
        Py_INCREF(value)
        PyTuple_SET_ITEM(values, i, value)
    return values
