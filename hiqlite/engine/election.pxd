cimport cython
from .progress cimport Progress
from . cimport quorum
from .replication cimport open_term
from .role cimport adopt, forget_leader, rest, resign
from .state cimport State

cpdef start(State state)
cpdef tick(State state)
cpdef check_quorum(State state)
@cython.locals(peer=Progress)
cpdef long long quorum_deadline_ns(State state) except? -1
cpdef check_disk(State state)
cpdef long long disk_deadline_ns(State state) except? -1
@cython.locals(deadline=cython.longlong)
cpdef long long next_deadline_ns(State state) except? -1
@cython.locals(peer=Progress, soon=cython.longlong)
cpdef peer_connected(State state, long long peer_id)
cpdef peer_lost(State state, long long peer_id, bint refused)
cpdef receive_request(State state, object request)
@cython.locals(peer=Progress)
cpdef receive_reply(State state, object reply)
@cython.locals(peer=Progress, vote=cython.int, soon=cython.longlong)
cdef _refused(State state, Progress refuser)
cpdef receive_timeout_now(State state, object message)
cpdef count_own_vote(State state)
cdef bint _vote_in_own_term(State state, object request) except *
cdef bint _hears_leader(State state) except *
@cython.locals(peer=Progress)
cdef bint _linked_to_quorum(State state) except *
cdef _pre_campaign(State state)
cdef _campaign(State state, bint handed_over=*)
@cython.locals(peer=Progress)
cdef _ask_voters(State state, bint pre)
cdef _request_vote(State state, long long peer_id, bint pre)
cdef _reply(State state, object request, long long term, bint granted)
@cython.locals(peer=Progress)
cdef _become_leader(State state)
cdef _set_role(State state, object role)
