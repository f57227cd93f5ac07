"""A simulated log's records, batches and segments: what the native log thread would have written, byte for byte.

The bytes come from the twin of the format that the golden file checks; which batch they stand in, when a segment ends
and what a header says to be synced follow native/wal_thread.c and wal_batch.c. Must not know when a flush is over.
"""

from __future__ import annotations

import struct
from typing import Any

from hiqlite._accel import records
from hiqlite._accel import wal as native
from hiqlite.engine.model import Identity
from hiqlite.logstore.recovery import Plan
from hiqlite.logstore.segments import SegmentHeader, encode_header
from tests.logstore.log_twin import HARD_STATE, PURGE_MARK, REPAIR, SYNCED, TRUNCATE, BatchAt, encode_batch

from .codec import COMMAND, NOOP, sealed
from .platter import Platter

Item = tuple[int, str, Any, Any, Any]  # io sequence (0: none of its own), kind, and what the kind needs
BATCH_BYTES = 48
GROUP = 0


def encode(item: Item) -> tuple[bytes, int]:
    """The records of one job, and how many they are."""
    _, kind, first, second, third = item
    if kind == "append":
        run = zip(second, third, strict=True)
        return b"".join([sealed(first + at, term, value) for at, (term, value) in enumerate(run)]), len(second)
    if kind == "repair":
        run = zip(second, third, strict=True)
        return b"".join([_repair(first + at, term, value) for at, (term, value) in enumerate(run)]), len(second)
    if kind == "cut":
        return _record(TRUNCATE, 0, first), 1
    if kind == "reset":
        return _record(PURGE_MARK, second[first], first, struct.pack("<Q", 1)), 1
    if kind == "purge":
        return _hard_state(*third) + _record(PURGE_MARK, second, first), 2
    return _hard_state(first, second), 1


def _record(kind: int, term: int, index: int, payload: bytes = b"") -> bytes:
    return bytes(records.encode_record(kind, 0, payload, term=term, index=index))


def _hard_state(term: int, vote: Identity | None) -> bytes:
    who = vote or Identity(0, 0)
    return _record(HARD_STATE, term, who.id, struct.pack("<Q", who.incarnation))


def _repair(index: int, term: int, value: int) -> bytes:
    payload = value.to_bytes(8, "little") if value else b""
    return bytes(records.encode_record(REPAIR, COMMAND if value else NOOP, payload, term=term, index=index))


