cimport cython

@cython.locals(lowest=cython.longlong, best=cython.longlong, value=cython.longlong, count=cython.int, need=cython.int,
               slot=cython.int, other=cython.int, slots=list)
cpdef long long reached(list voter_sets, list values) except? -1

cpdef bint won(list voter_sets, list granted) except *
