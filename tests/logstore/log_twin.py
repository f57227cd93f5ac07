"""The log's file format once more, in plain Python, and a model of what its records mean.

The tests build segments with this, damage them, and compare what recovery says with what the model says.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hiqlite._accel.plain import records
from hiqlite.engine.model import Identity, TermRun
from hiqlite.logstore.recovery import Plan, recover
from hiqlite.logstore.segments import (
    CRC,
    HEADER,
    SegmentFolder,
    SegmentHeader,
    decode_header,
    encode_header,
    segment_path,
)

ENTRY, HARD_STATE, TRUNCATE, PURGE_MARK, SYNCED, REPAIR, SEGMENT_END = 1, 2, 3, 4, 5, 6, 7
BATCH = struct.Struct("<IIQQQIII")
NODE = Identity(7, 0x1122334455667788)
SEGMENT_BYTES = 16 << 10
HEADER_BYTES = HEADER.size + CRC.size  # of a segment's first page; the rest of that holds nothing


@cache
def record(kind: int, term: int, index: int, payload: bytes = b"") -> bytes:
    return bytes(records.encode_record(kind, 1 if kind in (ENTRY, REPAIR) else 0, payload, term=term, index=index))


def payload_of(term: int, index: int) -> bytes:
    """Every (term, index) has content of its own, of a size that varies."""
    return f"{term}:{index}:".encode() * (1 + index % 4)


@cache
def entries(term: int, first: int, last: int) -> bytes:
    return b"".join(record(ENTRY, term, index, payload_of(term, index)) for index in range(first, last + 1))


def vote_record(term: int, vote: Identity | None) -> bytes:
    who = vote or Identity(0, 0)
    return record(HARD_STATE, term, who.id, struct.pack("<Q", who.incarnation))


def encode_batch(
    salt: int,
    io: int,
    synced: int,
    last_crc: int,
    content: bytes,
    count: int,
    crc32c: Callable[[bytes], int] = records.crc32c,
) -> bytes:
    fields = BATCH.pack(
        int.from_bytes(b"HQBA", "little"), len(content), salt, io, synced, last_crc, count, crc32c(content)
    )
    return fields + struct.pack("<I", crc32c(fields)) + content


@dataclass(frozen=True)
class BatchAt:
    """A batch as it stands in a file."""

    offset: int
    size: int
    io: int
    synced: int
    local: bool

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass
class SegmentTwin:
    """One segment under construction."""

    header: SegmentHeader
    body: bytearray = field(default_factory=bytearray)
    last_crc: int = 0
    last_io: int = 0
    batches: list[BatchAt] = field(default_factory=list)
    before: bytes = b""  # what the file held in an earlier use; zeros when it is new

    def __post_init__(self) -> None:
        self.body += encode_header(self.header)
        self.last_io = self.header.first_io - 1

    def batch(self, io: int, synced: int, content: bytes, count: int) -> None:
        made = encode_batch(self.header.salt, io, synced, self.last_crc, content, count)
        self.batches.append(BatchAt(len(self.body), len(made), io, synced, io == self.last_io))
        self.body += made
        self.last_crc = struct.unpack_from("<I", made, 44)[0]
        self.last_io = io

    def mark(self) -> None:
        self.batch(self.last_io, self.last_io, record(SYNCED, 0, self.last_io), 1)

    def finish(self) -> None:
        self.batch(self.last_io, self.last_io, record(SEGMENT_END, 0, 0), 1)

    def content(self) -> bytes:
        rest = self.before[len(self.body) :]
        return (bytes(self.body) + rest).ljust(self.header.size_bytes, b"\0")

    def write(self, folder: Path) -> Path:
        path = segment_path(folder, self.header.number)
        path.write_bytes(self.content())
        return path


def new_segment(
    number: int = 1, first_io: int = 1, generation: int = 0x0123456789ABCDEF, size_bytes: int = SEGMENT_BYTES
) -> SegmentTwin:
    return SegmentTwin(SegmentHeader(0, NODE.id, NODE.incarnation, number, generation + number, first_io, size_bytes))


def batches_of(content: bytes) -> list[BatchAt]:
    """Walks the batches of an undamaged segment."""
    header = decode_header(content[:4096])
    assert header is not None
    found = []
    at, last_io = 4096, header.first_io - 1
    while content[at : at + 4] == b"HQBA":
        _, size, salt, io, synced, *_ = BATCH.unpack_from(content, at)
        assert salt == header.salt
        found.append(BatchAt(at, 48 + size, io, synced, io == last_io))
        at, last_io = at + 48 + size, io
    return found


@dataclass(frozen=True)
class State:
    """What a log means after some io sequence."""

    terms: tuple[int, ...] = ()  # of entries 1, 2, ...
    term: int = 0
    vote: Identity | None = None


class History:
    """Operations with ascending io sequences, and the state after each."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {0: State()}
        self.io = 0

    @property
    def state(self) -> State:
        return self.states[self.io]

    def append(self, term: int, count: int) -> tuple[int, int, bytes]:
        old = self.state
        first, last = len(old.terms) + 1, len(old.terms) + count
        self._next(State(old.terms + (term,) * count, old.term, old.vote))
        return first, last, entries(term, first, last)

    def truncate(self, last_kept: int) -> bytes:
        old = self.state
        self._next(State(old.terms[:last_kept], old.term, old.vote))
        return record(TRUNCATE, 0, last_kept)

    def repair(self, index: int) -> bytes:
        """The entry once more, at the tail."""
        self._next(self.state)
        term = self.state.terms[index - 1]
        return record(REPAIR, term, index, payload_of(term, index))

    def purge(self, index: int) -> bytes:
        """Two records without an io sequence of their own: hard state and mark."""
        term = self.state.terms[index - 1]
        return self.vote() + record(PURGE_MARK, term, index)

    def vote(self) -> bytes:
        """Term and vote once more."""
        return vote_record(self.state.term, self.state.vote)

    def hard_state(self, term: int, vote: Identity | None) -> bytes:
        self._next(State(self.state.terms, term, vote))
        return vote_record(term, vote)

    def _next(self, state: State) -> None:
        self.io += 1
        self.states[self.io] = state


def terms_of(runs: tuple[TermRun, ...], base_index: int = 0) -> tuple[int, ...]:
    """The trail, entry by entry; it begins behind `base_index` and has no gaps."""
    terms: list[int] = []
    for run in runs:
        assert run.first == base_index + len(terms) + 1 and run.last >= run.first
        terms += [run.term] * (run.last - run.first + 1)
    return tuple(terms)


def plan_of(folder: Path, newest_named: int = 0, purge_point: tuple[int, int] = (0, 0)) -> Plan:
    return recover(SegmentFolder(folder), group=0, node_id=NODE.id, newest_named=newest_named, purge_point=purge_point)


def is_faulty(plan: Plan, index: int) -> bool:
    return any(low <= index <= high for low, high in plan.recovered.faulty)
