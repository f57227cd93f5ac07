"""Places in the log at which somebody wants to see the state machine: exactly behind one entry, before the next.

A mark is an entry that changes nothing. Who expects marks is told of each when everything up to it is applied and
nothing behind it is; the feed goes on when he returns. Who does not lets them pass. Must not know what is looked at.
Invariant: while nobody expects a mark no entry is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiqlite import observe
from hiqlite._accel.records import HEADER_SIZE, EntryKind, find_kind, header

Met = Callable[[int, bytes], None]  # index, payload
log = observe.logger("runtime")


class Marks:
    """Of one group."""

    __slots__ = ("_met", "_next")

    def __init__(self) -> None:
        self._met: Met | None = None
        self._next: tuple[int, bytes] | None = None

    def expect(self, met: Met | None) -> None:
        """From now on `met` is told of each mark that is not handed over yet; None: nobody is."""
        self._met = met

    @property
    def expected(self) -> bool:
        return self._met is not None

    @property
    def stops_at(self) -> int:
        """Index of the mark that the feed has to stop behind; 0: none."""
        return 0 if self._next is None else self._next[0]

    def find(self, pieces: Sequence[bytes]) -> int:
        """The first mark among records that are about to be handed over, which then end with it; 0: there is none."""
        for records in pieces:
            for offset in find_kind(records, EntryKind.SCRUB_MARK):
                head = header(records, offset)
                begin = offset + HEADER_SIZE
                self._next = head.index, bytes(records[begin : begin + head.payload_length])
                return head.index
        return 0

    def applied(self, index: int) -> None:
        """Everything up to `index` is applied, and nothing else was handed over."""
        if self._next is None or index < self._next[0]:
            return
        (at, payload), self._next = self._next, None
        if self._met is not None and index == at:
            try:
                self._met(at, payload)
            except Exception:
                log.exception("looking at the state behind entry %d failed", at)

    def forget(self) -> None:
        """The state machine is another one now."""
        self._next = None
