"""Command payloads (docs/formats.md section 3): what one write call asks for, written and checked in C.

The checking stands in native/command.h; plain/commands.py and plain/command_view.py are the twins that define the
meaning. Must not know SQL: a text is text. Invariant: what is written here passes `command_view`, and an append that
failed leaves nothing in its encoder.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr

from hiqlite._accel.plain.command_view import CommandView, StatementView, command_error
from hiqlite._accel.plain.commands import (
    FOREIGN_KEYS_OFF, ROWS_WANTED, Operation, Reference, check_counts, check_expectation, check_reference,
    in_statement, is_named, name_bytes, nul_in_text, too_large, too_many_parameters, utf8,
)
from hiqlite._accel.plain.records import REASONS
from hiqlite._accel.values cimport hq_cursor, hq_put_u16, hq_put_u32, hq_put_u64
from hiqlite.errors import ParameterError, ProtocolError, UsageError

__all__ = [
    "FOREIGN_KEYS_OFF", "ROWS_WANTED", "CommandView", "Operation", "Reference", "StatementView", "command_view",
    "encode_batch", "encode_command", "encode_migration", "in_session",
]


cdef extern from "record.h" nogil:
    enum:
        HQ_RECORD_HEADER, HQ_AT_KIND, HQ_AT_ENTRY_KIND, HQ_KIND_ENTRY, HQ_ENTRY_COMMAND, HQ_ENTRY_MIGRATION
        HQ_RECORD_OK, HQ_RECORD_BAD_SHAPE, HQ_CHECK_PAYLOAD, HQ_PAYLOAD_MAX
    uint32_t hq_record_length(const uint8_t *p)
    uint32_t hq_record_payload_length(const uint8_t *p)
    uint64_t hq_record_padded(uint64_t payload_length)
    int hq_record_check(const uint8_t *p, size_t left, int what)
    void hq_record_open(uint8_t *p, uint8_t kind, uint8_t entry_kind, uint32_t payload_length)


cdef extern from "command.h" nogil:
    enum:
        HQ_COMMAND_HEADER, HQ_COMMAND_VERSION, HQ_STATEMENT_HEADER, HQ_PARAMETERS_MAX, HQ_COMMAND_BAD_HEADER
        HQ_OP_EXECUTE, HQ_OP_BATCH, HQ_OP_MIGRATION, HQ_STATEMENT_NAMED, HQ_STATEMENT_EXPECTS
        HQ_REF_NUMBER, HQ_REF_NAME
    ctypedef struct hq_text:
        const char *utf8
        uint32_t size
    ctypedef struct hq_command:
        uint8_t operation
        uint16_t flags, request_id_size
        uint32_t statement_count
        uint64_t session, sequence, window_low
        const uint8_t *request_id
    ctypedef struct hq_statement:
        uint16_t text_number, flags
        uint32_t parameter_count
        int64_t expected_rows
        hq_cursor parameters
    ctypedef struct hq_parameter:
        const uint8_t *name
        uint16_t name_size
    int hq_command_check(hq_command *command, const uint8_t *payload, size_t size)
    int hq_command_open(hq_command *command, const uint8_t *payload, size_t size)
    hq_cursor hq_command_texts(const hq_command *command)
    hq_cursor hq_command_statements(const hq_command *command)
    int hq_text_next(hq_cursor *at, hq_text *text)
    int hq_statement_next(const hq_command *command, hq_cursor *at, hq_statement *statement)
    int hq_parameter_next(const hq_command *command, const hq_statement *statement, hq_cursor *at, hq_parameter *out)


cdef int begin_record(Encoder encoder) except -1:
    encoder.reserve(HQ_RECORD_HEADER)
    encoder.size += HQ_RECORD_HEADER
    return 0


cdef int end_record(Encoder encoder, Py_ssize_t start, uint8_t kind, uint8_t entry_kind) except -1:
    cdef Py_ssize_t payload = encoder.size - start - HQ_RECORD_HEADER
    if <uint64_t>payload > HQ_PAYLOAD_MAX:
        raise UsageError(f"a payload of {payload} bytes does not fit a record")
    encoder.reserve(8)
    hq_record_open(encoder.data + start, kind, entry_kind, <uint32_t>payload)
    encoder.size = start + <Py_ssize_t>hq_record_padded(payload)
    return 0


# --------------------------------------------------------------------------- writing commands


cdef int begin_command(Encoder encoder, int operation, int flags, uint32_t statement_count, tuple origin) except -1:
    """Record header's place, payload header, request id. `origin`: (session, sequence, window low, id) or None."""
    cdef uint8_t *p
    cdef int i
    cdef bytes request_id = b""
    begin_record(encoder)
    encoder.reserve(HQ_COMMAND_HEADER)
    p = encoder.data + encoder.size
    p[0] = HQ_COMMAND_VERSION
    p[1] = operation
    hq_put_u16(p + 2, flags)
    hq_put_u32(p + 4, statement_count)
    for i in range(4):
        hq_put_u64(p + 8 + 8 * i, 0)
    if origin is not None:
        for i in range(3):
            hq_put_u64(p + 8 + 8 * i, origin[i])
        request_id = utf8(origin[3], "the request id")
        if PyBytes_GET_SIZE(request_id) > 0xFFFF:
            raise UsageError("a request id has at most 65535 bytes")
        hq_put_u16(p + 32, <uint16_t>PyBytes_GET_SIZE(request_id))
    encoder.size += HQ_COMMAND_HEADER
    return encoder.put_bytes(request_id)


