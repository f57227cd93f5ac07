"""What a log holds after whatever ended the process: the replay of its segments.

Must not know threads, LMDB or an event loop. The rule (docs/durability.md tells it at length):

- S is the highest io sequence that any valid header says to be on disk.
- A batch above S was never promised. The first damage there ends the log: all that follows is cut.
- Damage in a batch at or below S is corruption. An entry whose header holds is `faulty`: its (term, index) stay in the
  trail of terms, its payload must come from a peer. What cannot be read at all may only have been entries of the
  term on both sides of the hole (Raft's terms never fall, so nothing else fits between); then those are faulty.
  Anything else makes the log `corrupt`: it ends before the hole, and its promises are gone.
- Records replay in order: entries extend, truncate cuts, a purge mark moves the beginning, a repair stands in for an
  entry that cannot be read.
- The purge point is the higher one of the metadata's and of the newest mark. Segments below it may be gone; the first
  one left may begin anywhere up to the entry behind the purge point, and what it says of entries up to there is
  replayed and then forgotten. A first entry beyond that means that segments are missing.

Invariant: what is returned was written, in this order, and every entry with an io sequence up to S is in it, or is
faulty, or the log says that it is corrupt or lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn

from hiqlite._accel import wal as native
from hiqlite.engine.model import Identity
from hiqlite.errors import StorageError

from .recovered import Recovered
from .segments import VERSION, OtherFormat, Position, SegmentFiles, SegmentHeader, decode_header
from .trail import Trail

IO_SEQUENCE_MAX = (1 << 64) - 1


class Event(IntEnum):
    """Kinds of events of a scan, as in native/wal_log.h."""

    ENTRIES = 1
    TRUNCATE = 2
    HARD_STATE = 3
    PURGE = 4
    REPAIR = 5
    BAD_BATCH = 6
    FAULTY = 7
    UNKNOWN = 8
    GAP = 9
    END = 10
    MEMBERSHIP = 11


@dataclass(frozen=True, slots=True)
class Plan:
    """How the log goes on.

    Attributes:
        spans: (first, last, segment, offset) of entries, for the index.
        repairs: (index, segment, offset) of copies of damaged entries.
        tops: (segment, highest index that it is needed for), of the segments kept.
        said: the S of the module's text.
        anew: the purge point voids what the log tells, and the log does not say so yet.
        kept, discarded: numbers of segments.
        unproven: (segment, begin, end) of what no header says to be on disk, of those kept.
        end: where the last kept batch ends; None when no segment is kept.
        resume: the header of the segment to go on in; None: a new one follows.
        cut: the header of the segment that needs an end batch at `end` first.
    """

    recovered: Recovered
    spans: tuple[tuple[int, int, int, int], ...] = ()
    repairs: tuple[tuple[int, int, int], ...] = ()
    tops: tuple[tuple[int, int], ...] = ()
    said: int = 0
    anew: bool = False
    kept: tuple[int, ...] = ()
    discarded: tuple[int, ...] = ()
    unproven: tuple[tuple[int, int, int], ...] = ()
    end: Position | None = None
    resume: SegmentHeader | None = None
    cut: SegmentHeader | None = None


@dataclass(frozen=True, slots=True)
class _Scanned:
    header: SegmentHeader
    size_bytes: int
    events: list[tuple[int, int, int, int, int, int]]
    synced: int
    end: Position
    ended: bool
    unproven: int

    @property
    def short(self) -> bool:
        return self.size_bytes < self.header.size_bytes


def recover(
    files: SegmentFiles,
    *,
    group: int,
    node_id: int,
    newest_named: int,
    purge_point: tuple[int, int] = (0, 0),
    incarnation: int = 0,
) -> Plan:
    """Reads the log in `files` and says what it holds; writes nothing.

    Args:
        newest_named: number of the newest segment that the metadata names, 0 for none.
        purge_point: (index, term) that the metadata name.
        incarnation: whose promises the log holds; 0: whoever's.

    Raises:
        StorageError: a segment cannot be read, or is of another format.
    """
    numbers = files.numbers()
    scanned, broken = _scan_all(files, numbers, group, Identity(node_id, incarnation))
    return _Replay(scanned, broken, numbers, newest_named, purge_point).run()


def _scan_all(files: SegmentFiles, numbers: list[int], group: int, owner: Identity) -> tuple[list[_Scanned], str]:
    """Scans from the newest to the oldest: a segment's batches end where the next one's io sequences begin.

    Returns the segments below the lowest one with a damaged header, and what is wrong with that one.
    """
    found: list[_Scanned] = []
    broken = ""
    io_limit = IO_SEQUENCE_MAX
    for number in reversed(numbers):
        view = _read(files, number)
        header = _header(files, number, view)
        if header is None or header.number != number:
            broken, found, io_limit = f"the header of segment {number} is damaged", [], IO_SEQUENCE_MAX
            continue
        if (header.node_id, header.group) != (owner.id, group) or owner.incarnation not in (0, header.incarnation):
            whose = f"node {header.node_id}, group {header.group}"
            broken, found, io_limit = f"segment {number} is another log's, of {whose}", [], IO_SEQUENCE_MAX
            continue
        read = native.scan(view, header.salt, header.first_io, io_limit)
        events, synced, last_io, last_crc, end, ended, unproven = read
        at = Position(number, end, last_io, last_crc)
        found.append(_Scanned(header, len(view), events, synced, at, ended, unproven))
        io_limit = header.first_io
    found.reverse()
    return found, broken


def _read(files: SegmentFiles, number: int) -> memoryview:
    try:
        return files.read(number)
    except IsADirectoryError:
        return memoryview(b"")  # something else lies in its place
    except OSError as error:
        hint = "check the disk and the permissions"
        raise StorageError(f"cannot read log segment {files.place(number)}: {error.strerror}", hint=hint) from error


def _header(files: SegmentFiles, number: int, view: memoryview) -> SegmentHeader | None:
    try:
        return decode_header(view[: native.SEGMENT_HEADER_BYTES])
    except OtherFormat as error:
        raise StorageError(
            f"log segment {files.place(number)} has format {error.version}, this version reads {VERSION}",
            hint="start it with the version that wrote it",
        ) from error


class _Damaged(Exception):
    """Something that had been synced cannot be told any more; the log ends with `trail` at `end`."""

    def __init__(self, reason: str, trail: Trail, end: Position | None) -> None:
        super().__init__(reason)
        self.trail = trail
        self.end = end


class _Replay:
    """One pass over the events of all segments, with what is known so far."""

    def __init__(
        self,
        scanned: list[_Scanned],
        broken: str,
        numbers: list[int],
        newest_named: int,
        purge_point: tuple[int, int],
    ) -> None:
        self.scanned = scanned
        self.broken = broken
        self.numbers = numbers
        self.newest_named = newest_named
        self.synced = max((max(one.synced, one.header.first_io - 1) for one in scanned), default=0)
        self.purged_index, self.purged_term = max([purge_point, *_marks(scanned, self.synced)])
        self.trail = Trail(adrift=self.purged_index > 0)
        self.tops = {one.header.number: _top(one) for one in scanned}
        self.end: Position | None = None  # of the part that `trail` tells
        self.safe: tuple[Trail, Position | None] = (self.trail, None)  # the state to go back to
        self.hole = False  # something that cannot be read lies behind the last known entry
        self.cut = False
        self.anew = False

    def run(self) -> Plan:
        corrupt = ""
        try:
            for place, one in enumerate(self.scanned):
                self._join(place, one)
                self._segment(one)
                if self.cut:
                    break
            if self.hole:
                self._damaged(f"what follows entry {self.trail.last_index} cannot be read")
            if self.broken:
                self._remember(self.end)
                self._damaged(self.broken)
        except _Damaged as damage:
            corrupt, self.cut = str(damage), True
            self.trail, self.end = damage.trail, damage.end
        if self.trail.adrift:
            self.trail.begin(self.purged_index, self.purged_term)
        if self._contradicts_purge_point():
            self.trail.begin(self.purged_index, self.purged_term)
            self.anew = True
        self.trail.purge(self.purged_term, self.purged_index)
        return self._plan(corrupt)

    def _contradicts_purge_point(self) -> bool:
        """An image took this log's place, or a database that was ahead, and the metadata know it first. Or what was
        written over these entries, and purged, cannot be read any more: terms never fall, so what is left is older."""
        if self.trail.last_index < self.purged_index:
            return True
        at, behind = (self.trail.term_at(index) for index in (self.purged_index, self.purged_index + 1))
        return at not in (0, self.purged_term) or 0 < behind < self.purged_term

    def _join(self, place: int, one: _Scanned) -> None:
        """This segment must follow the one before it."""
        start = Position(one.header.number, native.SEGMENT_HEADER_BYTES, one.header.first_io - 1, 0)
        if place > 0:
            before = self.scanned[place - 1]
            if one.header.number != before.header.number + 1:
                self._remember(before.end)
                self._damaged(f"segments between {before.header.number} and {one.header.number} are missing")
            if not before.ended and before.end.last_io + 1 != one.header.first_io:
                self._remember(before.end)
                self.hole = True
        self._remember(start)

    def _segment(self, one: _Scanned) -> None:
        """Replays one segment; sets `cut` when the log ends inside it."""
        number = one.header.number
        self.end = one.end
        for kind, _, term, first, last, offset in one.events:
            if kind in (Event.BAD_BATCH, Event.GAP):
                at = Position(number, offset, first, last)
                if self.synced <= first:  # nothing behind the batch before it was ever promised
                    self.end, self.cut = at, True
                    return
                self._remember(at)
                self.hole = self.hole or kind == Event.GAP
            elif kind == Event.UNKNOWN:
                self.hole = True
            elif kind in (Event.ENTRIES, Event.FAULTY):
                self._entries(term, first, last, (number, offset))
                if kind == Event.FAULTY:
                    self.trail.mark_faulty(first, last)
            elif kind == Event.TRUNCATE:
                self._reach(first)
                self._refuse_hole("a truncation")
                self.trail.truncate(first)
            elif kind == Event.PURGE and last:
                self.hole = False
                self.trail.begin(first, term)
            elif kind == Event.PURGE:
                self.trail.purge(term, first)  # a hole behind the last known entry stays one
            elif kind == Event.HARD_STATE:
                self.trail.hard_state(term, Identity(first, last) if first else None)
            elif kind == Event.REPAIR:
                self._repair(term, first, (number, offset))
            elif kind == Event.MEMBERSHIP and not self.trail.adrift and self.trail.term_at(first) == term:
                self.trail.mark_membership(first)

    def _reach(self, index: int) -> None:
        """Where nothing is known yet, a record that follows `index` begins the trail: there, or at the purge point.

        What a hole before it may have held is purged by now, when `index` is. The term at `index` is not known: what
        was written there first may have been cut and written again.
        """
        if self.trail.adrift and index <= self.purged_index:
            self.trail.begin(index, 0)
            self.hole = False
        elif self.trail.adrift:
            self.trail.begin(self.purged_index, self.purged_term)

    def _repair(self, term: int, index: int, at: tuple[int, int]) -> None:
        if self.trail.adrift or index <= self.trail.base_index:
            return
        if self.trail.term_at(index) == term:
            self.trail.repair(index, at)
        elif not self.hole:
            self._damaged(f"a repair of entry {index} of term {term} belongs to no entry")

    def _entries(self, term: int, first: int, last: int, at: tuple[int, int]) -> None:
        self._reach(first - 1)
        expected = self.trail.last_index + 1
        if self.hole and (term != self.trail.last_term or first < expected):
            self._damaged(f"what stood between entries {expected - 1} and {first} cannot be read")
        if self.hole and first > expected:
            self.trail.extend(term, expected, first - 1, at)
            self.trail.mark_faulty(expected, first - 1)
            self.tops[at[0] - 1] = max(self.tops.get(at[0] - 1, 0), first - 1)  # they may stand in the segment before
            expected = first
        self.hole = False
        if first != expected or term < self.trail.last_term:
            before = f"entry {expected - 1} of term {self.trail.last_term}"
            self._damaged(f"entry {first} of term {term} follows {before}")
        self.trail.extend(term, first, last, at)

    def _remember(self, end: Position | None) -> None:
        """The state to go back to, if what follows turns out to be beyond telling; not past an open hole."""
        if not self.hole:
            self.safe = (self.trail.copy(), end)

    def _refuse_hole(self, what: str) -> None:
        if self.hole:
            self._damaged(f"{what} follows something that cannot be read")

    def _damaged(self, reason: str) -> NoReturn:
        raise _Damaged(reason, *self.safe)

    def _plan(self, corrupt: str) -> Plan:
        end, trail = self.end, self.trail
        newest = max(self.numbers, default=0)
        kept = tuple(number for number in self.numbers if end is not None and number <= end.number)
        last = next((one for one in self.scanned if kept and one.header.number == kept[-1]), None)
        cut_short = last is not None and last.short and not last.ended and kept[-1] == newest
        lost = self.newest_named > newest or cut_short
        whole = last is not None and end == last.end
        ended = last is not None and whole and last.ended
        recovered = Recovered(
            runs=trail.runs(),
            base_index=trail.base_index,
            base_term=trail.base_term,
            term=trail.term,
            vote=trail.vote,
            io_sequence=max((one.end.last_io for one in self.scanned), default=0),
            faulty=trail.faulty(),
            lost=lost,
            corrupt=corrupt,
            memberships=trail.memberships(),
        )
        goes_on = last is not None and not (self.cut or lost or ended)
        return Plan(
            recovered,
            spans=trail.spans(),
            repairs=trail.repairs(),
            tops=tuple((number, self.tops.get(number, 0)) for number in kept),
            said=self.synced,
            anew=self.anew,
            kept=kept,
            discarded=tuple(number for number in self.numbers if number not in kept),
            unproven=tuple(
                (one.header.number, one.unproven, (end if one is last and end is not None else one.end).offset)
                for one in self.scanned
                if one.header.number in kept and one.end.last_io >= self.synced
            ),
            end=end,
            resume=last.header if last is not None and goes_on else None,
            cut=last.header if last is not None and not goes_on and not ended else None,
        )


def _marks(scanned: list[_Scanned], synced: int) -> list[tuple[int, int]]:
    """(index, term) of the purge marks behind the last restart of the log, up to where it is cut."""
    marks: list[tuple[int, int]] = []
    for one in scanned:
        for kind, _, term, first, last, _ in one.events:
            if kind in (Event.BAD_BATCH, Event.GAP) and synced <= first:
                return marks
            if kind == Event.PURGE and last:
                marks = [(first, term)]
            elif kind == Event.PURGE:
                marks.append((first, term))
    return marks


def _top(one: _Scanned) -> int:
    """The highest index that a segment is needed for: of an entry, even one cut later, or behind a mark."""
    ends = {Event.ENTRIES: 4, Event.FAULTY: 4, Event.REPAIR: 3}
    entries = [event[ends[Event(event[0])]] for event in one.events if event[0] in ends]
    return max([*entries, *(event[3] + 1 for event in one.events if event[0] == Event.PURGE)], default=0)
