cimport cython

cdef class Outbox:
    cdef readonly object own
    cdef readonly long long io_sequence     # the newest one minted
    cdef readonly long long written_io
    cdef readonly long long synced_io
    cdef readonly long long term_io         # the hard state write of the current term or vote
    cdef readonly long long log_io          # the newest append or truncation
    cdef readonly long long written_index   # inclusive; never above a cut
    cdef readonly long long synced_index
    cdef readonly object unwritten
    cdef readonly object unsynced
    cdef readonly object writes
    cdef readonly list sends
    cdef readonly list fetches
    cdef readonly list images
    cdef readonly object held
    cdef readonly object acks

    cpdef write_hard_state(self, long long term, object vote)
    cpdef write_truncate(self, long long last_kept)
    cpdef write_reset(self, long long base_index, long long base_term)
    cpdef write_repair(self, long long first, long long last)
    cpdef write_append(self, long long first, long long last, object kind, long long term, object membership=*)
    cpdef progress(self, long long written_io, long long synced_io)
    cpdef send(self, long long term, long long peer_id, object message)
    cpdef fetch(self, object request)
    cpdef ask_image(self, object request)
    cpdef acknowledge(self, long long term, long long leader_id, long long match_index, long long epoch, long long sequence)
    cpdef release(self, long long term)
    @cython.locals(match_index=cython.longlong, epoch=cython.longlong, sequence=cython.longlong, leader_id=cython.longlong,
                   ack_match=cython.longlong, ack_epoch=cython.longlong, ack_sequence=cython.longlong,
                   ack_term=cython.longlong)
    cdef _release_acks(self, long long term)
    cdef _reply(self, long long term, long long leader_id, long long match_index, long long epoch, long long sequence)
    cpdef tuple take_writes(self)
    cpdef list take_sends(self)
    cpdef list take_fetches(self)
    cpdef list take_images(self)
    cpdef drop_all(self)
    cpdef bint waits(self) except *
