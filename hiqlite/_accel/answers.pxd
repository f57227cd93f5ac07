# Answers as results, for the extension that resolves futures in bulk. The meaning stands in plain/answers.py.
from libc.stdint cimport int64_t, uint64_t, uint8_t


cdef class ExecuteResult:
    cdef readonly int64_t rows_affected
    cdef readonly int64_t last_insert_rowid  # 0: nothing inserted
    cdef readonly uint64_t log_index


cdef ExecuteResult new_result(int64_t rows_affected, int64_t last_insert_rowid, uint64_t log_index)

# The result of one execute whose answer stands at [p, p + size), or the error it stands for: returned, not raised,
# and `failed` set. sql: str, bytes or None.
cdef object settle_execute(const uint8_t *p, Py_ssize_t size, uint64_t log_index, object sql, bint *failed)
