cimport cython
from .log cimport Log
from .progress cimport Progress
from . cimport quorum
from .reads cimport Reads
from .role cimport adopt
from .state cimport State

cpdef open_term(State state)
@cython.locals(index=cython.longlong)
cpdef take_entry(State state, long long size_bytes, object kind, object membership)
@cython.locals(first=cython.longlong)
cpdef long long propose(State state, long long count, long long size_bytes) except? -1
@cython.locals(peer=Progress)
cpdef receive_append_reply(State state, object reply)
@cython.locals(peer=Progress, sent_ns=cython.longlong)
cpdef receive_probe_reply(State state, object reply)
@cython.locals(peer=Progress)
cpdef entries_fetched(State state, long long peer_id, long long first, long long last, long long size_bytes)
@cython.locals(peer=Progress, commit_due=cython.bint)
cpdef tick(State state)
cpdef long long next_deadline_ns(State state) except? -1
@cython.locals(peer=Progress, read_index=cython.longlong, number=cython.longlong)
cpdef begin_round(State state)
@cython.locals(peer=Progress, reads=Reads, lacking=cython.bint)
cpdef prepare(State state)
@cython.locals(peer=Progress, index=cython.longlong, needed=cython.longlong)
cpdef advance_commit(State state)
cdef _take(State state, long long first, long long last, long long size_bytes, object kind, object membership)
@cython.locals(base=cython.longlong, refused_base=cython.bint, hint=cython.longlong)
cdef _seek(State state, Progress peer, object reply)
@cython.locals(peer=Progress)
cdef _count_rounds(State state)
cdef bint _lacks_commit(State state, Progress peer) except *
@cython.locals(last=cython.longlong)
cdef _send_frames(State state, Progress peer)
@cython.locals(first=cython.longlong, sequence=cython.longlong)
cdef _send_frame(State state, Progress peer, long long last, long long size_bytes)
@cython.locals(first=cython.longlong, last=cython.longlong)
cdef _send_probe(State state, Progress peer)
@cython.locals(previous=cython.longlong)
cdef _send_append(State state, Progress peer, long long first, long long last, long long sequence)
