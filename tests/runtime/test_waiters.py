"""Who waits for an applied index, and reads that share quorum rounds."""

from __future__ import annotations

import asyncio
import random
from math import inf
from typing import Any

import pytest

from hiqlite.errors import LeadershipLost, RequestTimeout, ShuttingDown, StorageError
from hiqlite.runtime.waiting import AppliedWaiters, ReadRound, ReadTokens


def test_waiters_run_once_their_index_is_reached_in_order_of_index_and_arrival() -> None:
    """Equal indexes keep the order in which they came."""
    waiters, told = AppliedWaiters(), []
    for index, name in ((5, "a"), (3, "b"), (5, "c"), (9, "d")):
        waiters.add(index, lambda name=name: told.append(name))
    waiters.reached(2)
    assert told == []
    waiters.reached(5)
    assert told == ["b", "a", "c"]
    waiters.reached(5)
    assert len(waiters) == 1
    waiters.reached(100)
    assert told[-1] == "d" and len(waiters) == 0


def test_random_indexes_are_all_told_once() -> None:
    """Every callback runs exactly once, never before its index."""
    chance, waiters, told = random.Random(7), AppliedWaiters(), []
    for _ in range(500):
        index = chance.randrange(1, 200)
        waiters.add(index, lambda index=index: told.append(index))
    for reached in range(0, 201, 7):
        waiters.reached(reached)
        assert all(index <= reached for index in told)
    waiters.reached(200)
    assert len(told) == 500


class Rounds:
    """Rounds that the test ends by hand."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[int]] = []

    async def ask(self) -> int:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_reads_of_one_turn_share_a_round_and_later_ones_wait_for_the_next() -> None:
    """A round confirms only reads that were there before it began."""
    rounds = Rounds()
    reads = ReadRound(rounds.ask, asyncio.get_running_loop())
    first, second = asyncio.ensure_future(reads.index()), asyncio.ensure_future(reads.index())
    await turns()
    late = asyncio.ensure_future(reads.index())
    await turns()
    assert len(rounds.asked) == 1
    rounds.asked[0].set_result(7)
    assert await first == 7 and await second == 7
    assert not late.done()
    await turns()
    assert len(rounds.asked) == 2
    rounds.asked[1].set_result(9)
    assert await late == 9


async def test_a_failed_round_fails_its_reads_and_the_next_round_runs() -> None:
    """One lost round says nothing about reads that came later."""
    rounds = Rounds()
    reads = ReadRound(rounds.ask, asyncio.get_running_loop())
    first = asyncio.ensure_future(reads.index())
    await turns()
    late = asyncio.ensure_future(reads.index())
    rounds.asked[0].set_exception(LeadershipLost("lost", outcome=None))
    with pytest.raises(LeadershipLost):
        await first
    await turns()
    rounds.asked[1].set_result(3)
    assert await late == 3


async def test_a_read_whose_caller_left_does_not_disturb_the_others() -> None:
    """Cancelled futures are passed over."""
    rounds = Rounds()
    reads = ReadRound(rounds.ask, asyncio.get_running_loop())
    gone, stays = asyncio.ensure_future(reads.index()), asyncio.ensure_future(reads.index())
    await turns()
    gone.cancel()
    rounds.asked[0].set_result(4)
    assert await stays == 4


async def test_closing_fails_every_read_that_waits() -> None:
    """Those of the round under way and those behind it; and nothing is left running."""
    rounds = Rounds()
    reads = ReadRound(rounds.ask, asyncio.get_running_loop())
    under_way = asyncio.ensure_future(reads.index())
    await turns()
    behind = asyncio.ensure_future(reads.index())
    await turns()
    before = asyncio.all_tasks()
    await reads.close(ShuttingDown("closing"))
    for read in (under_way, behind):
        with pytest.raises(ShuttingDown):
            await read
    assert len(asyncio.all_tasks()) < len(before)


async def test_a_round_can_be_closed_before_anything_was_asked() -> None:
    """Idle or never used, closing is quiet."""
    reads = ReadRound(Rounds().ask, asyncio.get_running_loop())
    await reads.close(ShuttingDown("closing"))


async def test_reads_that_gave_up_leave_nothing_behind() -> None:
    """A node without a leader, or one that applies nothing, is asked for hours: who has left takes no memory."""
    loop, rounds, waiters = asyncio.get_running_loop(), Rounds(), AppliedWaiters()
    read_round = ReadRound(rounds.ask, loop)
    kept = waiters.future(1, loop)
    for index in range(2, 2000):
        for future in (waiters.future(index, loop), asyncio.ensure_future(read_round.index())):
            future.cancel()
        await asyncio.sleep(0)
    assert len(waiters) < 200 and read_round.waiting < 200
    waiters.reached(1)
    assert kept.result() is None
    await read_round.close(ShuttingDown("the end"))


async def test_each_read_has_its_own_time_and_the_round_goes_on_for_the_others() -> None:
    """Whichever came first; whose time is over while others wait is told so then, and nobody else."""
    loop, rounds = asyncio.get_running_loop(), Rounds()
    reads = ReadRound(rounds.ask, loop)
    now_s = loop.time()
    ends = [now_s + 60, now_s + 0.02, inf, now_s + 0.01, now_s + 60]
    tasks = [asyncio.ensure_future(reads.index(end_s)) for end_s in ends]
    for place in (3, 1):
        with pytest.raises(RequestTimeout):
            await asyncio.wait_for(asyncio.shield(tasks[place]), 30)
    assert [task.done() for task in tasks] == [False, True, False, True, False]
    behind = asyncio.ensure_future(reads.index(loop.time() + 0.01))  # of the next round, which has not begun
    with pytest.raises(RequestTimeout):
        await behind
    rounds.asked[0].set_result(5)
    assert await asyncio.gather(*(tasks[place] for place in (0, 2, 4))) == [5, 5, 5]
    await turns()
    assert reads.waiting == 0
    await reads.close(ShuttingDown("the end"))


async def test_each_of_a_round_that_failed_gets_an_error_of_his_own() -> None:
    """One for all would gather the tracebacks of all who ever raised it."""

    async def ask() -> int:
        raise StorageError("the disk", hint="look at it", outcome=None)

    reads = ReadRound(ask, asyncio.get_running_loop())
    found = await asyncio.gather(*(asyncio.ensure_future(reads.index()) for _ in range(3)), return_exceptions=True)
    assert len({id(one) for one in found}) == 3
    assert {(type(one), str(one)) for one in found} == {(StorageError, "the disk (look at it)")}


async def test_each_one_who_waits_is_told_by_an_error_of_its_own() -> None:
    """For an index, for a round, or for the next one: whatever he raises it from is no business of the others."""
    loop = asyncio.get_running_loop()
    waiters, tokens, reads = AppliedWaiters(), ReadTokens(loop), ReadRound(Rounds().ask, loop)
    futures: list[asyncio.Future[Any]] = [waiters.future(5, loop), waiters.future(5, loop)]
    futures += [tokens.add(1), tokens.add(2)]
    futures += [asyncio.ensure_future(reads.index()) for _ in range(2)]
    await turns()
    futures.append(asyncio.ensure_future(reads.index()))
    await turns()
    error = StorageError("the disk broke", hint="look")
    for one in (waiters, tokens):
        one.fail(error)
    await reads.close(error)
    told = await asyncio.gather(*futures, return_exceptions=True)
    assert [(type(one), str(one)) for one in told] == [(StorageError, str(error))] * 7
    assert len({id(one) for one in told}) == 7 and error not in told
