cimport cython
from .progress cimport Progress
from .replication cimport take_entry
from .role cimport resign
from .state cimport State
from .transfer cimport best_peer, tell_to_campaign

@cython.locals(peer=Progress)
cpdef str refusal(State state, object change)
cpdef long long propose(State state, object change) except? -1
@cython.locals(peer=Progress)
cpdef advance(State state)
cdef long long _append(State state, object membership) except? -1
