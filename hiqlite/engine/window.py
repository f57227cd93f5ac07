"""What the runtime still holds in memory, as batches of entries with their size.

The engine composes frames out of whole batches, so it never asks for the size of one entry. Must not know peers or
bytes. Invariants: batches are contiguous and ascending; `size_bytes` is their sum and stays within the limit given
(the newest batch is always kept); what is not here has to be fetched.
"""

from __future__ import annotations


class Window:
    """Batches `(first, last, size_bytes)` that were proposed here, oldest first."""

    def __init__(self, size_bytes_max: int) -> None:
        self.size_bytes_max: int = size_bytes_max
        self.size_bytes: int = 0
        self.head: int = 0  # position of the oldest batch in the three lists
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        self.sizes: list[int] = []
        self.frame_bytes: int = 0  # size of the frame that `frame` returned last

    def clear(self) -> None:
        """Hold nothing, for instance because another node leads now."""
        self.size_bytes = 0
        self.head = 0
        self.firsts.clear()
        self.lasts.clear()
        self.sizes.clear()

    def push(self, first: int, last: int, size_bytes: int) -> None:
        """A batch behind the newest one; a gap empties the window, for it must stay contiguous."""
        count = len(self.lasts)
        if count > self.head and self.lasts[count - 1] + 1 != first:
            self.clear()
        self.firsts.append(first)
        self.lasts.append(last)
        self.sizes.append(size_bytes)
        self.size_bytes += size_bytes
        while self.size_bytes > self.size_bytes_max and self.head < len(self.firsts) - 1:
            self._drop_oldest()

    def starts_at(self, first_index: int) -> None:
        """Entries below `first_index` are gone; a batch that lost its begin is gone as a whole."""
        while self.head < len(self.firsts) and self.firsts[self.head] < first_index:
            self._drop_oldest()
        self._compact()

    def release(self, index: int) -> None:
        """Nobody needs `index` or what is below: forget the batches that end there."""
        while self.head < len(self.lasts) and self.lasts[self.head] <= index:
            self._drop_oldest()
        self._compact()

    def frame(self, first: int, size_bytes_max: int) -> int:
        """The last index of a frame that begins at `first`: whole batches up to the size, at least one; 0 if unknown.

        A frame may begin inside a batch; its size is then counted too high, never too low.
        """
        count = len(self.firsts)
        if count == self.head or first < self.firsts[self.head] or first > self.lasts[count - 1]:
            return 0
        position = count - 1
        if first < self.firsts[position]:
            position = self._position(first)
        last = self.lasts[position]
        size = self.sizes[position]
        position += 1
        while position < count and size + self.sizes[position] <= size_bytes_max:
            size += self.sizes[position]
            last = self.lasts[position]
            position += 1
        self.frame_bytes = size
        return last

    def _position(self, index: int) -> int:
        low = self.head
        high = len(self.firsts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.firsts[middle] <= index:
                low = middle
            else:
                high = middle - 1
        return low

    def _drop_oldest(self) -> None:
        self.size_bytes -= self.sizes[self.head]
        self.head += 1

    def _compact(self) -> None:
        """Give the room of dropped batches back, rarely enough that it costs nothing per batch."""
        if self.head > 256 or self.head == len(self.firsts):
            del self.firsts[: self.head]
            del self.lasts[: self.head]
            del self.sizes[: self.head]
            self.head = 0
