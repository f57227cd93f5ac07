cimport cython

cdef class Log:
    cdef readonly long long base_index      # the entry below the first one held; its term is known, it is not
    cdef readonly long long base_term
    cdef readonly long long last_index      # inclusive; base_index when the log is empty
    cdef readonly long long last_term
    cdef readonly long long tail_first      # first index of the last run
    cdef readonly list starts               # first index of each run
    cdef readonly list terms                # term of each run

    cpdef extend(self, long long term, long long first, long long last)
    cpdef long long term_at(self, long long index) except? -2
    cpdef truncate(self, long long last_kept)
    @cython.locals(term=cython.longlong)
    cpdef compact(self, long long base_index)
    cpdef reset(self, long long base_index, long long base_term)
    cpdef overwrite(self, tuple runs)
    cpdef tuple slice(self, long long first, long long last)
    @cython.locals(index=cython.longlong)
    cpdef long long first_conflict(self, tuple runs) except? -2
    cpdef long long floor_of_term(self, long long index, long long term) except? -2
    cdef long long _run_end(self, long long index) except? -2
    @cython.locals(low=cython.Py_ssize_t, high=cython.Py_ssize_t, middle=cython.Py_ssize_t)
    cdef Py_ssize_t _position(self, long long index) except? -2
