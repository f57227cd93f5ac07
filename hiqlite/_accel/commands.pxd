# Writing a command straight into a buffer. The meaning stands in plain/commands.py.
from libc.stdint cimport uint64_t

from hiqlite._accel.values cimport Encoder


# Appends one complete unsealed record of a single-statement execute. On an error nothing is left appended.
# text_utf8: the statement; params: sequence or mapping; session, sequence, window_low: 0 outside of a session.
cdef int append_execute(Encoder encoder, bytes text_utf8, object params, int flags, uint64_t session, uint64_t sequence,
                        uint64_t window_low) except -1