cdef int put_sql(Encoder encoder, bytes text) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    if memchr(PyBytes_AS_STRING(text), 0, size) != NULL:
        raise nul_in_text()
    encoder.put_sized_bytes(text)
    return encoder.put_u8(0)


cdef int put_value(Encoder encoder, int operation, uint32_t number, object value, Py_ssize_t position, object name) except -1:
    cdef bytes column
    if type(value) is not Reference:
        return encoder.put_parameter(value, position, name)
    check_reference(operation, number, value, position, name)
    if not isinstance(value.column, str):
        encoder.put_u8(HQ_REF_NUMBER)
        encoder.put_u32(value.statement)
        return encoder.put_u32(value.column)
    column = name_bytes(value.column)
    encoder.put_u8(HQ_REF_NAME)
    encoder.put_u32(value.statement)
    return encoder.put_sized_bytes(column)


cdef int put_statement(Encoder encoder, int operation, uint32_t number, uint16_t text_number, object params,
                       object expected) except -1:
    cdef Py_ssize_t start = encoder.size, count = 0
    cdef uint16_t flags = 0
    cdef bytes name_utf8
    cdef uint8_t *p
    encoder.reserve(4 + HQ_STATEMENT_HEADER)
    encoder.size += 4 + HQ_STATEMENT_HEADER
    if expected is not None:
        flags = check_expectation(expected)
    if type(params) is tuple:
        for value in <tuple>params:
            count += 1
            put_value(encoder, operation, number, value, count, None)
    elif type(params) is list or not is_named(params):
        for value in params:
            count += 1
            put_value(encoder, operation, number, value, count, None)
    else:
        flags |= HQ_STATEMENT_NAMED
        for name, value in params.items():
            count += 1
            name_utf8 = name_bytes(name)
            encoder.put_u16(<uint16_t>PyBytes_GET_SIZE(name_utf8))
            encoder.put_bytes(name_utf8)
            put_value(encoder, operation, number, value, 0, name)
    if count > HQ_PARAMETERS_MAX:
        raise too_many_parameters(count)
    if encoder.size - start - 4 > <Py_ssize_t>0xFFFFFFFF:
        raise too_large(encoder.size - start, 0xFFFFFFFF)
    p = encoder.data + start
    hq_put_u32(p, <uint32_t>(encoder.size - start - 4))
    hq_put_u16(p + 4, text_number)
    hq_put_u16(p + 6, flags)
    hq_put_u32(p + 8, <uint32_t>count)
    hq_put_u64(p + 12, 0 if expected is None else expected)
    return 0


