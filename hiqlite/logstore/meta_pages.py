"""The pages of LMDB's file, looked at before LMDB maps them: it checks next to nothing, and what is wrong there ends
the process with SIGBUS or an assertion instead of an error.

Must not know what the values mean. The format is that of LMDB 0.9, little endian; a page number is 8 bytes:

- page: its number, 2 bytes unused, flags (branch 1, leaf 2, overflow 4, meta 8), end of the pointers, begin of the
  nodes; a pointer of 2 bytes to each node follows. Of an overflow page the last two are one count of pages.
- node: 4 bytes (data size; of a branch the low part of the child's number), flags (of a branch its high part), key
  size, key, data. With flag 1 the data are the number of the first of overflow pages, which hold them.
- meta page, from 16 on: magic, version, 16 bytes unused, two trees, last page, transaction. A tree: 4 bytes (of the
  first tree: page size), flags, depth, branch pages, leaf pages, overflow pages, entries, root (all ones: none). The
  first tree holds the free pages, by the transaction that freed them: count, and so many numbers.

The meta page of the newer transaction counts. Invariant: what passed makes LMDB read and write within its file only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

PAGE = struct.Struct("<QHHHH")
NODE = struct.Struct("<HHHH")
TREE = struct.Struct("<IHHQQQQQ")
PAGE_NUMBER = struct.Struct("<Q")
BRANCH, LEAF, OVERFLOW = 1, 2, 4
BIG = 1  # flag of a node
FREE_AT, MAIN_AT, LAST_AT, TRANSACTION_AT = 40, 88, 136, 144
FREE_FLAGS, MAIN_FLAGS = 8, 0  # integer keys; nothing
MADE_ALONE = 0x4000  # among the flags of the first tree: the file was made outside of its folder
NO_ROOT = 2**64 - 1
DEPTH_MAX = 32
META_PAGES = 2


class PagesDamaged(Exception):
    """What is wrong with which page."""


@dataclass(slots=True)
class _Counts:
    branches: int = 0
    leaves: int = 0
    overflows: int = 0
    entries: int = 0
    values: list[bytes] = field(default_factory=list)


def check(content: bytes, page_bytes: int) -> None:
    """Raises PagesDamaged. `content`: of the file, at least up to the last page that either meta page names."""
    if content[FREE_AT : FREE_AT + 4] != content[page_bytes + FREE_AT : page_bytes + FREE_AT + 4]:
        raise PagesDamaged("the meta pages differ in the size of a page")
    transactions = [PAGE_NUMBER.unpack_from(content, page + TRANSACTION_AT)[0] for page in (0, page_bytes)]
    meta = page_bytes if transactions[1] > transactions[0] else 0
    walk = _Walk(content, page_bytes, PAGE_NUMBER.unpack_from(content, meta + LAST_AT)[0])
    free = walk.tree(meta + FREE_AT, FREE_FLAGS)
    walk.tree(meta + MAIN_AT, MAIN_FLAGS)
    for value in free.values:
        walk.free_pages(value)


class _Walk:
    """Each page is met once: as a part of a tree, or as a free one."""

    def __init__(self, content: bytes, page_bytes: int, last: int) -> None:
        self._content = content
        self._page_bytes = page_bytes
        self._last = last
        self._met: set[int] = set()

    def tree(self, at: int, flags: int) -> _Counts:
        _, found_flags, depth, branches, leaves, overflows, entries, root = TREE.unpack_from(self._content, at)
        counts = _Counts()
        if found_flags & ~(MADE_ALONE * bool(flags)) != flags or depth > DEPTH_MAX or (root == NO_ROOT) != (depth == 0):
            raise PagesDamaged("a tree is described wrongly")
        if depth:
            self._page(root, depth, counts, least=1 if flags == FREE_FLAGS else 2)
        if (counts.branches, counts.leaves, counts.overflows) != (branches, leaves, overflows):
            raise PagesDamaged("a tree has another number of pages than it says")
        if counts.entries != entries:
            raise PagesDamaged("a tree has another number of entries than it says")
        return counts

    def free_pages(self, value: bytes) -> None:
        if len(value) < PAGE_NUMBER.size or len(value) % PAGE_NUMBER.size:
            raise PagesDamaged("a list of free pages has another shape")
        count, *numbers = struct.unpack(f"<{len(value) // PAGE_NUMBER.size}Q", value)
        if count > len(numbers) or numbers[:count] != sorted(numbers[:count], reverse=True):
            raise PagesDamaged("a list of free pages has another shape")
        for number in numbers[:count]:
            self._meet(number, 1)

    def _meet(self, number: int, pages: int) -> None:
        """Pages from `number` on, which nobody else has."""
        if not META_PAGES <= number <= number + pages - 1 <= self._last:
            raise PagesDamaged(f"there is no page {number}")
        numbers = set(range(number, number + pages))
        if numbers & self._met:
            raise PagesDamaged(f"page {number} is in use twice")
        self._met |= numbers

    def _page(self, number: int, depth: int, counts: _Counts, *, least: int) -> None:
        """`least`: how many children a branch has at least."""
        self._meet(number, 1)
        begin = number * self._page_bytes
        own, _, flags, lower, upper = PAGE.unpack_from(self._content, begin)
        count, odd = divmod(lower - PAGE.size, 2)
        if own != number or flags != (LEAF if depth == 1 else BRANCH):
            raise PagesDamaged(f"page {number} is another page")
        if odd or count < (1 if depth == 1 else least) or not PAGE.size < lower <= upper <= self._page_bytes:
            raise PagesDamaged(f"page {number} is filled wrongly")
        counts.leaves += depth == 1
        counts.branches += depth > 1
        free_from = self._page_bytes
        for at in sorted(struct.unpack_from(f"<{count}H", self._content, begin + PAGE.size), reverse=True):
            if not upper <= at <= self._page_bytes - NODE.size:
                raise PagesDamaged(f"page {number} has a node outside of it")
            low, high, flags, key_bytes = NODE.unpack_from(self._content, begin + at)
            data_at = at + NODE.size + key_bytes
            here_bytes = 0 if depth > 1 else PAGE_NUMBER.size if flags == BIG else low | high << 16
            if data_at + here_bytes > free_from:
                raise PagesDamaged(f"page {number} has a node that reaches into another one")
            free_from = at
            if depth > 1:
                self._page(low | high << 16 | flags << 32, depth - 1, counts, least=least)
            elif flags not in (0, BIG):
                raise PagesDamaged(f"page {number} has a node of another kind")
            else:
                self._value(begin + data_at, low | high << 16, flags == BIG, counts)

    def _value(self, begin: int, size_bytes: int, is_big: bool, counts: _Counts) -> None:
        """`begin`: of the data in the node."""
        counts.entries += 1
        if is_big:
            first = PAGE_NUMBER.unpack_from(self._content, begin)[0]
            self._meet(first, 1)
            begin = first * self._page_bytes
            own, _, flags, low, high = PAGE.unpack_from(self._content, begin)
            begin, pages = begin + PAGE.size, low | high << 16
            # What is made shorter in the transaction that made it keeps its pages.
            if (own, flags) != (first, OVERFLOW) or size_bytes > pages * self._page_bytes - PAGE.size:
                raise PagesDamaged(f"page {first} is another page")
            if pages > 1:
                self._meet(first + 1, pages - 1)
            counts.overflows += pages
        counts.values.append(self._content[begin : begin + size_bytes])
