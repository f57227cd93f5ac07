# Writes of one session that wait for an answer; the meaning stands in session.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef class SessionWindow:
    cdef readonly uint64_t id           # index of the entry that opened it; 0: it is not open
    cdef readonly uint64_t next         # sequence of the next write
    cdef readonly uint64_t low          # the lowest one that was not answered
    cdef public bint held               # writes wait for room: later ones must not pass them
    cdef object on_room
    cdef bytearray answered             # of sequences [low, next), at their remainder by its length
    cdef uint64_t mask
    cdef uint32_t size
    cdef uint64_t take(self)
    cdef int over(self, uint64_t sequence) except -1
