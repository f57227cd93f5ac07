cdef class Reads:
    cdef readonly long long token           # of the newest read
    cdef readonly long long round           # number of the newest round
    cdef readonly long long round_sent_ns
    cdef readonly list sent_times
    cdef readonly list queued
    cdef readonly object rounds
    cdef readonly list confirmed
    cdef readonly list failed

    cpdef long long queue(self) except? -1
    cpdef long long begin_round(self, long long read_index, long long now_ns) except? -1
    cpdef long long sent_time(self, long long number) except? -1
    cpdef confirm(self, long long number)
    cpdef fail(self)
    cpdef list take_confirmed(self)
    cpdef list take_failed(self)
