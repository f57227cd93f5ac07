"""Cancellation at one chosen await of a coroutine: at each of them in turn, so that none is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Interrupt = Callable[[asyncio.Task[Any]], object]


class Interrupted:
    """Awaits `work`, and calls `interrupt` with the task that does while it waits for the `at`-th time."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: int, interrupt: Interrupt) -> None:
        self._work = work
        self._left = at
        self._interrupt = interrupt

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = lambda: self._work.send(None)  # noqa: E731  (it is replaced below)
        while True:
            try:
                awaited = resume()
            except StopIteration as end:
                return end.value
            self._left -= 1
            if self._left == 0:
                asyncio.get_running_loop().call_soon(self._interrupt, asyncio.current_task())
            try:
                yield awaited
            except BaseException as error:
                resume = self._throwing(error)
            else:
                resume = lambda: self._work.send(None)  # noqa: E731  (see above)

    def _throwing(self, error: BaseException) -> Callable[[], Any]:
        return lambda: self._work.throw(error)

    @property
    def reached(self) -> bool:
        return self._left <= 0


async def awaited(work: Interrupted) -> Any:
    return await work


def cancel_it(task: asyncio.Task[Any]) -> None:
    task.cancel()


def cancel_after(turns: int) -> Interrupt:
    """Some turns of the loop later, if the task has not gone on by then."""

    def cancel(task: asyncio.Task[Any], left: int = turns) -> None:
        if left:
            task.get_loop().call_soon(cancel, task, left - 1)
        else:
            task.cancel()

    return cancel


def cancel_everything_but(spared: asyncio.Task[Any] | None) -> Interrupt:
    """What `asyncio.run` does at the end of a program."""

    def cancel(task: asyncio.Task[Any]) -> None:
        for each in asyncio.all_tasks() - {spared}:
            each.cancel()

    return cancel


class InterruptedTask:
    """A task factory: the task that runs a coroutine of this name is interrupted at its `at`-th await."""

    def __init__(self, name: str, at: int, interrupt: Interrupt) -> None:
        self._name = name
        self._at = at
        self._interrupt = interrupt
        self.work: Interrupted | None = None

    def __call__(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        if work.__qualname__ == self._name:
            self.work = Interrupted(work, self._at, self._interrupt)
            work = awaited(self.work)
        return asyncio.Task(work, loop=loop, **options)
