# Records in place, for the extensions that build and check runs of them. The meaning stands in plain/records.py.
from libc.stdint cimport int64_t, uint64_t, uint8_t

from hiqlite._accel.commands cimport append_execute
from hiqlite._accel.values cimport Encoder


# Seals the records that fill [p, p + size) as indexes first, first + 1, ...; the seed of each is
# splitmix64(seed + index). Raises ProtocolError when the bytes are not a run of whole records.
cdef int seal_run(uint8_t *p, Py_ssize_t size, uint64_t term, uint64_t first, int64_t group_time_ns,
                  int64_t wall_time_ns, uint64_t seed) except -1
