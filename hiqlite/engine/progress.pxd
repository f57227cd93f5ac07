cimport cython

cdef class Progress:
    cdef readonly object identity
    cdef readonly long long peer_id
    cdef readonly int slot
    cdef readonly bint connected
    cdef readonly long long epoch           # session epoch of the link; an answer of another one is dropped
    cdef readonly long long sequence        # of the newest AppendRequest in this epoch
    cdef readonly bint replicating          # False: probing, or needing an image
    cdef readonly long long match_index     # highest index known to be durable there, inclusive
    cdef readonly long long next_index      # first index that was not sent yet
    cdef public long long commit_sent       # highest commit index that the peer can have taken from our requests
    cdef readonly object inflight
    cdef readonly long long inflight_bytes
    cdef public long long unacked_since_ns  # when the oldest unanswered append left, 0: none
    cdef readonly long long probe_sequence
    cdef readonly long long probe_sent_ns   # 0: no probe is on its way
    cdef public long long confirmed_round   # newest quorum round that the peer answered in this term
    cdef public long long round_trip_ns     # when that round was sent
    cdef readonly bint needs_image          # its log ends below the first entry held here: only an image helps
    cdef readonly long long image_index     # the image it was given last; the log behind that is pinned. 0: none
    cdef readonly bint image_runs           # it is being sent
    cdef public long long image_asked_ns    # when the runtime was asked for one, 0: not yet
    cdef readonly bint learner
    cdef readonly bint caught_up            # the last round of its catching up was short
    cdef readonly long long catch_up_goal   # last index when the running round began, 0: none runs
    cdef readonly long long catch_up_began_ns
    cdef public bint fetch_outstanding      # one Fetch at a time, over all terms
    cdef public long long fetch_first
    cdef public long long fetch_term

    cpdef place(self, int slot, bint learner)
    cpdef lead_from(self, long long next_index)
    cpdef probe_from(self, long long next_index)
    cpdef connect(self, long long epoch)
    cpdef disconnect(self)
    cpdef bint has_room(self, int frames_max, long long bytes_max) except *
    cpdef long long sent_frame(self, long long last, long long size_bytes, long long now_ns) except? -1
    cpdef long long sent_probe(self, long long now_ns) except? -1
    cpdef bint acknowledged(self, long long sequence, long long match_index) except *
    cpdef count_catch_up(self, long long last_index, long long now_ns, long long round_ns)
    cpdef bint can_be_promoted(self, long long now_ns, long long round_ns) except *
    cpdef need_image(self)
    cpdef image_started(self, long long index)
    cpdef image_failed(self, bint resumable, long long now_ns)
    cpdef bint rejected(self, long long sequence, long long next_index) except *
    cpdef long long oldest_sent_ns(self) except? -1
    @cython.locals(until=cython.longlong)
    cpdef long long alive_until_ns(self, long long window_ns, long long floor_ns) except? -1
