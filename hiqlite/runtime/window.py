"""The newest entries of a group's log in memory, as the chunks in which they were proposed or received.

Knows bytes and indexes only. Invariant: chunks are contiguous and ascending; the window is a suffix of the log
(or empty), bounded in bytes but for what the log has not made durable yet.
"""

from __future__ import annotations

from bisect import bisect_right

from hiqlite._accel.records import header, slice_records

# Chunks of tiny batches cost more in Python objects than in bytes; this bounds their number as well.
CHUNKS_MAX = 32_768


class Window:
    """Records by log index; all ranges are closed, `[first, last]`."""

    __slots__ = ("_chunks", "_firsts", "_lasts", "_size_max", "size_bytes")

    def __init__(self, size_max: int) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._chunks: list[bytes] = []
        self._size_max = size_max
        self.size_bytes = 0

    @property
    def first_index(self) -> int:
        """Lowest index held, 0 when empty."""
        return self._firsts[0] if self._firsts else 0

    @property
    def last_index(self) -> int:
        """Highest index held, 0 when empty."""
        return self._lasts[-1] if self._lasts else 0

    @property
    def group_time_ns(self) -> int:
        """That of the newest entry held, 0 when empty."""
        last = self.last_index
        return header(self.records(last, last), 0).group_time_ns if last else 0

    @property
    def over_limit(self) -> bool:
        """Whether there is more than should be held: even the newest entry may go then."""
        return self.size_bytes > self._size_max or len(self._lasts) > CHUNKS_MAX

    def add(self, first: int, last: int, records: bytes) -> None:
        """Append a chunk; a gap before it (a node that restarted) drops what was held."""
        if self._lasts and self._lasts[-1] + 1 != first:
            assert first > self._lasts[-1], "truncate before adding"
            self.clear()
        self._firsts.append(first)
        self._lasts.append(last)
        self._chunks.append(records)
        self.size_bytes += len(records)

    def clear(self) -> None:
        self._firsts.clear()
        self._lasts.clear()
        self._chunks.clear()
        self.size_bytes = 0

    def truncate(self, last_kept: int) -> None:
        """Forget everything above `last_kept`."""
        while self._lasts and self._lasts[-1] > last_kept:
            first, chunk = self._firsts.pop(), self._chunks.pop()
            self._lasts.pop()
            self.size_bytes -= len(chunk)
            if first <= last_kept:
                self.add(first, last_kept, slice_records(chunk, first, first, last_kept))

    def covers(self, first: int) -> bool:
        return bool(self._firsts) and self._firsts[0] <= first <= self._lasts[-1]

    def pieces(self, first: int, last: int) -> list[bytes]:
        """The records `[first, last]` as the fewest bytes objects; whole chunks are not copied."""
        position = bisect_right(self._firsts, first) - 1
        assert position >= 0 and last <= self._lasts[-1], "range outside of the window"
        found: list[bytes] = []
        while position < len(self._firsts) and self._firsts[position] <= last:
            low, high, chunk = self._firsts[position], self._lasts[position], self._chunks[position]
            if first > low or last < high:
                chunk = slice_records(chunk, low, max(first, low), min(last, high))
            found.append(chunk)
            position += 1
        return found

    def records(self, first: int, last: int) -> bytes:
        """The records `[first, last]` as one bytes object; no copy when that is exactly one chunk."""
        if self._lasts and self._lasts[-1] == last and self._firsts[-1] == first:
            return self._chunks[-1]  # most are about what has just come
        found = self.pieces(first, last)
        return found[0] if len(found) == 1 else b"".join(found)

    def last_within(self, first: int, size_max: int) -> int:
        """The last index of the whole chunks from `first` on that fit into `size_max` bytes; at least one chunk."""
        position = bisect_right(self._firsts, first) - 1
        last, size = self._lasts[position], len(self._chunks[position])
        while position + 1 < len(self._firsts) and size + len(self._chunks[position + 1]) <= size_max:
            position += 1
            last = self._lasts[position]
            size += len(self._chunks[position])
        return last

    def evict(self, index: int) -> bool:
        """Drop the oldest chunks that end at or below `index` when `over_limit`; tells whether any went.

        An eighth goes at a time: the lists are shifted once per thousands of chunks, not once per batch.
        """
        assert self.over_limit, "whoever evicts has asked before"
        size_target, chunks_target = self._size_max // 8 * 7, CHUNKS_MAX // 8 * 7
        count, size, chunks = 0, self.size_bytes, len(self._lasts)
        while count < chunks and self._lasts[count] <= index and (size > size_target or chunks - count > chunks_target):
            size -= len(self._chunks[count])
            count += 1
        del self._firsts[:count], self._lasts[:count], self._chunks[:count]
        self.size_bytes = size
        return count > 0
