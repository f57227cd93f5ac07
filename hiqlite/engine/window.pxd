cimport cython

cdef class Window:
    cdef readonly long long size_bytes_max
    cdef readonly long long size_bytes
    cdef readonly Py_ssize_t head
    cdef readonly list firsts
    cdef readonly list lasts
    cdef readonly list sizes
    cdef readonly long long frame_bytes

    cpdef clear(self)
    cpdef push(self, long long first, long long last, long long size_bytes)
    cpdef starts_at(self, long long first_index)
    cpdef release(self, long long index)
    @cython.locals(count=cython.Py_ssize_t, position=cython.Py_ssize_t, last=cython.longlong, size=cython.longlong)
    cpdef long long frame(self, long long first, long long size_bytes_max) except? -1
    @cython.locals(low=cython.Py_ssize_t, high=cython.Py_ssize_t, middle=cython.Py_ssize_t)
    cdef Py_ssize_t _position(self, long long index) except? -1
    cdef _drop_oldest(self)
    cdef _compact(self)
