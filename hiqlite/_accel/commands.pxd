# Writing a command straight into a buffer. The meaning stands in plain/commands.py.
from hiqlite._accel.values cimport Encoder


# Appends one complete unsealed record of a single-statement execute. On an error nothing is left appended.
# text_utf8: the statement; params: sequence or mapping; flags: of the command (1: rows wanted).
cdef int append_execute(Encoder encoder, bytes text_utf8, object params, int flags) except -1
