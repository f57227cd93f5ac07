"""What a segment's file held before is never told again: properties over random logs, no bytes of which are damaged."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hiqlite.engine.model import Identity
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.segments import SegmentFolder, list_segments, segment_path
from hiqlite.logstore.starting import settle
from tests.logstore.log_checks import check_entries, state_of
from tests.logstore.log_runs import running, until
from tests.logstore.log_twin import BatchAt, History, SegmentTwin, batches_of, entries, new_segment, plan_of

BATCH = st.tuples(st.integers(1, 3), st.integers(0, 1), st.booleans(), st.booleans())
BATCHES = st.lists(BATCH, min_size=1, max_size=8)


def fill(segment: SegmentTwin, history: History, batches: list[tuple[int, int, bool, bool]], term: int) -> None:
    """Batches of entries, votes and truncations; each says of everything before it that it is on disk."""
    for count, step, cut, mark in batches:
        synced = max(history.io, segment.header.first_io - 1)
        content, records = history.append(term, count)[2], count
        if cut and len(history.state.terms) > 1:
            content, records = content + history.truncate(len(history.state.terms) // 2), records + 1
            term += 1
        if step:
            content, records = content + history.hard_state(term, Identity(1 + step, 5)), records + 1
        segment.batch(history.io, synced, content, records)
        if mark:
            segment.mark()


@settings(max_examples=150, deadline=None)
@given(old=BATCHES, new=BATCHES, ahead=st.integers(0, 40), shift=st.sampled_from([0, 0, 8, 64, 256]))
def test_a_recycled_segment_tells_nothing_of_its_first_life(
    old: list[tuple[int, int, bool, bool]], new: list[tuple[int, int, bool, bool]], ahead: int, shift: int
) -> None:
    """A file that was a segment before, also one of higher io sequences (a log that was set back), and is one again."""
    with tempfile.TemporaryDirectory() as name:
        before, past = new_segment(generation=0x7777), History()
        past.states[ahead], past.io = past.state, ahead
        fill(before, past, old, 9)
        segment, history = new_segment(), History()
        fill(segment, history, new, 1)
        residue = bytes(before.body[4096:])
        path = segment.write(Path(name))
        content = bytes(segment.body) + bytes(shift) + residue
        path.write_bytes(content[: segment.header.size_bytes].ljust(segment.header.size_bytes, b"\0"))
        plan = plan_of(Path(name))
        assert plan.recovered.whole and not plan.recovered.faulty
        assert state_of(plan) == history.state
        assert plan.recovered.io_sequence == history.io
        check_entries(Path(name), plan)


@settings(max_examples=150, deadline=None)
@given(batches=st.lists(BATCH, min_size=3, max_size=8), after=BATCHES, data=st.data())
def test_what_was_cut_off_stays_away(
    batches: list[tuple[int, int, bool, bool]], after: list[tuple[int, int, bool, bool]], data: st.DataObject
) -> None:
    """A power loss leaves later batches without an earlier one; they are cut, and the log goes on in a new segment.

    Nothing of them comes back at any later start, though they stand in the file as valid as ever.
    """
    with tempfile.TemporaryDirectory() as name:
        segment, history = new_segment(), History()
        kept = data.draw(st.integers(1, len(batches) - 2))
        fill(segment, history, batches[:kept], 1)
        state, term = history.state, max((*history.state.terms, history.state.term, 1))
        synced = segment.last_io
        lost_from = len(segment.body)
        for count, *_ in batches[kept:]:  # in one write, so that each knows the same to be on disk
            segment.batch(history.io + 1, synced, history.append(term, count)[2], count)
        path = segment.write(Path(name))
        content = bytearray(path.read_bytes())
        content[lost_from : lost_from + segment.batches[-len(batches[kept:])].size] = bytes(
            segment.batches[-len(batches[kept:])].size
        )
        path.write_bytes(content)
        plan = plan_of(Path(name))
        assert plan.recovered.whole and state_of(plan) == state
        settle(SegmentFolder(Path(name)), plan)
        assert state_of(plan_of(Path(name))) == state
        going_on = History()
        going_on.io = plan.recovered.io_sequence
        going_on.states[going_on.io] = state
        following = new_segment(2, first_io=going_on.io + 1)
        fill(following, going_on, after, term + 1)
        following.write(Path(name))
        again = plan_of(Path(name))
        assert again.recovered.whole and state_of(again) == going_on.state
        check_entries(Path(name), again)


async def test_no_vote_is_forgotten_whichever_copy_is_older(tmp_path: Path) -> None:
    """Random votes and terms; then the metadata or the log is set back to what it held before some of them."""
    chance = random.Random(3)
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        said: list[tuple[int, Identity | None]] = [(0, None)]
        async with running(folder) as (log, _):
            for io in range(1, 2 + chance.randrange(5)):
                term, vote = said[-1]
                if vote is None and term and chance.random() < 0.5:
                    said.append((term, Identity(chance.randrange(1, 4), 7)))
                else:
                    said.append((term + 1, Identity(2, 8) if chance.random() < 0.5 else None))
                log.hard_state(io, *said[-1])
                await until(lambda: log.synced == log.written)
        older = said[chance.randrange(len(said))]
        if chance.random() < 0.5:
            meta = Meta.open(folder / "meta")
            meta.set_hard_state(0, *older)
            meta.close()
        else:
            await asyncio.to_thread(set_log_back, folder / "log", said.index(older), said)
        async with running(folder) as (_, recovered):
            assert (recovered.term, recovered.vote) == said[-1]


def set_log_back(folder: Path, count: int, said: list[tuple[int, Identity | None]]) -> None:
    """The log as it was when `count` hard states had been written."""
    segment, history = new_segment(), History()
    for io in range(1, count + 1):
        segment.batch(io, io - 1, history.hard_state(*said[io]), 1)
    segment.write(folder)



async def test_a_batch_torn_behind_a_cut_was_not_promised_either(tmp_path: Path) -> None:
    """Power goes while a batch is written, and again while the first one after that is: nothing was synced of both."""
    folder = tmp_path / "log"
    folder.mkdir()
    segment = new_segment()
    segment.batch(1, 0, entries(1, 1, 1), 1)
    segment.batch(2, 1, entries(1, 2, 20), 19)
    tear(segment.write(folder), segment.batches[-1])
    async with running(tmp_path) as (log, recovered):
        assert (recovered.whole, recovered.last_index, recovered.io_sequence) == (True, 1, 2)
        log.append(3, 2, 20, entries(1, 2, 20))
        await until(lambda: log.synced == 3)
    newest = segment_path(folder, list_segments(folder)[-1])
    tear(newest, batches_of(newest.read_bytes())[0])
    recovered = plan_of(folder).recovered
    assert recovered.whole and (recovered.last_index, recovered.faulty) == (1, ())


def tear(path: Path, batch: BatchAt) -> None:
    """The header of a batch and half of what it holds reached the disk, nothing behind that did."""
    content = bytearray(path.read_bytes())
    middle = batch.offset + batch.size // 2
    content[middle:] = bytes(len(content) - middle)
    path.write_bytes(content)
