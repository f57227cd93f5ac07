cimport cython

cpdef check(object message)
cpdef check_append(object request)
@cython.locals(index=cython.longlong, term=cython.longlong)
cpdef check_range(object sender, tuple runs, long long previous, long long previous_term, long long last,
                  long long term_max)
@cython.locals(index=cython.longlong)
cpdef check_memberships(object sender, tuple memberships, long long previous, long long last)
cpdef bint known(object number) except *
