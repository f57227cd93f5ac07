"""Where no answer waits for fsync the loop writes small batches itself: the same log, and no thread is woken."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.logstore.log_runs import running, until
from tests.logstore.log_twin import entries, terms_of

SELDOM = "interval_60000"  # no sync comes between


async def test_a_small_batch_is_written_within_the_call(tmp_path: Path) -> None:
    """Once the log has fallen silent; the seldom one that meets the log thread awake is written by that."""
    async with running(tmp_path, log_sync=SELDOM, segment_bytes=1 << 20) as (log, _):
        at_once = 0
        for io in range(1, 401):
            log.append(io, io, io, entries(1, io, io))
            at_once += log.written == io
            await until(lambda io=io: log.written == io)
            assert log.queued_bytes == 0
        assert at_once >= 200
        assert log.counters[0] >= 400, "each was a batch of its own"
    async with running(tmp_path) as (log, recovered):
        assert terms_of(recovered.runs, 0) == (1,) * 400
        last, records = await log.read(1, 1 << 20)
        assert (last, records) == (400, entries(1, 1, 400))


async def test_a_batch_whose_answer_waits_for_the_disk_is_the_log_threads(tmp_path: Path) -> None:
    """The loop never waits for a disk: the call returns before, though our look may come late now and then."""
    async with running(tmp_path, segment_bytes=1 << 20) as (log, _):
        returned_before = 0
        for io in range(1, 51):
            log.append(io, io, io, entries(1, io, io))
            returned_before += log.synced < io
            await until(lambda io=io: log.synced == io)
        assert returned_before >= 25


@pytest.mark.parametrize("log_sync", ["immediate_async", "interval_5", SELDOM])
@pytest.mark.parametrize("seed", range(3))
async def test_the_log_is_one_whoever_wrote_its_batches(tmp_path: Path, log_sync: str, seed: int) -> None:
    """Small ones and large ones, cuts, terms and votes, over several segments, waited for or not."""
    chance = random.Random(seed)
    terms = [0]
    async with running(tmp_path, log_sync=log_sync) as (log, _):
        io = 0
        for _ in range(120):
            io += 1
            way = chance.random()
            if way < 0.1 and len(terms) > 1:
                kept = chance.randrange(max(len(terms) - 5, 0), len(terms))
                log.truncate(io, kept)
                del terms[kept + 1 :]
            elif way < 0.15:
                log.hard_state(io, terms[-1] + 1, None)
            else:
                term = terms[-1] + (chance.random() < 0.1) or 1
                first, count = len(terms), 600 if chance.random() < 0.1 else chance.randrange(1, 9)
                log.append(io, first, first + count - 1, entries(term, first, first + count - 1))
                terms += [term] * count
            if chance.random() < 0.7:
                await until(lambda io=io: log.written == io)
        await until(lambda: log.written == io)
    async with running(tmp_path) as (log, recovered):
        assert recovered.whole and recovered.io_sequence == io
        assert terms_of(recovered.runs, 0) == tuple(terms[1:])
        last, _ = await log.read(1, 1 << 30)
        assert last == len(terms) - 1
