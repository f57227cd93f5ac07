"""The loop stays awake for the next frame where frames come closely, and sleeps where they do not."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hiqlite.transport.busy_poll import NEAR_NS, BusyPoll
from tests.waiting import MOMENT_S, moment, until

LONG_NS = 10_000_000_000


class Sleeps(selectors.DefaultSelector):
    """Notes for how long the loop was ready to sleep, turn by turn."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float | None] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.timeouts.append(timeout)
        return super().select(timeout)

    @property
    def slept(self) -> bool:
        return any(timeout != 0 for timeout in self.timeouts)


def run(scene: Callable[[Sleeps], Coroutine[Any, Any, None]]) -> None:
    sleeps = Sleeps()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(sleeps)) as runner:
        runner.run(scene(sleeps))


def two_frames(sleeps: Sleeps, poll: BusyPoll, read_end: Callable[[], None] = lambda: None) -> None:
    """Of one link, in one turn; how the loop slept before is forgotten."""
    heard = poll.of_link(read_end)
    heard()
    heard()
    sleeps.timeouts.clear()


def test_between_frames_that_come_closely_the_loop_does_not_sleep() -> None:
    """Timers and callbacks have their turns meanwhile, and each read is handed on."""
    reads: list[int] = []

    async def scene(sleeps: Sleeps) -> None:
        two_frames(sleeps, BusyPoll(LONG_NS, LONG_NS), lambda: reads.append(1))
        await moment()

        assert not sleeps.slept
        assert len(sleeps.timeouts) > 2

    run(scene)
    assert len(reads) == 2


def test_awake_ends_some_time_after_the_last_frame() -> None:
    async def scene(sleeps: Sleeps) -> None:
        two_frames(sleeps, BusyPoll(1_000_000, LONG_NS))
        await until(lambda: sleeps.slept)

    run(scene)


@pytest.mark.parametrize("links", [1, 2], ids=["one frame", "one frame of each of two links"])
def test_frames_that_come_alone_leave_the_loop_asleep(links: int) -> None:
    async def scene(sleeps: Sleeps) -> None:
        poll = BusyPoll(LONG_NS)
        for _ in range(links):
            poll.of_link(lambda: None)()
        sleeps.timeouts.clear()
        await moment()

        assert sleeps.slept

    run(scene)


def test_frames_that_are_far_apart_leave_the_loop_asleep() -> None:
    assert MOMENT_S > NEAR_NS / 1e9

    async def scene(sleeps: Sleeps) -> None:
        heard = BusyPoll(LONG_NS).of_link(lambda: None)
        for _ in range(3):
            heard()
            await moment()
        sleeps.timeouts.clear()
        await moment()

        assert sleeps.slept

    run(scene)


def test_it_can_be_switched_off() -> None:
    async def scene(sleeps: Sleeps) -> None:
        two_frames(sleeps, BusyPoll(0, LONG_NS))
        await moment()

        assert sleeps.slept

    run(scene)
