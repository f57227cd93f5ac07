"""Answers: what applying an entry gave (docs/formats.md section 4), as results, rows and errors.

plain/answers.py is the twin that defines the meaning, and holds what is not worth C. Must not know SQL or who waits.
Invariant: an answer is either decoded in full, or raised as the error it carries, or refused as a ProtocolError; no
byte beyond its end is read.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, uint16_t, uint32_t

from hiqlite._accel.plain.answers import (
    Done, Failed, Returned, StatementResult, applied, encode_answer, error_of, shown, sql_at,
)
from hiqlite._accel.values cimport (
    Columns, hq_cursor, hq_get_i32, hq_get_i64, hq_get_u16, hq_get_u32, hq_get_u64, hq_left, read_rows,
)
from hiqlite.errors import HiqliteError, ProtocolError, RowMappingError, StatementError

__all__ = [
    "Done", "ExecuteResult", "Failed", "Returned", "StatementResult", "decode_batch", "decode_execute", "decode_many",
    "decode_returning", "decode_txn", "encode_answer",
]

cdef enum:
    VERSION = 1
    HEAD_SIZE = 8
    RESULT_SIZE = 24
    ERROR_SIZE = 16
    DONE = 0
    FAILED = 1
    ROWS = 2
    STATUS_DONE = 0
    STATUS_NOTHING_REMAINS = 1
    STATUS_PART_REMAINS = 2
    REPEATED = 1


@cython.final
@cython.freelist(256)
cdef class ExecuteResult:
    """What a write did: rows changed, the rowid of its last insert (0 if none), and its place in the log."""

    __match_args__ = ("rows_affected", "last_insert_rowid", "log_index")

    def __cinit__(self, int64_t rows_affected=0, int64_t last_insert_rowid=0, uint64_t log_index=0):
        self.rows_affected = rows_affected
        self.last_insert_rowid = last_insert_rowid
        self.log_index = log_index

    def __iter__(self):
        return iter((self.rows_affected, self.last_insert_rowid, self.log_index))

    def __eq__(self, other):
        if type(other) is not ExecuteResult:
            return NotImplemented
        return tuple(self) == tuple(other)

    def __hash__(self):
        return hash((self.rows_affected, self.last_insert_rowid, self.log_index))

    def __repr__(self):
        return (f"ExecuteResult(rows_affected={self.rows_affected}, last_insert_rowid={self.last_insert_rowid}, "
                f"log_index={self.log_index})")

    def __reduce__(self):
        return (ExecuteResult, (self.rows_affected, self.last_insert_rowid, self.log_index))


cdef ExecuteResult new_result(int64_t rows_affected, int64_t last_insert_rowid, uint64_t log_index):
    cdef ExecuteResult result = ExecuteResult.__new__(ExecuteResult)
    result.rows_affected = rows_affected
    result.last_insert_rowid = last_insert_rowid
    result.log_index = log_index
    return result


# --------------------------------------------------------------------------- reading


cdef class Answer:
    """The bytes of an answer for as long as it is read; `at` stands behind what was read so far."""

    cdef Py_buffer view
    cdef hq_cursor at
    cdef int status
    cdef uint32_t left         # results not read yet
    cdef uint64_t log_index
    cdef object texts          # of the statements, for errors
    cdef bint strict_text      # rows that somebody reads: text that is not UTF-8 is an error; else it comes as bytes

    def __cinit__(self, data, uint64_t log_index, texts):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.at.p = <const uint8_t *>self.view.buf
        self.at.end = self.at.p + self.view.len
        self.log_index = log_index
        self.texts = texts
        self.left = open_answer(&self.at, &self.status, &self.log_index)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef const uint8_t *step(self, hq_cursor *tail) except NULL:
        """The head of the next result, checked; `tail` holds what belongs to it."""
        cdef const uint8_t *head
        cdef uint32_t size
        need(&self.at, RESULT_SIZE)
        head = self.at.p
        size = hq_get_u32(head + 4)
        if (hq_get_u32(head) >> 8) != 0 or head[0] > ROWS or (head[0] == DONE and size != 0):
            raise ProtocolError("answer: a result that contradicts the format")
        self.at.p += RESULT_SIZE
        need(&self.at, size)
        tail.p = self.at.p
        self.at.p += size
        tail.end = self.at.p
        self.left -= 1
        if self.left == 0 and hq_left(&self.at) != 0:
            raise ProtocolError("answer: bytes are left over")
        return head

    cdef tuple next(self):
        """(ExecuteResult, rows or None) or (error, None)."""
        cdef hq_cursor tail
        cdef bint remains
        cdef const uint8_t *head = self.step(&tail)
        if head[0] == FAILED:
            remains = hq_get_i64(head + 16) != 0
            return read_error(&tail, self.texts, STATUS_PART_REMAINS if remains else self.status), None
        rows = read_result_rows(&tail, not self.strict_text) if head[0] == ROWS else None
        return new_result(hq_get_i64(head + 8), hq_get_i64(head + 16), self.log_index), rows

    cdef list results(self):
        cdef list found = []
        while self.left > 0:
            found.append(self.next())
        return found

    cdef list counts(self):
        """The ExecuteResults of an entry that succeeded as a whole, its rows dropped: bulk writes end here."""
        cdef list found = []
        cdef hq_cursor tail
        cdef const uint8_t *head
        while self.left > 0:
            head = self.step(&tail)
            if head[0] == FAILED:
                raise ProtocolError("answer: an error in an entry that succeeded")
            if head[0] == ROWS:
                read_result_rows(&tail, True)
            found.append(new_result(hq_get_i64(head + 8), hq_get_i64(head + 16), self.log_index))
        return found

    cdef list done(self):
        """The results of an entry that succeeded as a whole; raises the error of one that did not."""
        cdef list found = self.results()
        errors = [result for result, _ in found if isinstance(result, HiqliteError)]
        if self.status != STATUS_DONE:
            if len(found) != 1 or not errors:
                raise ProtocolError("answer: a failure without exactly one error")
            raise errors[0]
        if errors:
            raise ProtocolError("answer: an error in an entry that succeeded")
        return found


cdef int need(const hq_cursor *at, size_t size) except -1:
    if hq_left(at) < size:
        raise ProtocolError("answer: the bytes end inside it")
    return 0


cdef uint32_t open_answer(hq_cursor *at, int *status, uint64_t *log_index) except? 0xFFFFFFFF:
    cdef uint32_t count
    cdef uint16_t flags
    need(at, HEAD_SIZE)
    status[0] = at.p[1]
    flags = hq_get_u16(at.p + 2)
    if at.p[0] != VERSION or at.p[1] > STATUS_PART_REMAINS or flags > REPEATED:
        raise ProtocolError("answer: a header that contradicts the format")
    count = hq_get_u32(at.p + 4)
    at.p += HEAD_SIZE
    if flags & REPEATED:  # it was given before, by the entry whose index stands at the end
        need(at, 8)
        at.end -= 8
        log_index[0] = hq_get_u64(at.end) or log_index[0]
    if <uint64_t>count * RESULT_SIZE > hq_left(at):
        raise ProtocolError("answer: the bytes end inside it")
    if count == 0 and hq_left(at) != 0:
        raise ProtocolError("answer: bytes are left over")
    return count


cdef object read_error(hq_cursor *tail, object texts, int status):
    cdef uint16_t error_class
    cdef int32_t extended_code
    cdef uint32_t statement_index
    need(tail, ERROR_SIZE)
    error_class = hq_get_u16(tail.p)
    extended_code = hq_get_i32(tail.p + 4)
    statement_index = hq_get_u32(tail.p + 8)
    if hq_get_u16(tail.p + 2) != 0 or hq_get_u32(tail.p + 12) != hq_left(tail) - ERROR_SIZE:
        raise ProtocolError("answer: an error that contradicts the format")
    message = PyUnicode_DecodeUTF8(<const char *>tail.p + ERROR_SIZE, hq_left(tail) - ERROR_SIZE, "replace")
    sql = sql_at(texts, statement_index)
    return error_of(error_class, extended_code, statement_index, message, sql, status)


cdef list read_result_rows(hq_cursor *tail, bint bytes_for_bad_text):
    cdef uint32_t column_count, row_count
    cdef uint16_t size
    cdef list names = [], rows
    need(tail, 8)
    column_count = hq_get_u32(tail.p)
    row_count = hq_get_u32(tail.p + 4)
    tail.p += 8
    for _ in range(column_count):
        need(tail, 2)
        size = hq_get_u16(tail.p)
        tail.p += 2
        need(tail, size)
        names.append(PyUnicode_DecodeUTF8(<const char *>tail.p, size, "replace"))
        tail.p += size
    try:
        rows = read_rows(tail, row_count, Columns(names), bytes_for_bad_text)
    except RowMappingError as error:
        raise applied(error) from error.__cause__
    if hq_left(tail) != 0:
        raise ProtocolError("answer: bytes are left over")
    return rows


# --------------------------------------------------------------------------- one function per kind of call


cdef object settle_execute(const uint8_t *p, Py_ssize_t size, uint64_t log_index, object sql, bint *failed):
    failed[0] = False
    if is_plain_success(p, size):
        return new_result(hq_get_i64(p + HEAD_SIZE + 8), hq_get_i64(p + HEAD_SIZE + 16), log_index)
    try:
        return single(p[:size], log_index, sql, False)[0]
    except Exception as error:
        failed[0] = True
        return error


cdef bint is_plain_success(const uint8_t *p, Py_ssize_t size) noexcept:
    """One result, done, without rows: nearly every answer there is. Its first 16 bytes are then fixed."""
    return (size == HEAD_SIZE + RESULT_SIZE and hq_get_u32(p) == VERSION and hq_get_u32(p + 4) == 1
            and hq_get_u32(p + 8) == DONE and hq_get_u32(p + 12) == 0)


cdef tuple single(answer, uint64_t log_index, sql, bint strict_text):
    cdef Answer opened = Answer(answer, log_index, (sql,))
    cdef list found
    opened.strict_text = strict_text
    found = opened.done()
    if len(found) != 1:
        raise ProtocolError("answer: not exactly one result")
    return found[0]


def decode_execute(answer, uint64_t log_index, sql=None):
    """The result of one `execute`, or raises what applying it gave."""
    cdef const uint8_t *p
    if type(answer) is bytes:
        p = <const uint8_t *><char *>(<bytes>answer)
        if is_plain_success(p, len(<bytes>answer)):
            return new_result(hq_get_i64(p + HEAD_SIZE + 8), hq_get_i64(p + HEAD_SIZE + 16), log_index)
    return single(answer, log_index, sql, False)[0]


def decode_returning(answer, uint64_t log_index, sql=None, *, bint bytes_for_bad_text=False):
    """Rows and result of one `execute_returning`."""
    result, rows = single(answer, log_index, sql, not bytes_for_bad_text)
    return rows or [], result


def decode_many(answer, uint64_t log_index, sql=None):
    """The results of one `execute_many`, whose statements share one text."""
    try:
        return decode_counts(answer, log_index)
    except StatementError as error:
        error.sql = shown(sql)
        raise


def decode_counts(answer, uint64_t log_index, texts=()):
    """One ExecuteResult per statement of a `txn` whose rows nobody wants; `texts` are its statements, in order."""
    cdef Answer opened = Answer(answer, log_index, texts)
    if opened.status == STATUS_DONE:
        return opened.counts()
    return opened.done()


def decode_txn(answer, uint64_t log_index, texts=()):
    """One StatementResult per statement of a `txn`; `texts` are its statements, in order."""
    cdef Answer opened = Answer(answer, log_index, texts)
    opened.strict_text = True
    return [StatementResult(result, rows) for result, rows in opened.done()]


def decode_batch(answer, uint64_t log_index):
    """One ExecuteResult or error per statement of a batch; raises when the entry failed as a whole."""
    cdef Answer opened = Answer(answer, log_index, ())
    if opened.status != STATUS_DONE:
        return opened.done()
    return [result for result, _ in opened.results()]
