cdef class Configuration:
    cdef readonly object membership
    cdef readonly object own
    cdef readonly dict slots
    cdef readonly list peers
    cdef readonly list voter_sets
    cdef readonly object voters             # of either set while it is joint
    cdef readonly object learners           # who is in no set
    cdef readonly bint is_voter
    cdef readonly bint is_joint
    cdef readonly bint is_single

    cpdef int slot_of(self, object identity) except? -2
    cpdef int size(self) except -1
