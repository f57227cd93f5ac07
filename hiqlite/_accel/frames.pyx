"""Frames between nodes (docs/formats.md, section 5): header out, header in, and a reader that parses in place.

Knows bytes and integers; must not know what a frame means, nor sockets or event loops (it only has the two methods that
a loop calls on a buffered protocol). Invariant: `on_frame` sees whole frames whose header and body CRC hold, in the order
they were sent; after the first fault nothing more is handed on and `on_broken` was called once. (The body of an `append`
has no CRC of its own: its records carry theirs, and who takes the frame checks them.)
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_WRITE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from hiqlite.errors import ProtocolError

HEADER_BYTES = 96
# From this size on a body is received straight into the bytes object that is handed on: no copy at all.
DIRECT_BODY_BYTES = 16384
RING_BYTES = 131072

cdef Py_ssize_t _DIRECT = DIRECT_BODY_BYTES

assert HEADER_BYTES == HQ_FRAME_HEADER_BYTES
# A frame that is not received directly must fit into the ring at any fill, or the reader could starve.
assert RING_BYTES >= 2 * (HEADER_BYTES + DIRECT_BODY_BYTES)

cdef dict _FAULTS = {
    HQ_FRAME_BAD_CRC: "the header's checksum is wrong",
    HQ_FRAME_BAD_VERSION: "unknown protocol version",
    HQ_FRAME_BAD_LENGTH: "a length below the header's own",
    HQ_FRAME_BAD_GROUP: "unknown group",
    HQ_FRAME_BAD_RESERVED: "a reserved field is not zero",
    HQ_FRAME_BAD_TYPE: "type 0",
}


cdef class Frame:
    """One frame as it was received: the header's fields and the body."""

    @property
    def type(self):
        return self.head.type

    @property
    def group(self):
        return self.head.group

    @property
    def flags(self):
        return self.head.flags

    @property
    def cluster(self):
        return self.head.cluster

    @property
    def term(self):
        return self.head.term

    @property
    def sender(self):
        return self.head.sender

    @property
    def incarnation(self):
        return self.head.incarnation

    @property
    def epoch(self):
        return self.head.epoch

    @property
    def sequence(self):
        return self.head.sequence

    @property
    def previous_index(self):
        return self.head.previous_index

    @property
    def previous_term(self):
        return self.head.previous_term

    @property
    def commit_index(self):
        return self.head.commit_index

    @property
    def count(self):
        return self.head.count

    def __repr__(self):
        return (
            f"Frame(type={self.head.type}, group={self.head.group}, sender={self.head.sender}, "
            f"sequence={self.head.sequence}, body={len(self.body)} bytes)"
        )


def encode_header(
    int type, int group, int flags, uint64_t cluster, uint64_t term, uint64_t sender, uint64_t incarnation,
    uint64_t epoch, uint64_t sequence, uint64_t previous_index, uint64_t previous_term, uint64_t commit_index,
    uint32_t count, bytes body not None,
):
    """The 96 bytes that go before `body`; the body itself is sent beside them, so it is never copied."""
    cdef hq_frame head
    cdef Py_ssize_t size = len(body)
    if size > 0xFFFFFFFF - HQ_FRAME_HEADER_BYTES:
        raise ProtocolError(f"a body of {size} bytes does not fit a frame")
    if not (0 < type < 256 and 0 <= group < 2 and 0 <= flags < 256):
        raise ProtocolError(f"no frame has type {type}, group {group}, flags {flags}")
    head.length = <uint32_t>(HQ_FRAME_HEADER_BYTES + size)
    head.type = <uint8_t>type
    head.version = 1
    head.group = <uint8_t>group
    head.flags = <uint8_t>flags
    head.cluster = cluster
    head.term = term
    head.sender = sender
    head.incarnation = incarnation
    head.epoch = epoch
    head.sequence = sequence
    head.previous_index = previous_index
    head.previous_term = previous_term
    head.commit_index = commit_index
    head.count = count
    head.body_crc = 0
    if type != HQ_FRAME_APPEND and size:
        head.body_crc = hq_crc32c(0, PyBytes_AS_STRING(body), size)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, HQ_FRAME_HEADER_BYTES)
    hq_frame_put(<uint8_t*>PyBytes_AS_STRING(out), &head)
    return out


