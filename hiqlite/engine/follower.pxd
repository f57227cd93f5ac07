cimport cython
from . cimport repair
from .log cimport Log
from .progress cimport Progress
from .role cimport adopt, follow, heard
from .state cimport State

@cython.locals(previous=cython.longlong, last=cython.longlong, held_term=cython.longlong)
cpdef receive_append(State state, object request)
cpdef receive_probe(State state, object request)
@cython.locals(peer=Progress)
cpdef heard_beat(State state, long long term, long long sender_id, long long incarnation, long long commit_bound,
                 long long heard_at_ns)
cdef bint _accept_leader(State state, long long term, long long sender_id) except *
@cython.locals(log=Log, conflict=cython.longlong)
cdef bint _take_entries(State state, object request) except *
@cython.locals(base=cython.longlong)
cdef bint _confirm_applied(State state, object request) except *
@cython.locals(hint=cython.longlong)
cdef _refuse_with_hint(State state, object request)
cdef _refuse(State state, object request, long long hint_index, long long hint_term)