cdef int append_execute(Encoder encoder, bytes text_utf8, object params, int flags, uint64_t session, uint64_t sequence,
                        uint64_t window_low) except -1:
    cdef Py_ssize_t start = encoder.size
    try:
        begin_command(encoder, HQ_OP_EXECUTE, flags, 1, None)
        hq_put_u64(encoder.data + start + HQ_RECORD_HEADER + 8, session)
        hq_put_u64(encoder.data + start + HQ_RECORD_HEADER + 16, sequence)
        hq_put_u64(encoder.data + start + HQ_RECORD_HEADER + 24, window_low)
        hq_put_u16(encoder.data + start + HQ_RECORD_HEADER + 34, 1)  # one text
        put_sql(encoder, text_utf8)
        put_statement(encoder, HQ_OP_EXECUTE, 0, 0, params, None)
        return end_record(encoder, start, HQ_KIND_ENTRY, HQ_ENTRY_COMMAND)
    except BaseException:
        encoder.size = start
        raise


def encode_command(int operation, statements, *, int flags=0, uint64_t session=0, uint64_t sequence=0,
                   uint64_t window_low=0, request_id="", expects=None, Py_ssize_t size_max=0xFFFFFFF0):
    """The complete unsealed record of an execute, execute_many or txn; see the twin for the arguments."""
    cdef Encoder encoder = Encoder.__new__(Encoder)
    cdef Encoder body = Encoder.__new__(Encoder)
    cdef dict texts = {}
    cdef Py_ssize_t count = len(statements)
    cdef uint32_t number = 0
    if expects is not None and len(expects) != count:
        raise UsageError(f"{len(expects)} expectations for {count} statements")
    for text, params in statements:
        if not isinstance(text, str):
            utf8(text, "the statement")
        text_number = texts.setdefault(text, len(texts))
        try:
            put_statement(body, operation, number, <uint16_t>(<Py_ssize_t>text_number), params,
                          expects[number] if expects else None)
        except ParameterError as error:
            raise in_statement(error, number, count) from error
        number += 1
    if operation != HQ_OP_EXECUTE or number != 1:
        check_counts(operation, len(texts), number)
    begin_command(encoder, operation, flags, number, (session, sequence, window_low, request_id))
    hq_put_u16(encoder.data + HQ_RECORD_HEADER + 34, <uint16_t>len(texts))
    for text in texts:
        put_sql(encoder, utf8(text, "the statement"))
    encoder.put_raw(body.data, body.size)
    return finished(encoder, HQ_ENTRY_COMMAND, size_max)


def encode_batch(text, *, int flags=0, uint64_t session=0, uint64_t sequence=0, uint64_t window_low=0, request_id="",
                 Py_ssize_t size_max=0xFFFFFFF0):
    """The complete unsealed record of a batch: one text, split when it is applied."""
    origin = (session, sequence, window_low, request_id)
    return of_texts(HQ_OP_BATCH, flags, origin, (text,), HQ_ENTRY_COMMAND, size_max)


def encode_migration(text, name, sha256_hex, bint foreign_keys_off=False, *, uint64_t session=0, uint64_t sequence=0,
                     uint64_t window_low=0, request_id="", Py_ssize_t size_max=0xFFFFFFF0):
    """The complete unsealed record of one migration file."""
    origin = (session, sequence, window_low, request_id)
    flags = FOREIGN_KEYS_OFF if foreign_keys_off else 0
    return of_texts(HQ_OP_MIGRATION, flags, origin, (text, name, sha256_hex), HQ_ENTRY_MIGRATION, size_max)


cdef bytes of_texts(int operation, int flags, tuple origin, tuple texts, uint8_t entry_kind, Py_ssize_t size_max):
    cdef Encoder encoder = Encoder.__new__(Encoder)
    begin_command(encoder, operation, flags, 0, origin)
    hq_put_u16(encoder.data + HQ_RECORD_HEADER + 34, <uint16_t>len(texts))
    for text in texts:
        put_sql(encoder, utf8(text, "the statement"))
    return finished(encoder, entry_kind, size_max)


cdef bytes finished(Encoder encoder, uint8_t entry_kind, Py_ssize_t size_max):
    cdef Py_ssize_t size = <Py_ssize_t>hq_record_padded(encoder.size - HQ_RECORD_HEADER)
    if size > size_max:
        raise too_large(size, size_max)
    end_record(encoder, 0, HQ_KIND_ENTRY, entry_kind)
    return encoder.cut(0)


