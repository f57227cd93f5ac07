"""An end is reached once, and to its end: whoever asks, whoever is cancelled, and not in a forked child."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from hiqlite.ending import Ending, Undisturbed

# From Python 3.12 on a fork of a process with threads warns: that is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Steps:
    """Work of several awaits of each kind, that notes how far it came."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work(self) -> None:
        await asyncio.sleep(0)
        self.done.append("turn")
        await self.gate
        self.done.append("gate")
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        self.done.append("tasks")


async def test_work_goes_on_when_its_task_is_cancelled_and_says_so_afterwards() -> None:
    """Cancelled in each kind of await, more than once: all steps are done, then the cancellation is raised."""
    steps, ending = Steps(), Ending()
    task = asyncio.create_task(ending.reach(steps.work))
    for _ in range(6):
        await asyncio.sleep(0)
        task.cancel()
    assert not task.done()
    steps.gate.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps.done == ["turn", "gate", "tasks"]
    await ending.reach(steps.work)
    assert steps.done == ["turn", "gate", "tasks"], "once"


async def test_who_comes_second_waits_for_the_first_also_when_cancelled() -> None:
    """He returns when all is done, not before; a cancellation does not send him off early."""
    steps, ending = Steps(), Ending()
    first = asyncio.create_task(ending.reach(steps.work))
    others = [asyncio.create_task(ending.reach(steps.work)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others[0].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not any(task.done() for task in (first, *others))
    steps.gate.set_result(None)
    ends = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), asyncio.CancelledError, type(None), type(None)]
    assert steps.done == ["turn", "gate", "tasks"]


async def test_what_the_work_raises_is_raised_to_all() -> None:
    """A close that failed has failed for everybody."""
    ending, gate = Ending(), asyncio.Event()

    async def fails() -> None:
        await gate.wait()
        raise OSError("the disk")

    tasks = [asyncio.create_task(ending.reach(fails)) for _ in range(2)]
    await asyncio.sleep(0)
    gate.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(end) for end in ends] == ["the disk", "the disk"]


async def test_work_that_awaits_a_cancelled_task_hears_of_it() -> None:
    """What it awaits may be cancelled; it handles that as ever."""
    heard = []
    other = asyncio.create_task(asyncio.Event().wait())

    async def work() -> None:
        try:
            await other
        except asyncio.CancelledError:
            heard.append("cancelled")

    task = asyncio.create_task(_undisturbed(work()))
    await asyncio.sleep(0)
    other.cancel()
    await task
    assert heard == ["cancelled"]


async def _undisturbed(work: Coroutine[Any, Any, None]) -> None:
    await Undisturbed(work)


async def test_in_a_forked_child_an_end_does_nothing() -> None:
    """It closes what is the parent's: not begun it does not begin, under way it does not go on."""
    steps, under_way, before = Steps(), Ending(), Ending()
    task = asyncio.create_task(under_way.reach(steps.work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    child = os.fork()
    if child == 0:
        try:
            before.reach(steps.work).send(None)
        except StopIteration:
            steps.gate.set_result(None)
            os._exit(len(steps.done))
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    steps.gate.set_result(None)
    await task
    assert steps.done == ["turn", "gate", "tasks"]
