cimport cython
from .log cimport Log
from .progress cimport Progress
from .state cimport State

@cython.locals(peer=Progress)
cpdef tick(State state)
cpdef long long deadline_ns(State state) except? -1
@cython.locals(peer=Progress, first=cython.longlong, last=cython.longlong, previous_term=cython.longlong)
cpdef receive_request(State state, object request)
@cython.locals(first=cython.longlong, last=cython.longlong)
cpdef receive_reply(State state, object reply)
@cython.locals(before=cython.longlong)
cdef _take_committed(State state, object reply)
@cython.locals(log=Log, end=cython.longlong)
cpdef take(State state, tuple runs, long long first, long long last, tuple memberships)
@cython.locals(first=cython.longlong, last=cython.longlong)
cpdef take_from_leader(State state, object request)
cpdef long long known_before(State state, long long index) except? -1
cpdef cut(State state, long long last_kept)
cpdef list without(list ranges, long long first, long long last)
cdef tuple _asked(State state, long long low, long long high)
cdef bint _within(list ranges, long long first, long long last) except *
