"""What a recovery says, read once more by the simulator, and held against what the log can mean.

Must not know how the bytes came there. Invariant: what is judged here was read from the bytes, never from the lists.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hiqlite._accel import records
from hiqlite._accel import wal as native
from hiqlite.logstore.recovered import Recovered
from hiqlite.logstore.recovery import Plan
from tests.logstore.log_twin import ENTRY, REPAIR, BatchAt

from .byte_log import BATCH_BYTES
from .content import Content
from .platter import Platter


@dataclass(slots=True)
class Found:
    """One recovery, and what it may have found.

    Attributes:
        states: what the log can mean: after the flushed writes, after one more, and so on.
        floor: the first of them that holds everything that may not be missing.
        values: of the entries that can be read, by index.
        place: the last state that fits; -1: none does.
        damaged: the device changed bytes since the recovery before.
        faulty: what was known to be damaged before.
        state_lost: records of term and vote may be damaged; the metadata hold them too.
    """

    owner: int
    recovered: Recovered
    states: list[Content]
    floor: int
    values: dict[int, int]
    damaged: bool
    faulty: set[int]
    state_lost: bool
    place: int = -1


def entries_in(platter: Platter, plan: Plan) -> Iterator[tuple[int, int, int, int]]:
    """(index, value, segment, offset) of the entries that can be read, as the native reader walks them."""
    repairs = {index: (segment, offset) for index, segment, offset in plan.repairs}
    spans = [(index, index, *at, REPAIR) for index, at in repairs.items()]
    for first, last, segment, offset, kind in [*((*span, ENTRY) for span in plan.spans), *spans]:
        view = platter.read(segment)
        index = first
        while index <= last and offset + BATCH_BYTES <= len(view):
            if bytes(view[offset : offset + 4]) == b"HQBA":  # a view compares byte by byte
                offset += BATCH_BYTES
                continue
            if records.check(view, offset, True, False) != records.OK:
                break
            header = records.header(view, offset)
            if header.kind == kind and header.index == index:
                if index > plan.recovered.base_index and (kind == REPAIR or index not in repairs):
                    low = offset + records.HEADER_SIZE
                    payload = view[low : low + header.payload_length]
                    yield index, int.from_bytes(payload, "little"), segment, offset
                index += 1
            offset += header.length


def stands(header: memoryview, batch: BatchAt) -> bool:
    """Whether the header of a batch is still the one that was written."""
    io, synced = struct.unpack_from("<QQ", header, 16)
    (crc,) = struct.unpack_from("<I", header, 44)
    return (io, synced) == (batch.io, batch.synced) and native.crc32c(header[:44]) == crc


def fits(found: Found, state: Content) -> bool:
    """Whether a recovery found a log that means this."""
    recovered = found.recovered
    base = recovered.base_index
    if (state.base, len(state.terms) - 1) != (base, recovered.last_index):
        return False
    if base and recovered.base_term != state.terms[base]:
        return False
    if not found.state_lost and (recovered.term, recovered.vote) != (state.term, state.vote):
        return False
    terms = [run.term for run in recovered.runs for _ in range(run.first, run.last + 1)]
    if terms != state.terms[base + 1 :]:
        return False
    faulty = {index for low, high in recovered.faulty for index in range(low, high + 1)}
    if not found.damaged and not faulty <= found.faulty:
        return False
    return all(
        index in faulty or found.values.get(index) == value
        for index, value in enumerate(state.values[base + 1 :], start=base + 1)
    )
