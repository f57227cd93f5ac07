cimport cython
from .progress cimport Progress
from .state cimport State

@cython.locals(peer=Progress)
cpdef bint begin(State state, long long peer_id) except *
@cython.locals(peer=Progress)
cpdef advance(State state)
cpdef tick(State state)
cpdef end(State state)
cpdef long long deadline_ns(State state) except? -1
@cython.locals(peer=Progress, best=Progress)
cpdef Progress best_peer(State state)
cpdef tell_to_campaign(State state, Progress peer)
cdef bint _may_lead(State state, Progress peer) except *
