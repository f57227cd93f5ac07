# The frame between nodes and its reader; the layout stands in native/frame_header.h.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "crc32c.h" nogil:
    uint32_t hq_crc32c(uint32_t seed, const void* data, size_t size)


cdef extern from "frame_header.h" nogil:
    const int HQ_FRAME_HEADER_BYTES
    const int HQ_FRAME_APPEND
    const int HQ_FRAME_OK
    const int HQ_FRAME_BAD_CRC
    const int HQ_FRAME_BAD_VERSION
    const int HQ_FRAME_BAD_LENGTH
    const int HQ_FRAME_BAD_GROUP
    const int HQ_FRAME_BAD_RESERVED
    const int HQ_FRAME_BAD_TYPE

    struct hq_frame:
        uint32_t length
        uint8_t type
        uint8_t version
        uint8_t group
        uint8_t flags
        uint64_t cluster
        uint64_t term
        uint64_t sender
        uint64_t incarnation
        uint64_t epoch
        uint64_t sequence
        uint64_t previous_index
        uint64_t previous_term
        uint64_t commit_index
        uint32_t count
        uint32_t body_crc

    void hq_frame_put(uint8_t* p, const hq_frame* f)
    int hq_frame_get(const uint8_t* p, hq_frame* f)


cdef class Frame:
    cdef hq_frame head
    cdef readonly bytes body


cdef class FrameReader:
    cdef readonly uint64_t frames  # whole frames handed on
    cdef readonly uint64_t bytes_in  # bytes taken, also those of frames that are not whole yet
    cdef public uint64_t cluster  # first 8 bytes of the own cluster id; 0: not formed, takes every one
    cdef object on_frame
    cdef object on_read_end
    cdef object on_broken
    cdef bytearray ring
    cdef uint8_t* base  # of `ring`
    cdef Py_ssize_t size
    cdef Py_ssize_t start  # [start, end) of the ring is unread
    cdef Py_ssize_t end
    cdef Py_ssize_t frame_bytes_max
    cdef bint stopped
    cdef Frame pending  # its body is being received in place; None between frames
    cdef Py_ssize_t filled  # bytes of that body received so far

    cdef int parse(self) except -1
    cdef Frame next_frame(self)
    cdef int deliver(self, Frame frame) except -1
    cdef int check_head(self, hq_frame* head) except -1
    cdef int check_body(self, Frame frame) except -1
