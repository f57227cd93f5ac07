cimport cython
from .progress cimport Progress
from .state cimport State

cpdef adopt(State state, long long term, object vote)
cpdef follow(State state, long long leader_id)
cpdef heard(State state, long long at_ns)
cpdef forget_leader(State state)
cpdef rest(State state, long long extra_ns)
cpdef resign(State state)
@cython.locals(peer=Progress)
cpdef leave_leadership(State state)
