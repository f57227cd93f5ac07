cimport cython
from . cimport election, follower, reconfiguration, repair, replication, shape, snapshot, transfer
from .ready cimport Outbox
from .role cimport resign
from .state cimport State
from .views cimport Views

cdef class Raft(Views):
    cpdef tick(self, long long now_ns)
    cpdef receive(self, object message, long long now_ns)
    cpdef long long propose(self, long long count, long long size_bytes, long long now_ns) except? -1
    cpdef log_progress(self, long long written_io, long long synced_io, long long now_ns)
    cpdef applied(self, long long index)
    cpdef long long read(self, long long now_ns) except? -1
    cpdef bint has_ready(self) except *
    @cython.locals(outbox=Outbox)
    cpdef object ready(self)
    @cython.locals(deadline=cython.longlong)
    cpdef long long next_deadline(self) except? -1
    cdef bint _enter(self, long long now_ns) except *
    @cython.locals(limit=cython.longlong, first=cython.longlong)
    cdef object _take_apply(self)
    cdef _take_lost(self)
