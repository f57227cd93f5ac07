"""Records: the unit of log and wire (docs/formats.md section 2), written, sealed, checked and cut in C.

The work stands in native/record.h; plain/records.py is the twin that defines the meaning. Must not know what a
payload means (commands.pyx does; its names are handed on here), nor Raft. Invariant: bytes are checked before they
are believed; what is wrong is a ProtocolError that says where.
"""

from cpython.array cimport array, clone
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from array import array as py_array

from hiqlite._accel.commands import (
    FOREIGN_KEYS_OFF, ROWS_WANTED, CommandView, Operation, Reference, StatementView, command_view, encode_batch,
    encode_command, encode_migration,
)
from hiqlite._accel.plain.records import (
    BAD_HEADER_CRC, BAD_ORDER, BAD_PAYLOAD, BAD_SHAPE, HEADER_SIZE, OK, REASONS, SHORT, EntryKind, RecordHeader,
    RecordKind, check_kinds,
)
from hiqlite._accel.values cimport hq_cursor, hq_get_u32, hq_put_i64, hq_put_u64
from hiqlite.errors import ProtocolError, UsageError

__all__ = [
    "BAD_HEADER_CRC", "BAD_ORDER", "BAD_PAYLOAD", "BAD_SHAPE", "FOREIGN_KEYS_OFF", "HEADER_SIZE", "OK", "ROWS_WANTED",
    "SHORT", "CommandView", "EntryKind", "Operation", "RecordHeader", "RecordKind", "Reference", "StatementView", "check",
    "command_view", "crc32c", "encode_batch", "encode_command", "encode_migration", "encode_record", "find_kind",
    "header", "offsets", "scan", "seal", "seal_records", "slice_records", "stamp", "unseal",
]


cdef extern from "record.h" nogil:
    enum:
        HQ_RECORD_HEADER, HQ_AT_KIND, HQ_AT_ENTRY_KIND, HQ_AT_PAYLOAD_CRC, HQ_AT_TERM, HQ_AT_WALL_NS, HQ_AT_SEED, HQ_AT_HEADER_CRC
        HQ_RECORD_OK, HQ_RECORD_SHORT, HQ_CHECK_SEALED, HQ_CHECK_PAYLOAD
        HQ_PAYLOAD_MAX
    uint32_t hq_crc32c(uint32_t seed_or_0, const void *bytes, size_t size)
    uint32_t hq_record_length(const uint8_t *p)
    uint32_t hq_record_payload_length(const uint8_t *p)
    uint64_t hq_record_term(const uint8_t *p)
    uint64_t hq_record_index(const uint8_t *p)
    int64_t hq_record_group_ns(const uint8_t *p)
    int64_t hq_record_wall_ns(const uint8_t *p)
    uint64_t hq_record_seed(const uint8_t *p)
    uint64_t hq_record_padded(uint64_t payload_length)
    int hq_record_check(const uint8_t *p, size_t left, int what)
    void hq_record_open(uint8_t *p, uint8_t kind, uint8_t entry_kind, uint32_t payload_length)
    void hq_record_seal(uint8_t *p, uint64_t term, uint64_t index, int64_t group_ns, int64_t wall_ns, uint64_t seed)
    int64_t hq_record_seal_run(uint8_t *p, size_t size, uint64_t term, uint64_t first, int64_t group_ns,
                               int64_t wall_ns, uint64_t seed)
    ctypedef struct hq_scan:
        hq_cursor at
        uint64_t next_index, term, first, last
    void hq_scan_open(hq_scan *scan, const uint8_t *p, size_t size, uint64_t expect_first)
    int hq_scan_next(hq_scan *scan)


