"""The guard of SQLite connections, for Python: authorizer, entry clock, seeded chance (native/guard.h).

This very module is a SQLite extension: `load(connection)` makes the SQLite library inside apsw hand it its table of
functions (dlopen of the same file finds the module that Python imported), registers the VFS and stays loaded for ever.
Other extensions take `api_address()` and never go through Python.

Must not know: records, entries, Raft; it starts no thread. Invariant: a `Guard` never uses a closed connection, because
it asks apsw for the pointer at every call.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

cdef extern from "guard_parts.h" nogil:
    ctypedef struct sqlite3:
        pass
    ctypedef struct sqlite3_stmt:
        pass
    ctypedef struct hq_guard_api:
        int version
        void *(*attach)(sqlite3 *, int) noexcept nogil
        void *(*of)(sqlite3 *) noexcept nogil
        void (*detach)(void *) noexcept nogil
        void (*entry_begin)(int64_t, uint64_t) noexcept nogil
        void (*entry_statement)(uint32_t) noexcept nogil
        void (*entry_end)() noexcept nogil
        int (*in_entry)() noexcept nogil
        void (*own_writes)(void *, int) noexcept nogil
        void (*statement_begin)(void *) noexcept nogil
        int (*prepare)(void *, const char *, int, unsigned int, sqlite3_stmt **, const char **) noexcept nogil
        uint32_t (*seen)(void *) noexcept nogil
        const char *(*refusal)(void *) noexcept nogil
        int (*refusal_class)(void *) noexcept nogil
        int (*error_class)(int, const char *) noexcept nogil
        void (*schema_changed)(void *) noexcept nogil
        int (*took_last_rowid)(void *) noexcept nogil
    ctypedef struct hq_guard:
        pass
    const hq_guard_api *hq_guard_table()
    int hq_cost_is_bounded(hq_guard *, const char *, int)
    int hq_cost_shape(hq_guard *, const char *, int)
    int HQ_COST_LEVEL, HQ_COST_PLAIN
    int hq_guard_loaded()
    int sqlite3_bind_parameter_count(sqlite3_stmt *)
    const char *sqlite3_bind_parameter_name(sqlite3_stmt *, int)
    int sqlite3_column_count(sqlite3_stmt *)
    const char *sqlite3_column_name(sqlite3_stmt *, int)
    int sqlite3_finalize(sqlite3_stmt *)
    int sqlite3_extended_errcode(sqlite3 *)
    const char *sqlite3_errmsg(sqlite3 *)
    enum:
        SQLITE_AUTH
        HQ_ROLE_WRITER
        HQ_ROLE_READER
        HQ_ROLE_INSPECTOR
        HQ_SEEN_CHANGES
        HQ_SEEN_VIRTUAL
        HQ_SEEN_SCHEMA
        HQ_SEEN_RELOAD
        HQ_SEEN_RANDOM
        HQ_SEEN_TIME
        HQ_SEEN_DENIED
        HQ_SEEN_RECURSIVE
        HQ_SEEN_INSERT
        HQ_SEEN_UPDATE
        HQ_SEEN_DELETE
        HQ_SEEN_STAT
        HQ_SEEN_DROP
        HQ_SEEN_LOCAL
        HQ_SEEN_EXPLAIN
        HQ_SEEN_READS
        HQ_SEEN_CREATE_INDEX
        HQ_SEEN_REMEMBERS
        HQ_SEEN_TRIGGER

cdef const hq_guard_api *API = hq_guard_table()

SIZE_MAX = 0x7FFFFFFF  # sqlite3_prepare_v3 takes an int


def extension_path():
    """Path of the shared library that SQLite loads."""
    return __file__


def api_address():
    """Address of the `hq_guard_api` of native/guard.h, for other extensions. Valid for the life of the process."""
    return <uintptr_t>API


def is_loaded():
    """Whether some connection has loaded the extension, so that VFS and guards exist."""
    return bool(hq_guard_loaded())


def load(connection):
    """Loads the extension into an `apsw.Connection`; the first time also registers the VFS of this process."""
    connection.enable_load_extension(True)
    try:
        connection.load_extension(__file__, "sqlite3_guard_init")
    finally:
        connection.enable_load_extension(False)


def register_vfs():
    """Makes the VFS `hiqlite` and `hiqlite-shared` known, so that a file can be opened with them. Idempotent."""
    if hq_guard_loaded():
        return
    import apsw  # here, not above: the codecs of this package are imported where no SQLite is wanted

    connection = apsw.Connection(":memory:")
    try:
        load(connection)
    finally:
        connection.close()


def attach(uintptr_t db_pointer, int role):
    """Attaches a guard to the `sqlite3 *`; returns its address, for native code. 0: not loaded, or an unknown role."""
    return <uintptr_t>API.attach(<sqlite3 *>db_pointer, role)


def entry_begin(int64_t wall_ns, uint64_t seed):
    """From now on this thread's SQL sees that clock and generator, until `entry_end`."""
    API.entry_begin(wall_ns, seed)


