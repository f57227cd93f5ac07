"""Who waits for which log index: the futures of what this leader proposed, with the records that they may need again.

Must not know: Raft, sockets, files. Invariant: every future that was added is resolved once, by a run, or given back.
"""

import asyncio
from collections import deque

cimport cython
from libc.stdint cimport uint64_t

from hiqlite._accel.batch cimport Op, add_late

from hiqlite._accel.records import offsets, unseal


cdef class Pending:
    """Which futures wait for which log indexes: closed ranges, ascending, never overlapping."""

    cdef object batches        # (first index, futures, records that end with theirs)
    cdef readonly int count

    def __init__(self):
        self.batches = deque()

    def __len__(self):
        return self.count

    @property
    def batch_count(self):
        return len(self.batches)

    def add(self, uint64_t first, list ops, bytes records=None):
        """`records`: of all of them, for those that may have to be sent again."""
        self.batches.append((first, ops, records))
        self.count += <int>len(ops)

    def complete(self, uint64_t last, run):
        """Resolve all that wait for an index `<= last`, with the answers of `run`."""
        cdef uint64_t first, index
        cdef uint64_t run_first = run.first, run_last = run.last
        cdef list ops
        cdef int in_task = -1  # the same for all: whoever is stepped in between has been when the next one is told
        answer = run.answer
        while self.batches:
            first, ops, records = self.batches[0]
            if first > last:
                break
            self.batches.popleft()
            if first + len(ops) - 1 > last:
                self.batches.appendleft((last + 1, ops[last + 1 - first:], records))
                ops = ops[:last + 1 - first]
            self.count -= <int>len(ops)
            index = first
            for op in ops:
                if op is not None and run_first <= index <= run_last:
                    if type(op) is Op:
                        if in_task < 0:
                            in_task = asyncio.current_task((<Op>op).loop) is not None
                        (<Op>op).take_answer(answer(index), index, in_task)
                    else:
                        op.answer(answer(index), index)
                index += 1

    @cython.wraparound(True)
    def cut_from(self, uint64_t index):
        """Take out all that wait for an index `>= index`; their entries are gone.

        Returns:
            (record, future) of each; the record is unsealed again, and empty where it may not be sent again.
        """
        cdef uint64_t first
        cdef list ops, lost = []
        while self.batches:
            first, ops, records = self.batches[-1]
            if first + len(ops) <= index:
                break
            self.batches.pop()
            if first < index:
                kept = None
                if records is not None:
                    starts = offsets(records)
                    kept = records[:starts[len(starts) - len(ops) + <Py_ssize_t>(index - first)]]
                self.batches.append((first, ops[:index - first], kept))
                ops = ops[index - first:]
            self.count -= <int>len(ops)
            lost[:0] = with_records(ops, records)
        return lost

    def expired(self, long long now_ns):
        """Futures whose deadline has passed; they stay in place, resolving them twice does nothing."""
        cdef list late = []
        for _, ops, _ in self.batches:
            add_late(late, ops, now_ns)
        return late


cdef list with_records(list ops, bytes records):
    """Each future with its record: `ops` are the last ones of those that `records` holds."""
    cdef list found = []
    cdef Py_ssize_t number
    starts = None
    for op in ops:
        record = b""
        if records is not None and isinstance(op, Op) and op.retries:
            if starts is None:
                starts = [*offsets(records), len(records)]
            number = len(starts) - 1 - len(ops) + len(found)
            record = unseal(records[starts[number]:starts[number + 1]])
        found.append((record, op))
    return [pair for pair in found if pair[1] is not None]
