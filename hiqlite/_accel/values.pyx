"""Values and rows: Python values <-> the bytes of docs/formats.md section 1, and what a user sees as a row.

The exact built-in types take a short way through C; all else (subclasses, dates, Decimal, Json ...) is turned into
one of them by `plain/values.py`, the twin that defines the meaning. Must not know records, SQL, or where bytes come
from. Invariant: no byte is read beyond the end of what was given, and a row never changes.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject_GenericGetAttr, PyObject_RichCompare
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8

from collections.abc import Sequence

from hiqlite._accel.plain.rows import ambiguous, bad_text
from hiqlite._accel.plain.values import Json, refuse, storage
from hiqlite.errors import ProtocolError

__all__ = ["Columns", "Encoder", "Json", "Row", "decode_rows", "decode_values", "encode_values", "new_row", "storage"]


cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object, int *overflow) except? -1
    object PyLong_FromLongLong(long long)
    object PyFloat_FromDouble(double)
    double PyFloat_AS_DOUBLE(object)


cdef extern from "value.h" nogil:
    int HQ_NULL, HQ_INTEGER, HQ_REAL, HQ_TEXT, HQ_BLOB
    ctypedef struct hq_value:
        uint8_t tag
        uint32_t size
        const uint8_t *bytes
        int64_t integer
        double real
    int HQ_VALUE_OK, HQ_VALUE_SHORT, HQ_VALUE_BAD_REAL
    int hq_value_read(hq_cursor *at, int references_allowed, hq_value *value)


cdef enum:
    FIRST_CAPACITY = 1024
    SIZE_MAX = 0x7FFFFFFF  # of one TEXT or BLOB: SQLite's own upper limit


# --------------------------------------------------------------------------- encoding


@cython.final
cdef class Encoder:
    """A growing buffer of values and plain integers; appending is for C only."""

    def __cinit__(self):
        self.data = <uint8_t *>PyMem_Malloc(FIRST_CAPACITY)
        if self.data == NULL:
            raise MemoryError()
        self.capacity = FIRST_CAPACITY

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int grow(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t capacity = self.capacity
        cdef uint8_t *data
        if more < 0 or more > <Py_ssize_t>0x3FFFFFFFFFFFFFFF - self.size:
            raise MemoryError()
        while capacity - self.size < more:
            capacity *= 2
        data = <uint8_t *>PyMem_Realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError()
        self.data = data
        self.capacity = capacity
        return 0

    cdef int put_bytes(self, bytes value) except -1:
        return self.put_raw(<const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef int put_sized_bytes(self, bytes value) except -1:
        if PyBytes_GET_SIZE(value) > SIZE_MAX:
            raise MemoryError()
        self.put_u32(<uint32_t>PyBytes_GET_SIZE(value))
        return self.put_bytes(value)

    cdef int put_value(self, object value) except -1:
        return self.put_parameter(value, 0, None)

    cdef int put_parameter(self, object value, Py_ssize_t position, object name) except -1:
        """One value; `position` (from 1) or `name` is what an error calls it."""
        cdef int overflow = 0
        cdef long long integer
        cdef double real
        cdef object kind = type(value)
        if kind is int:
            integer = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow == 0:
                return self.put_integer(integer)
        elif kind is str:
            return self.put_text(value, position, name)
        elif value is None:
            return self.put_u8(HQ_NULL)
        elif kind is float:
            real = PyFloat_AS_DOUBLE(value)
            if real == real:
                self.reserve(9)
                self.data[self.size] = HQ_REAL
                hq_put_f64(self.data + self.size + 1, real)
                self.size += 9
                return 0
        elif kind is bool:
            return self.put_integer(1 if value else 0)
        elif kind is bytes:
            return self.put_body(HQ_BLOB, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), position, name)
        return self.put_parameter(storage(value, position, name), position, name)

    cdef int put_integer(self, int64_t integer) except -1:
        self.reserve(9)
        self.data[self.size] = HQ_INTEGER
        hq_put_i64(self.data + self.size + 1, integer)
        self.size += 9
        return 0

    cdef int put_text(self, object value, Py_ssize_t position, object name) except -1:
        cdef Py_ssize_t size
        cdef const char *utf8
        try:
            utf8 = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            storage(value, position, name)  # raises, naming the parameter
            raise
        return self.put_body(HQ_TEXT, utf8, size, position, name)

    cdef int put_body(self, uint8_t tag, const char *body, Py_ssize_t size, Py_ssize_t position, object name) except -1:
        if size > SIZE_MAX:
            refuse(position, name, f"{size} bytes are more than SQLite can hold in one value")
        self.reserve(size + 5)
        self.data[self.size] = tag
        hq_put_u32(self.data + self.size + 1, <uint32_t>size)
        memcpy(self.data + self.size + 5, body, size)
        self.size += size + 5
        return 0

    cdef int patch_u32(self, Py_ssize_t at, uint32_t value) except -1:
        assert 0 <= at <= self.size - 4
        hq_put_u32(self.data + at, value)
        return 0

    cdef bytes cut(self, Py_ssize_t start):
        assert 0 <= start <= self.size
        return PyBytes_FromStringAndSize(<char *>self.data + start, self.size - start)


def encode_values(values):
    """All values, one behind the other."""
    cdef Encoder encoder = Encoder.__new__(Encoder)
    cdef Py_ssize_t position = 0
    for value in values:
        position += 1
        encoder.put_parameter(value, position, None)
    return encoder.cut(0)


# --------------------------------------------------------------------------- decoding


cdef object read_value(hq_cursor *at):
    cdef hq_value value
    cdef int code = hq_value_read(at, 0, &value)
    if code == HQ_VALUE_SHORT:
        raise ProtocolError("value: the bytes end inside it")
    if code != HQ_VALUE_OK:
        raise ProtocolError("value: NaN" if code == HQ_VALUE_BAD_REAL else "value: unknown tag")
    if value.tag == HQ_INTEGER:
        return PyLong_FromLongLong(value.integer)
    if value.tag == HQ_TEXT:
        return PyUnicode_DecodeUTF8(<const char *>value.bytes, value.size, NULL)
    if value.tag == HQ_REAL:
        return PyFloat_FromDouble(value.real)
    if value.tag == HQ_BLOB:
        return PyBytes_FromStringAndSize(<const char *>value.bytes, value.size)
    return None


def decode_values(data, Py_ssize_t offset=0, Py_ssize_t count=1):
    """`count` values from `offset` on, and the offset behind them."""
    cdef Py_buffer view
    cdef hq_cursor at
    cdef Py_ssize_t i
    cdef list values = []
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        check_offset(&view, offset)
        at.p = <const uint8_t *>view.buf + offset
        at.end = <const uint8_t *>view.buf + view.len
        if not 0 <= count <= view.len - offset:
            raise ProtocolError("value: the bytes end inside it")
        for i in range(count):
            values.append(read_value(&at))
        return tuple(values), at.p - <const uint8_t *>view.buf
    except UnicodeDecodeError as error:
        raise ProtocolError("value: text is not UTF-8") from error
    finally:
        PyBuffer_Release(&view)


cdef int check_offset(Py_buffer *view, Py_ssize_t offset) except -1:
    if not 0 <= offset <= view.len:
        raise ProtocolError(f"offset {offset} lies outside of {view.len} bytes")
    return 0


# --------------------------------------------------------------------------- rows


@cython.final
@cython.no_gc  # holds names and numbers only: no cycle can go through it
cdef class Columns:
    """The column names of one result, shared by its rows."""

    def __cinit__(self, names):
        cdef Py_ssize_t number
        cdef list kept = []
        self.numbers = {}
        for number, name in enumerate(names):
            if type(name) is not str:
                if not isinstance(name, str):
                    raise TypeError("column names are text")
                name = str.__str__(name)
            self.numbers[name] = -1 if name in self.numbers else number
            kept.append(name)
        self.names = tuple(kept)
        self.size = len(kept)

    def __len__(self):
        return self.size

    def __eq__(self, other):
        return isinstance(other, Columns) and self.names == (<Columns>other).names

    def __hash__(self):
        return hash(self.names)

    def __reduce__(self):
        return (Columns, (self.names,))


cdef Columns NO_COLUMNS = Columns(())


@cython.final
@cython.no_gc  # values of SQLite's storage classes only: no cycle can go through it
@cython.freelist(256)
@cython.collection_type("sequence")
cdef class Row:
    """One row: an immutable sequence of values, also readable by column name.

    `row[0]`, `row["name"]` and `row.name` read a value; `keys()` and `asdict()` give names. It equals the tuple of
    its values. Methods win over columns for attribute access, so `row["count"]` is what always works.
    """

    def __cinit__(self):
        self.columns = NO_COLUMNS
        self.values = ()

    def __init__(self):
        """An empty row; `new_row` makes all others."""

    def keys(self):
        """The column names, in order."""
        return self.columns.names

    def asdict(self):
        """A new dict of column name -> value. Raises RowMappingError when a name occurs twice."""
        if len(self.columns.numbers) != self.columns.size:
            raise ambiguous(next(name for name, number in self.columns.numbers.items() if number < 0))
        return dict(zip(self.columns.names, self.values))

    def index(self, value, start=0, stop=0x7FFFFFFFFFFFFFFF):
        return self.values.index(value, start, stop)

    def count(self, value):
        return self.values.count(value)

    def __getitem__(self, key):
        if not isinstance(key, str):
            return (<object>self.values)[key]
        number = self.columns.numbers.get(key)
        if number is None:
            raise KeyError(f"no column {key!r}; there are {', '.join(self.columns.names)}")
        return self.named(key, number)

    def __getattribute__(self, name):
        # Columns first for speed, save where a method wins: the ordinary way raises and clears an error per column.
        number = self.columns.numbers.get(name)
        if number is not None and name not in ROW_ATTRIBUTES:
            return self.named(name, number)
        return PyObject_GenericGetAttr(self, name)

    def __getattr__(self, name):
        raise AttributeError(f"no column {name!r}; there are {', '.join(self.columns.names)}")

    cdef object named(self, name, Py_ssize_t number):
        if number < 0:
            raise ambiguous(name)
        return <object>PyTuple_GET_ITEM(self.values, number)

    def __setattr__(self, name, value):
        raise AttributeError("a row is immutable")

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def __contains__(self, value):
        return value in self.values

    def __richcmp__(self, other, int operation):
        if type(other) is Row:
            other = (<Row>other).values
        elif not isinstance(other, tuple):
            return NotImplemented
        return PyObject_RichCompare((<Row>self).values, other, operation)

    def __hash__(self):
        return hash(self.values)

    def __repr__(self):
        pairs = zip(self.columns.names, self.values)
        return f"Row({', '.join([f'{name}={value!r}' for name, value in pairs])})"

    def __reduce__(self):
        return (new_row, (self.columns, self.values))


Sequence.register(Row)
cdef frozenset ROW_ATTRIBUTES = frozenset(dir(Row))


cpdef Row new_row(Columns columns, tuple values):
    """The row of these values, which must be of SQLite's storage classes."""
    cdef Row row
    if columns is None or values is None or PyTuple_GET_SIZE(values) != columns.size:
        raise ValueError("a row needs columns and one value for each")
    row = Row.__new__(Row)
    row.columns = columns
    row.values = values
    return row


