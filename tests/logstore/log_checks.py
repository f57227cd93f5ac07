"""The property of recovery: what it must keep, what it may say instead, and that it never invents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hiqlite._accel import wal as native
from hiqlite.logstore.recovery import Plan
from tests.logstore.log_twin import (
    HEADER_BYTES,
    NODE,
    BatchAt,
    History,
    SegmentTwin,
    State,
    entries,
    is_faulty,
    terms_of,
)


def reader_of(folder: Path, plan: Plan) -> native.NativeLog:
    """A native log that is not started: it can only read what `plan` found."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        log = native.NativeLog(descriptor, 0, NODE.id, NODE.incarnation, 16 << 10, 0, 0)
    finally:
        os.close(descriptor)
    log.set_base(plan.recovered.base_index)
    for span in plan.spans:
        log.add_span(*span)
    for repair in plan.repairs:
        log.add_repair(*repair)
    return log


def check_entries(folder: Path, plan: Plan) -> None:
    """Each entry that is not faulty reads back as it was written; each faulty one says that it is."""
    log = reader_of(folder, plan)
    base = plan.recovered.base_index
    for index, term in enumerate(terms_of(plan.recovered.runs, base), start=base + 1):
        if is_faulty(plan, index):
            with pytest.raises(native.ReadDamaged):
                log.read(index, 1)
        else:
            assert log.read(index, 1) == (index, entries(term, index, index))
    for absent in (base, plan.recovered.last_index + 1):
        with pytest.raises(native.ReadAbsent):
            log.read(absent, 1)


def check_plan(folder: Path, plan: Plan, history: History, said: int) -> None:
    """`said`: the highest io sequence that a header which is still whole says to be on disk."""
    recovered = plan.recovered
    base = recovered.base_index
    terms = terms_of(recovered.runs, base)
    reaching = {
        io: was
        for io, was in history.states.items()
        if len(was.terms) >= base and (base == 0 or was.terms[base - 1] == recovered.base_term)
    }
    matching = [io for io, was in reaching.items() if was.terms[base:] == terms]
    if not terms and not matching and base:
        # A purge point in the middle of a batch that is gone: nothing of that batch is there.
        matching = [min(reaching) - 1]
    assert matching, "the log is no state that ever was"
    if recovered.whole:
        assert max(matching) >= said, "an entry that had been synced is gone without a word"
    check_entries(folder, plan)


def said_by(segments: list[SegmentTwin], spoiled: tuple[int, int, int]) -> int:
    """Highest `synced up to` of the headers, a segment's own among them, that [low, high) of `number` spares."""
    number, low, high = spoiled

    def clean(segment: SegmentTwin, offset: int, size: int) -> bool:
        return segment.header.number != number or high <= offset or low >= offset + size

    def batches(segment: SegmentTwin) -> list[BatchAt]:
        return [at for at in segment.batches if clean(segment, at.offset, 48)]

    own = [one.header.first_io - 1 for one in segments if clean(one, 0, HEADER_BYTES)]
    return max([0, *own, *(at.synced for one in segments for at in batches(one))])


def state_of(plan: Plan) -> State:
    """What the plan says; entries behind its base only."""
    return State(terms_of(plan.recovered.runs, plan.recovered.base_index), plan.recovered.term, plan.recovered.vote)
