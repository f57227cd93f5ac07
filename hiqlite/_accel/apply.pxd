# A run of applied entries, for batch.pyx: answers without a Python object per entry. The meaning stands in apply.pyx.
from libc.stdint cimport uint8_t, uint64_t

from hiqlite._accel.apply_native cimport hq_run_result


cdef class AppliedRun:
    cdef hq_run_result *result      # owned; never NULL once a caller sees the run
    # The answer of entry `index`, borrowed for as long as this object lives. 0: none (outside of the run, or not wanted).
    cdef bint answer_at(self, uint64_t index, const uint8_t **data, size_t *size) noexcept nogil