cdef class FrameReader:
    """Parses one connection's bytes; has the methods of a buffered protocol, so a loop may read straight into it.

    Args:
        on_frame: called with each `Frame`.
        on_read_end: called once per read, after all frames that it completed (also when it completed none).
        on_broken: called once with the ProtocolError that ends this connection.
        frame_bytes_max: a frame that says it is longer is a ProtocolError before anything is allocated for it.
        cluster: first 8 bytes of the own cluster id, 0 when not formed; may be set later.
    """

    def __init__(self, on_frame, on_read_end, on_broken, Py_ssize_t frame_bytes_max, uint64_t cluster=0,
                 Py_ssize_t ring_bytes=RING_BYTES):
        if ring_bytes < 2 * (HQ_FRAME_HEADER_BYTES + _DIRECT) or frame_bytes_max < HQ_FRAME_HEADER_BYTES:
            raise ValueError("ring_bytes or frame_bytes_max is too small for a frame")
        self.on_frame = on_frame
        self.on_read_end = on_read_end
        self.on_broken = on_broken
        self.frame_bytes_max = frame_bytes_max
        self.cluster = cluster
        self.ring = bytearray(ring_bytes)
        self.base = <uint8_t*>self.ring
        self.size = ring_bytes
        self.start = 0
        self.end = 0
        self.stopped = False
        self.pending = None
        self.filled = 0
        self.frames = 0
        self.bytes_in = 0

    def get_buffer(self, Py_ssize_t sizehint):
        """Where the next read goes: into the body under way, else into the free part of the ring. Never empty."""
        cdef uint8_t* place
        if self.pending is not None:
            place = <uint8_t*>PyBytes_AS_STRING(self.pending.body) + self.filled
            return PyMemoryView_FromMemory(<char*>place, len(self.pending.body) - self.filled, PyBUF_WRITE)
        return PyMemoryView_FromMemory(<char*>(self.base + self.end), self.size - self.end, PyBUF_WRITE)

    def buffer_updated(self, Py_ssize_t nbytes):
        """`nbytes` were written to what `get_buffer` gave last."""
        if self.stopped:
            return
        self.bytes_in += nbytes
        if self.pending is not None:
            self.filled += nbytes
        else:
            self.end += nbytes
        try:
            self.parse()
        except ProtocolError as error:
            self.stop()
            self.on_broken(error)
            return
        if not self.stopped:
            self.on_read_end()

    def feed(self, const uint8_t[::1] data not None):
        """Bytes that were read elsewhere (what came behind a handshake); each portion counts as one read."""
        cdef Py_ssize_t offset = 0, portion
        cdef Py_ssize_t total = data.shape[0]
        while offset < total and not self.stopped:
            if self.pending is not None:
                portion = min(total - offset, len(self.pending.body) - self.filled)
                memcpy(PyBytes_AS_STRING(self.pending.body) + self.filled, &data[offset], portion)
            else:
                portion = min(total - offset, self.size - self.end)
                memcpy(self.base + self.end, &data[offset], portion)
            self.buffer_updated(portion)
            offset += portion

    def stop(self):
        """Nothing more is handed on, whatever still arrives. May be called from within `on_frame`."""
        self.stopped = True
        # A read may already be under way into the body: it stays alive, with this object, until that read ends.
        self.start = self.end = 0

    cdef int parse(self) except -1:
        cdef Frame frame
        if self.pending is not None:
            if self.filled < len(self.pending.body):
                return 0
            frame = self.pending
            self.pending = None
            self.deliver(frame)
        while not self.stopped and self.pending is None:
            frame = self.next_frame()
            if frame is None:
                break
            self.deliver(frame)
        if self.start == self.end:
            self.start = self.end = 0
        elif self.start > 0 and self.size - self.end < self.size // 2:
            # A part of a frame at the ring's end: move it to the front, so that reads stay long.
            memmove(self.base, self.base + self.start, self.end - self.start)
            self.end -= self.start
            self.start = 0
        return 0

    cdef Frame next_frame(self):
        """The next whole frame of the ring, or None: more bytes are needed, or its body is received directly now."""
        cdef Py_ssize_t held = self.end - self.start
        cdef Py_ssize_t body_size, part
        cdef Frame frame
        if held < HQ_FRAME_HEADER_BYTES:
            return None
        cdef hq_frame head
        self.check_head(&head)
        body_size = <Py_ssize_t>head.length - HQ_FRAME_HEADER_BYTES
        part = held - HQ_FRAME_HEADER_BYTES
        if part < body_size and body_size < _DIRECT:
            return None
        frame = Frame.__new__(Frame)
        frame.head = head
        frame.body = PyBytes_FromStringAndSize(NULL, body_size)
        part = min(part, body_size)
        memcpy(PyBytes_AS_STRING(frame.body), self.base + self.start + HQ_FRAME_HEADER_BYTES, part)
        self.start += HQ_FRAME_HEADER_BYTES + part
        if part < body_size:
            self.pending = frame
            self.filled = part
            return None
        return frame

    cdef int deliver(self, Frame frame) except -1:
        self.check_body(frame)
        self.frames += 1
        self.on_frame(frame)
        return 0

    cdef int check_head(self, hq_frame* head) except -1:
        cdef int fault = hq_frame_get(self.base + self.start, head)
        if fault != HQ_FRAME_OK:
            raise ProtocolError(f"broken frame: {_FAULTS[fault]}")
        if <Py_ssize_t>head.length > self.frame_bytes_max:
            raise ProtocolError(f"broken frame: {head.length} bytes are more than the limit of {self.frame_bytes_max}")
        if head.cluster and self.cluster and head.cluster != self.cluster:
            raise ProtocolError(f"frame of another cluster: {head.cluster:016x}, not {self.cluster:016x}")
        return 0

    cdef int check_body(self, Frame frame) except -1:
        cdef Py_ssize_t size = len(frame.body)
        cdef uint32_t expected = 0
        if frame.head.type != HQ_FRAME_APPEND and size:
            expected = hq_crc32c(0, PyBytes_AS_STRING(frame.body), size)
        if frame.head.body_crc != expected:
            raise ProtocolError("broken frame: the body's checksum is wrong")
        return 0