def entry_statement(uint32_t ordinal):
    """Restarts the generator for one statement of the entry."""
    API.entry_statement(ordinal)


def entry_end():
    API.entry_end()


def in_entry():
    return bool(API.in_entry())


def error_class(int extended_code, str message):
    """Class (docs/formats.md section 4) of a deterministic SQLite error."""
    cdef bytes text = message.encode("utf-8", "replace")
    return API.error_class(extended_code, text)


cdef str text_or_none(const char *text):
    return None if text == NULL else (<bytes>text).decode("utf-8", "replace")


cdef class Program:
    """What preparing one statement told. Immutable."""

    cdef readonly int code                # 0, or SQLite's extended code
    cdef readonly str message             # of the error or refusal
    cdef readonly int error_class         # 0, or the class of docs/formats.md section 4
    cdef readonly bint refused            # by the guard, not by SQLite
    cdef readonly bint empty              # white space and comments only
    cdef readonly uint32_t seen           # SEEN_* bits
    cdef readonly int parameter_count
    cdef readonly tuple parameter_names   # without prefix; None for `?` and `?1`
    cdef readonly tuple column_names
    cdef readonly Py_ssize_t end          # offset of the first byte behind the statement


cdef int describe(Program program, sqlite3_stmt *stmt) except -1:
    cdef int i
    cdef const char *name
    names = []
    program.parameter_count = sqlite3_bind_parameter_count(stmt)
    for i in range(program.parameter_count):
        name = sqlite3_bind_parameter_name(stmt, i + 1)
        names.append(None if name == NULL or name[0] == c"?" else text_or_none(name + 1))
    program.parameter_names = tuple(names)
    columns = range(sqlite3_column_count(stmt))
    program.column_names = tuple([text_or_none(sqlite3_column_name(stmt, i)) for i in columns])
    return 0


