cimport cython
from . cimport repair
from .log cimport Log
from .progress cimport Progress
from .state cimport State

@cython.locals(peer=Progress)
cpdef bint started(State state, long long peer_id, long long index) except *
@cython.locals(peer=Progress)
cpdef progressed(State state, long long peer_id, long long oldest_sent_ns)
@cython.locals(peer=Progress)
cpdef finished(State state, long long peer_id)
@cython.locals(peer=Progress)
cpdef failed(State state, long long peer_id, bint resumable)
@cython.locals(peer=Progress, limit=cython.longlong)
cpdef long long highest_purgeable(State state) except? -1
cpdef purged(State state, long long index)
cpdef bint begin_install(State state, long long index) except *
@cython.locals(log=Log, keeps_log=cython.bint)
cpdef installed(State state, long long index, long long term, object membership)
cpdef end_install(State state)
cdef bint _damaged(State state, long long index) except *