cdef list read_rows(hq_cursor *at, uint64_t row_count, Columns columns, bint bytes_for_bad_text):
    cdef uint64_t number
    cdef list rows = []
    # Each value takes a byte at least: a count that the bytes cannot hold ends here, not in memory.
    if row_count > 0 and (columns.size == 0 or row_count > hq_left(at) // <uint64_t>columns.size):
        raise ProtocolError("rows: the bytes end inside them")
    for number in range(row_count):
        rows.append(new_row(columns, read_tuple(at, columns, number, bytes_for_bad_text)))
    return rows


cdef tuple read_tuple(hq_cursor *at, Columns columns, uint64_t row_number, bint bytes_for_bad_text):
    cdef tuple values = PyTuple_New(columns.size)
    cdef Py_ssize_t i
    cdef const uint8_t *start
    cdef object value
    for i in range(columns.size):
        start = at.p
        try:
            value = read_value(at)
        except UnicodeDecodeError as error:
            if not bytes_for_bad_text:
                raise bad_text(columns.names[i], row_number) from error
            value = PyBytes_FromStringAndSize(<const char *>start + 5, at.p - start - 5)
        Py_INCREF(value)
        PyTuple_SET_ITEM(values, i, value)
    return values


def decode_rows(data, Py_ssize_t offset, Py_ssize_t row_count, Columns columns not None, *, bint bytes_for_bad_text=False):
    """`row_count` rows whose values stand behind one another from `offset` on."""
    cdef Py_buffer view
    cdef hq_cursor at
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        check_offset(&view, offset)
        if row_count < 0:
            raise ProtocolError("rows: the bytes end inside them")
        at.p = <const uint8_t *>view.buf + offset
        at.end = <const uint8_t *>view.buf + view.len
        return read_rows(&at, <uint64_t>row_count, columns, bytes_for_bad_text)
    finally:
        PyBuffer_Release(&view)
