"""Which writes of one session wait for an answer: sequences, and the low end of the client's window.

Must not know what a write is or who applies it. Invariant: a sequence is given once; `low` never passes one whose caller
still waits, and what stands between `low` and `next` is never more than the session's window.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef class SessionWindow:
    """The window of one session; its writes tell when they are over (`Op.keep_in`).

    Args:
        size: so many writes may wait at once.
        on_room: called when an answer made room for one that is held.
    """

    def __init__(self, uint32_t size, on_room):
        cdef uint64_t slots = 1
        while slots < size:
            slots *= 2
        self.size = size
        self.mask = slots - 1
        self.answered = bytearray(slots)
        self.next = self.low = 1
        self.on_room = on_room

    def open(self, uint64_t session_id):
        self.id = session_id

    def end(self):
        """It is known no more, or was idle for too long: no write is given a place in it."""
        self.id = 0

    @property
    def has_room(self):
        return self.id != 0 and self.next - self.low < self.size

    @property
    def free(self):
        """Whether a write that is issued now may leave at once."""
        return self.id != 0 and not self.held and self.next - self.low < self.size

    @property
    def waiting(self):
        return self.next - self.low

    cdef uint64_t take(self):
        self.next += 1
        return self.next - 1

    cdef int over(self, uint64_t sequence) except -1:
        """Nobody waits for that write any more."""
        cdef uint8_t *slots = <uint8_t*>PyByteArray_AS_STRING(self.answered)  # nobody else has it: it never moves
        if sequence != self.low:
            slots[sequence & self.mask] = 1
            return 0
        self.low += 1
        while self.low < self.next and slots[self.low & self.mask]:
            slots[self.low & self.mask] = 0
            self.low += 1
        if self.held:
            self.on_room()
        return 0