cdef class Guard:
    """The guard of one apsw connection, kept until the connection closes.

    Args:
        connection: an `apsw.Connection` into which the extension was loaded.
        role: ROLE_WRITER, ROLE_READER or ROLE_INSPECTOR.
    """

    cdef readonly object connection
    cdef readonly int role

    def __init__(self, connection, int role):
        if API.attach(<sqlite3 *><uintptr_t>connection.sqlite3_pointer(), role) == NULL:
            raise ValueError("the guard extension is not loaded, or the role is unknown")
        self.connection = connection
        self.role = role

    cdef sqlite3 *db(self) except NULL:
        return <sqlite3 *><uintptr_t>self.connection.sqlite3_pointer()

    cdef void *guard(self) except NULL:
        cdef void *guard = API.of(self.db())
        if guard == NULL:
            raise ValueError("the guard was detached")
        return guard

    @property
    def address(self):
        """The `void *guard` of native/guard.h."""
        return <uintptr_t>self.guard()

    @property
    def seen(self):
        return API.seen(self.guard())

    @property
    def refusal(self):
        """Reason of the last refusal, or None."""
        return text_or_none(API.refusal(self.guard()))

    @property
    def refusal_class(self):
        return API.refusal_class(self.guard())

    @property
    def took_last_rowid(self):
        return bool(API.took_last_rowid(self.guard()))

    def own_writes(self, bint on):
        """While on, everything passes: statements of our own."""
        API.own_writes(self.guard(), on)

    def statement_begin(self):
        API.statement_begin(self.guard())

    def schema_changed(self):
        API.schema_changed(self.guard())

    def detach(self):
        """Takes the guard off; the connection is unguarded and lacks the functions that were forbidden."""
        API.detach(API.of(self.db()))

    def prepare(self, bytes sql not None, Py_ssize_t start=0):
        """Prepares the first statement of sql[start:] under all rules, and gives up the program again.

        Returns:
            A `Program`; its `code` is not 0 when SQLite or the guard said no.
        """
        cdef sqlite3 *db = self.db()
        cdef void *guard = self.guard()
        cdef sqlite3_stmt *stmt = NULL
        cdef const char *text = sql
        cdef const char *tail = NULL
        cdef Py_ssize_t size = len(sql) - start
        cdef int rc
        cdef Program program = Program.__new__(Program)
        if start < 0 or size < 0 or size > SIZE_MAX:
            raise ValueError("no such part of the text")
        with nogil:
            rc = API.prepare(guard, text + start, <int>size, 0, &stmt, &tail)
        try:
            program.seen = API.seen(guard)
            program.end = len(sql) if tail == NULL else tail - text
            program.message = ""
            program.parameter_names = program.column_names = ()
            program.empty = rc == 0 and stmt == NULL
            if rc == 0:
                if stmt != NULL:
                    describe(program, stmt)
                return program
            program.refused = API.refusal(guard) != NULL and rc == SQLITE_AUTH
            program.code = rc if program.refused else sqlite3_extended_errcode(db)
            program.message = text_or_none(API.refusal(guard) if program.refused else sqlite3_errmsg(db))
            program.error_class = (
                API.refusal_class(guard) if program.refused else API.error_class(program.code, sqlite3_errmsg(db))
            )
            return program
        finally:
            sqlite3_finalize(stmt)

    cdef int ask(self, bytes sql, bint of_shape) except -1:
        """What native/guard_cost.c says of this one statement; 0 of one that is too long."""
        cdef hq_guard *guard = <hq_guard *>self.guard()
        cdef const char *text = sql
        cdef Py_ssize_t size = len(sql)
        cdef int answer
        if size > SIZE_MAX - 16:
            return 0
        with nogil:
            answer = hq_cost_shape(guard, text, <int>size) if of_shape else hq_cost_is_bounded(guard, text, <int>size)
        return answer

    def is_bounded(self, bytes sql not None):
        """Whether the work of this one statement is known to be bounded by its text (native/guard_cost.c)."""
        return bool(self.ask(sql, False))

    def shape(self, bytes sql not None):
        """(level, plain) of this one statement, as `native/guard_parts.h` has it."""
        cdef int shape = self.ask(sql, True)
        return bool(shape & HQ_COST_LEVEL), bool(shape & HQ_COST_PLAIN)


ROLE_WRITER = HQ_ROLE_WRITER
ROLE_READER = HQ_ROLE_READER
ROLE_INSPECTOR = HQ_ROLE_INSPECTOR

SEEN_CHANGES = HQ_SEEN_CHANGES
SEEN_VIRTUAL = HQ_SEEN_VIRTUAL
SEEN_SCHEMA = HQ_SEEN_SCHEMA
SEEN_RELOAD = HQ_SEEN_RELOAD
SEEN_RANDOM = HQ_SEEN_RANDOM
SEEN_TIME = HQ_SEEN_TIME
SEEN_DENIED = HQ_SEEN_DENIED
SEEN_RECURSIVE = HQ_SEEN_RECURSIVE
SEEN_INSERT = HQ_SEEN_INSERT
SEEN_UPDATE = HQ_SEEN_UPDATE
SEEN_DELETE = HQ_SEEN_DELETE
SEEN_STAT = HQ_SEEN_STAT
SEEN_DROP = HQ_SEEN_DROP
SEEN_LOCAL = HQ_SEEN_LOCAL
SEEN_EXPLAIN = HQ_SEEN_EXPLAIN
SEEN_READS = HQ_SEEN_READS
SEEN_CREATE_INDEX = HQ_SEEN_CREATE_INDEX
SEEN_REMEMBERS = HQ_SEEN_REMEMBERS
SEEN_TRIGGER = HQ_SEEN_TRIGGER