class ByteLog:
    """The writing half of one log."""

    def __init__(self, platter: Platter, node_id: int, segment_bytes: int) -> None:
        self.platter = platter
        self.node_id = node_id
        self.segment_bytes = segment_bytes
        self.header: SegmentHeader | None = None  # of the segment that is written to
        self.offset = 0
        self.last_crc = 0
        self.last_io = 0
        self.disk_synced = 0
        self.said = 0
        self.next_number = 1
        self.generation = 0x0123456789ABCDEF
        self.tops: dict[int, int] = {}  # segment -> the highest index that it is needed for
        self.batches: dict[int, list[BatchAt]] = {}  # what stands in each segment

    def go_on(self, plan: Plan) -> None:
        """Behind what recovery found, as starting.py tells the native log."""
        self.tops = dict(plan.tops)
        end = plan.end
        self.last_io = end.last_io if end is not None else 0
        self.next_number = end.number + 1 if end is not None else 1
        self.header = plan.resume
        if plan.resume is not None and end is not None:
            self.offset, self.last_crc = end.offset, end.last_crc
        self.said = plan.said if plan.resume is not None else self.last_io
        self.disk_synced = self.last_io
        for number in list(self.batches):
            if end is None or number > end.number:
                del self.batches[number]
            elif number == end.number:
                self.batches[number] = [at for at in self.batches[number] if at.offset < end.offset]

    def write(self, items: list[Item]) -> None:
        """As few batches as fit their segments."""
        made: list[tuple[Item, bytes, int]] = []
        for item in items:
            content, count = encode(item)
            if made and made[-1][0][:2] == (0, "state"):  # one job with the reset behind it, in one batch
                _, before, more = made.pop()
                content, count = before + content, more + count
            made.append((item, content, count))
        while made:
            need = len(made[0][1])
            if self._room() < need:
                self._rotate(need)
            room, size, count = self._room(), 0, 0
            while count < len(made) and (count == 0 or size + len(made[count][1]) <= room):
                size += len(made[count][1])
                count += 1
            self._batch(made[:count])
            del made[:count]

    def mark(self) -> None:
        """The log fell idle: says that what stands before is on the disk."""
        header = self.header
        if header is None or self.disk_synced < self.last_io or self.said >= self.last_io:
            return
        if self.offset + 2 * native.LOCAL_BATCH_BYTES > header.size_bytes:
            self._end(header)
            return
        self._enter(header, self._encode(header, self.last_io, _record(SYNCED, 0, self.last_io), 1))

    def flush(self) -> None:
        """Everything written is on the disk."""
        if self.header is not None:
            self.platter.flush(self.header.number)
        self.disk_synced = max(self.disk_synced, self.last_io)

    def recycle(self, index: int) -> bool:
        """Nothing up to `index` is needed: the lowest segment goes, if it holds nothing else."""
        lowest = min(self.tops, default=0)
        if index > 0 and len(self.tops) > 1 and self.tops[lowest] <= index:
            del self.tops[lowest]
            self.batches.pop(lowest, None)
            self.platter.recycle(lowest, self.segment_bytes)
            return True
        return False

    def _room(self) -> int:
        if self.header is None:
            return 0
        return max(self.header.size_bytes - self.offset - BATCH_BYTES - native.LOCAL_BATCH_BYTES, 0)

    def _end(self, header: SegmentHeader) -> None:
        synced = min(self.disk_synced, self.last_io)
        self._enter(header, native.end_batch(header.salt, self.last_io, synced, self.last_crc))
        self.header = None

    def _rotate(self, need: int) -> None:
        if self.header is not None:
            header = self.header
            self._end(header)
            self.platter.flush(header.number)
            self.disk_synced = max(self.disk_synced, self.last_io)
        least = native.SEGMENT_HEADER_BYTES + BATCH_BYTES + need + native.LOCAL_BATCH_BYTES
        size = self.segment_bytes if self.segment_bytes >= least else (least + 4095) & ~4095
        self.generation += 0x9E3779B97F4A7C15
        made = SegmentHeader(
            GROUP, self.node_id, 1, self.next_number, self.generation & (1 << 64) - 1, self.last_io + 1, size
        )
        self.platter.make(made.number, encode_header(made), size)
        self.header, self.offset, self.last_crc = made, native.SEGMENT_HEADER_BYTES, 0
        self.next_number += 1
        self.tops[made.number], self.batches[made.number] = 0, []

    def _batch(self, made: list[tuple[Item, bytes, int]]) -> None:
        header = self.header
        assert header is not None
        io, top = self.last_io, self.tops[header.number]
        for (one, kind, first, second, _), _, _ in made:
            io = one or io
            if kind in ("append", "repair"):
                top = max(top, first + len(second) - 1)
            elif kind in ("purge", "reset"):
                top = max(top, first + 1)
        content = b"".join([part for _, part, _ in made])
        batch = self._encode(header, io, content, sum(count for _, _, count in made))
        self.tops[header.number] = top
        self._enter(header, batch)

    def _encode(self, header: SegmentHeader, io: int, content: bytes, count: int) -> bytes:
        synced = min(self.disk_synced, io)
        return encode_batch(header.salt, io, synced, self.last_crc, content, count, native.crc32c)

    def _enter(self, header: SegmentHeader, batch: bytes) -> None:
        io, synced = struct.unpack_from("<QQ", batch, 16)
        at = BatchAt(self.offset, len(batch), io, synced, io == self.last_io)
        self.batches[header.number].append(at)
        self.platter.put(header.number, self.offset, batch)
        self.offset += len(batch)
        (self.last_crc,) = struct.unpack_from("<I", batch, 44)
        self.last_io, self.said = io, synced
