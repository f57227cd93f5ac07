# Values, rows and the growing buffer, for the other extensions. The meaning stands in plain/values.py, plain/rows.py.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "bytes.h" nogil:
    ctypedef struct hq_cursor:
        const uint8_t *p    # next byte to read
        const uint8_t *end  # first byte that must not be read
    bint hq_utf8_valid(const uint8_t *p, size_t size)
    size_t hq_left(const hq_cursor *at)
    uint16_t hq_get_u16(const uint8_t *p)
    uint32_t hq_get_u32(const uint8_t *p)
    uint64_t hq_get_u64(const uint8_t *p)
    int32_t hq_get_i32(const uint8_t *p)
    int64_t hq_get_i64(const uint8_t *p)
    void hq_put_u16(uint8_t *p, uint16_t v)
    void hq_put_u32(uint8_t *p, uint32_t v)
    void hq_put_u64(uint8_t *p, uint64_t v)
    void hq_put_i64(uint8_t *p, int64_t v)
    void hq_put_f64(uint8_t *p, double v)


cdef class Encoder:
    # A growing buffer. `size` may be set back by its user (to forget what a failed call appended), never forward.
    cdef uint8_t *data          # moves when it grows: never kept over a call that appends
    cdef Py_ssize_t size        # bytes in use
    cdef Py_ssize_t capacity    # bytes allocated
    cdef int grow(self, Py_ssize_t more) except -1

    cdef inline int reserve(self, Py_ssize_t more) except -1:
        # Room for `more` bytes behind `size`; size stays.
        if more > self.capacity - self.size:
            self.grow(more)
        return 0

    cdef inline int put_u8(self, uint8_t value) except -1:
        self.reserve(1)
        self.data[self.size] = value
        self.size += 1
        return 0

    cdef inline int put_u16(self, uint16_t value) except -1:
        self.reserve(2)
        hq_put_u16(self.data + self.size, value)
        self.size += 2
        return 0

    cdef inline int put_u32(self, uint32_t value) except -1:
        self.reserve(4)
        hq_put_u32(self.data + self.size, value)
        self.size += 4
        return 0

    cdef inline int put_u64(self, uint64_t value) except -1:
        self.reserve(8)
        hq_put_u64(self.data + self.size, value)
        self.size += 8
        return 0

    cdef inline int put_i64(self, int64_t value) except -1:
        return self.put_u64(<uint64_t>value)

    cdef inline int put_raw(self, const uint8_t *bytes, Py_ssize_t size) except -1:
        self.reserve(size)
        memcpy(self.data + self.size, bytes, size)
        self.size += size
        return 0

    cdef int put_integer(self, int64_t integer) except -1
    cdef int put_text(self, object value, Py_ssize_t position, object name) except -1
    cdef int put_body(self, uint8_t tag, const char *body, Py_ssize_t size, Py_ssize_t position, object name) except -1
    cdef int put_bytes(self, bytes value) except -1
    cdef int put_sized_bytes(self, bytes value) except -1                    # u32 size, then the bytes
    cdef int put_value(self, object value) except -1                         # one value of formats.md section 1
    cdef int put_parameter(self, object value, Py_ssize_t position, object name) except -1
    cdef int patch_u32(self, Py_ssize_t at, uint32_t value) except -1        # over bytes already appended
    cdef bytes cut(self, Py_ssize_t start)                                   # a copy of [start, size)


cdef class Columns:
    cdef readonly tuple names   # of exact str
    cdef dict numbers           # name -> column number, -1 for a name that occurs twice
    cdef Py_ssize_t size


cdef class Row:
    cdef Columns columns        # never None
    cdef tuple values           # never None; as many as the columns have names
    cdef object named(self, name, Py_ssize_t number)


cpdef Row new_row(Columns columns, tuple values)

# One value at the cursor. Text that is not UTF-8 raises UnicodeDecodeError, hostile bytes ProtocolError.
cdef object read_value(hq_cursor *at)
# Rows whose values stand behind one another at the cursor.
cdef list read_rows(hq_cursor *at, uint64_t row_count, Columns columns, bint bytes_for_bad_text)