cdef class Bytes:
    """The bytes of any object with a buffer, for as long as this lives."""

    cdef Py_buffer view
    cdef uint8_t *p
    cdef Py_ssize_t size

    def __cinit__(self, data, bint writable=False):
        PyObject_GetBuffer(data, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.p = <uint8_t *>self.view.buf
        self.size = self.view.len

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef uint8_t *record(self, Py_ssize_t offset) except NULL:
        """The record at `offset`, of good shape and wholly there; payload and seal unchecked."""
        cdef int code = HQ_RECORD_SHORT
        if 0 <= offset < self.size:
            code = hq_record_check(self.p + offset, self.size - offset, 0)
        if code != HQ_RECORD_OK:
            raise ProtocolError(f"record at offset {offset} {REASONS[code]}")
        return self.p + offset


# --------------------------------------------------------------------------- records


def crc32c(data, uint32_t seed=0):
    """CRC32C of the bytes; `seed` is the result for what stands before them."""
    cdef Bytes source = Bytes(data)
    return hq_crc32c(seed, source.p, source.size)


def encode_record(uint8_t kind, uint8_t entry_kind, payload, uint64_t term=0, uint64_t index=0,
                  int64_t group_time_ns=0, int64_t wall_time_ns=0, uint64_t seed=0):
    """A sealed record."""
    cdef Bytes source = Bytes(payload)
    cdef Encoder encoder = Encoder.__new__(Encoder)
    check_kinds(kind, entry_kind)
    if source.size > <Py_ssize_t>HQ_PAYLOAD_MAX:
        raise UsageError(f"a payload of {source.size} bytes does not fit a record")
    encoder.reserve(<Py_ssize_t>hq_record_padded(source.size))
    memcpy(encoder.data + HQ_RECORD_HEADER, source.p, source.size)
    hq_record_open(encoder.data, kind, entry_kind, <uint32_t>source.size)
    encoder.size = <Py_ssize_t>hq_record_padded(source.size)
    hq_record_seal(encoder.data, term, index, group_time_ns, wall_time_ns, seed)
    return encoder.cut(0)


def seal(buffer, Py_ssize_t offset, uint64_t term, uint64_t index, int64_t group_time_ns=0, int64_t wall_time_ns=0,
         uint64_t seed=0):
    """Write the leader's fields and the header CRC of the record at `offset`; gives the offset behind it."""
    cdef Bytes target = Bytes(buffer, True)
    cdef uint8_t *p = target.record(offset)
    hq_record_seal(p, term, index, group_time_ns, wall_time_ns, seed)
    return offset + hq_record_length(p)


cdef int seal_run(uint8_t *p, Py_ssize_t size, uint64_t term, uint64_t first, int64_t group_time_ns,
                  int64_t wall_time_ns, uint64_t seed) except -1:
    if hq_record_seal_run(p, size, term, first, group_time_ns, wall_time_ns, seed) < 0:
        raise ProtocolError("the bytes to seal are not a run of whole records")
    return 0


def seal_records(buffer, uint64_t term, uint64_t first, int64_t group_time_ns=0, int64_t wall_time_ns=0,
                 uint64_t seed=0):
    """Seal the records that fill the buffer as `first`, `first + 1`, ...; gives their number."""
    cdef Bytes target = Bytes(buffer, True)
    cdef int64_t count = hq_record_seal_run(target.p, target.size, term, first, group_time_ns, wall_time_ns, seed)
    if count < 0:
        raise ProtocolError("the bytes to seal are not a run of whole records")
    return count


def stamp(bytes record not None, int64_t wall_time_ns, uint64_t seed):
    """The unsealed record with a wall time and a seed (not 0) that sealing leaves to it."""
    cdef bytes stamped = PyBytes_FromStringAndSize(PyBytes_AS_STRING(record), PyBytes_GET_SIZE(record))
    cdef uint8_t *p = <uint8_t *>PyBytes_AS_STRING(stamped)
    if PyBytes_GET_SIZE(record) < HQ_RECORD_HEADER or seed == 0:
        raise ValueError("a record is stamped with a seed")
    hq_put_i64(p + HQ_AT_WALL_NS, wall_time_ns)
    hq_put_u64(p + HQ_AT_SEED, seed)
    return stamped


def unseal(record not None):
    """The record as it was before a leader sealed it: what leaders set is zero again."""
    cdef Bytes source = Bytes(record)
    cdef bytes made = PyBytes_FromStringAndSize(<char *>source.record(0), source.size)
    cdef uint8_t *p = <uint8_t *>PyBytes_AS_STRING(made)
    memset(p + HQ_AT_TERM, 0, HQ_RECORD_HEADER - HQ_AT_TERM)
    return made


def check(data, Py_ssize_t offset=0, bint sealed=True, bint payload=True):
    """What is wrong with the record at `offset`: OK, SHORT, BAD_HEADER_CRC, BAD_SHAPE or BAD_PAYLOAD."""
    cdef Bytes source = Bytes(data)
    cdef int what = (HQ_CHECK_SEALED if sealed else 0) | (HQ_CHECK_PAYLOAD if payload else 0)
    if not 0 <= offset <= source.size:
        return HQ_RECORD_SHORT
    return hq_record_check(source.p + offset, source.size - offset, what)


def header(data, Py_ssize_t offset=0):
    """The header at `offset`, unchecked save that it is there."""
    cdef Bytes source = Bytes(data)
    cdef const uint8_t *p
    if not 0 <= offset <= source.size - HQ_RECORD_HEADER:
        raise ProtocolError(f"record at offset {offset} {REASONS[HQ_RECORD_SHORT]}")
    p = source.p + offset
    return RecordHeader(
        hq_record_length(p), p[HQ_AT_KIND], p[HQ_AT_ENTRY_KIND], hq_record_payload_length(p),
        hq_get_u32(p + HQ_AT_PAYLOAD_CRC), hq_record_term(p), hq_record_index(p), hq_record_group_ns(p),
        hq_record_wall_ns(p), hq_record_seed(p), hq_get_u32(p + HQ_AT_HEADER_CRC),
    )


def scan(data, uint64_t expect_first):
    """Check a run of sealed entries from `expect_first` on; gives (term, first, last) per stretch of equal term."""
    cdef Bytes source = Bytes(data)
    cdef hq_scan pass_
    cdef int got
    cdef list runs = []
    hq_scan_open(&pass_, source.p, source.size, expect_first)
    while True:
        got = hq_scan_next(&pass_)
        if got == 0:
            return runs
        if got < 0:
            offset = pass_.at.p - source.p
            raise ProtocolError(f"record at offset {offset}, expected index {pass_.next_index}: it {REASONS[-got]}")
        runs.append((pass_.term, pass_.first, pass_.last))


def offsets(data):
    """Where each record of a run begins (array of u32); only their shapes are checked."""
    cdef Bytes source = Bytes(data)
    cdef Py_ssize_t offset = 0, count = 0
    cdef array found
    if source.size > <Py_ssize_t>0xFFFFFFFF:
        raise ProtocolError("a run of records is larger than 4 GiB")
    while offset < source.size:
        offset += hq_record_length(source.record(offset))
        count += 1
    found = clone(<array>py_array("I"), count, False)
    offset = 0
    for i in range(count):
        found.data.as_uints[i] = <uint32_t>offset
        offset += hq_record_length(source.p + offset)
    return found


def find_kind(data, uint8_t entry_kind):
    """Offsets of the records of that entry kind in a run; only their shapes are checked."""
    cdef Bytes source = Bytes(data)
    cdef Py_ssize_t offset = 0
    cdef const uint8_t *p
    cdef list found = []
    while offset < source.size:
        p = source.record(offset)
        if p[HQ_AT_ENTRY_KIND] == entry_kind:
            found.append(offset)
        offset += hq_record_length(p)
    return found


def slice_records(data, uint64_t first_index_of_data, uint64_t low, uint64_t high):
    """The bytes of entries `[low, high]`, both included, of a run that begins with `first_index_of_data`."""
    cdef Bytes source = Bytes(data)
    cdef Py_ssize_t offset = 0, begin = 0
    cdef uint64_t index = first_index_of_data
    if first_index_of_data <= low <= high:
        while offset < source.size:
            if index == low:
                begin = offset
            offset += hq_record_length(source.record(offset))
            if index == high:
                return PyBytes_FromStringAndSize(<char *>source.p + begin, offset - begin)
            index += 1
    raise ProtocolError(f"entries {low} to {high} are not all in the {index - first_index_of_data} records given")