def in_session(bytes record not None, uint64_t session, uint64_t sequence, uint64_t window_low):
    """The unsealed record of a command that was encoded outside of a session, as a write of one."""
    cdef bytes made = PyBytes_FromStringAndSize(PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record))
    cdef uint8_t *p = <uint8_t *>PyBytes_AS_STRING(made)
    if PyBytes_GET_SIZE(record) < HQ_RECORD_HEADER + HQ_COMMAND_HEADER:
        raise ValueError("no command is so short")
    hq_put_u64(p + HQ_RECORD_HEADER + 8, session)
    hq_put_u64(p + HQ_RECORD_HEADER + 16, sequence)
    hq_put_u64(p + HQ_RECORD_HEADER + 24, window_low)
    hq_record_open(p, p[HQ_AT_KIND], p[HQ_AT_ENTRY_KIND], hq_record_payload_length(p))
    return made


# --------------------------------------------------------------------------- checking commands


def command_view(record):
    """Check one whole record, sealed or not, of a command or a migration, and show what it asks for."""
    cdef Py_buffer view
    PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
    try:
        return view_record(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def command_texts(bytes record not None):
    """(operation, number of statements, texts) of a whole record that was encoded or checked in this process."""
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(record)
    cdef hq_command command
    cdef hq_cursor at
    cdef hq_text text
    cdef list texts = []
    cdef int code = hq_command_open(&command, p + HQ_RECORD_HEADER, hq_record_payload_length(p))
    if code != 0:
        raise command_error(code)
    at = hq_command_texts(&command)
    while hq_text_next(&at, &text) == 1:
        texts.append(PyUnicode_DecodeUTF8(text.utf8, text.size, NULL))
    return command.operation, command.statement_count, texts


cdef object view_record(const uint8_t *p, Py_ssize_t size):
    cdef hq_command command
    cdef uint8_t kind
    cdef int code = hq_record_check(p, size, HQ_CHECK_PAYLOAD)
    if code != HQ_RECORD_OK or hq_record_length(p) != size or p[HQ_AT_KIND] != HQ_KIND_ENTRY:
        raise ProtocolError(f"record of a command {REASONS[code or HQ_RECORD_BAD_SHAPE]}")
    code = hq_command_check(&command, p + HQ_RECORD_HEADER, hq_record_payload_length(p))
    if code == 0:
        kind = HQ_ENTRY_MIGRATION if command.operation == HQ_OP_MIGRATION else HQ_ENTRY_COMMAND
        code = 0 if p[HQ_AT_ENTRY_KIND] == kind else HQ_COMMAND_BAD_HEADER
    if code != 0:
        raise command_error(code)
    statements, expects = view_statements(&command)
    return CommandView(
        command.operation, command.flags, command.session, command.sequence, command.window_low,
        PyUnicode_DecodeUTF8(<const char *>command.request_id, command.request_id_size, NULL),
        view_texts(&command), statements, expects,
    )


cdef list view_texts(const hq_command *command):
    cdef hq_cursor at = hq_command_texts(command)
    cdef hq_text text
    cdef list texts = []
    while hq_text_next(&at, &text) == 1:
        texts.append(PyBytes_FromStringAndSize(text.utf8, text.size))
    return texts


cdef tuple view_statements(const hq_command *command):
    cdef hq_cursor at = hq_command_statements(command)
    cdef hq_cursor inside
    cdef hq_statement statement
    cdef hq_parameter parameter
    cdef list statements = [], expects = []
    while hq_statement_next(command, &at, &statement) == 1:
        names = None
        if statement.flags & HQ_STATEMENT_NAMED:
            found = []
            inside = statement.parameters
            while hq_parameter_next(command, &statement, &inside, &parameter) == 1:
                found.append(PyUnicode_DecodeUTF8(<const char *>parameter.name, parameter.name_size, NULL))
            names = tuple(found)
        statements.append(
            StatementView(statement.text_number, names is not None, statement.parameter_count, names)
        )
        expects.append(statement.expected_rows if statement.flags & HQ_STATEMENT_EXPECTS else None)
    return statements, expects
