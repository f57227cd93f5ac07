"""Work that is asked for often and done seldom."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hiqlite.runtime.sparing import Sparing

PAUSE_S = 0.05


async def until(done: list[float], count: int) -> None:
    async with asyncio.timeout(20):
        while len(done) < count:
            await asyncio.sleep(0)


async def test_the_first_time_is_at_once_and_the_last_time_is_never_lost() -> None:
    """However often it is asked for meanwhile, it is done once more, after the pause."""
    loop = asyncio.get_running_loop()
    done: list[float] = []
    sparing = Sparing(lambda: done.append(loop.time()), PAUSE_S, loop)
    for _ in range(100):
        sparing.ask()
    assert len(done) == 1
    await until(done, 2)
    assert done[1] - done[0] >= PAUSE_S * 0.9
    sparing.ask()
    await until(done, 3)
    assert done[2] - done[1] >= PAUSE_S * 0.9


async def test_work_that_asks_for_itself_is_done_once_per_pause() -> None:
    """Two nodes that answer each other for ever are such work."""
    loop = asyncio.get_running_loop()
    done: list[float] = []

    def work() -> None:
        done.append(loop.time())
        sparing.ask()

    sparing = Sparing(work, PAUSE_S, loop)
    sparing.ask()
    await until(done, 4)
    assert all(later - earlier >= PAUSE_S * 0.9 for earlier, later in pairwise(done))
    sparing.close()


async def test_nothing_is_done_once_it_is_closed() -> None:
    loop = asyncio.get_running_loop()
    done: list[float] = []
    sparing = Sparing(lambda: done.append(loop.time()), PAUSE_S, loop)
    sparing.ask()
    sparing.ask()
    sparing.close()
    sparing.ask()
    later = loop.create_future()
    loop.call_later(3 * PAUSE_S, later.set_result, None)
    await later
    assert len(done) == 1
