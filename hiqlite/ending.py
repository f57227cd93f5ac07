"""Ends that are reached: what closes is closed once, and completely, whoever asks and whoever is cancelled meanwhile.

The loop of a program that ends cancels every task, those that close things among them: half a close would leave
threads, descriptors and locks behind. Must not know what is closed. Invariants: the work is done once; who asks while
it is under way, or later, waits for it; a cancellation is raised when it is done; in a forked child nothing of it
happens, for all of it is the parent's.

What runs as such an end cannot be cancelled, so it must not use `asyncio.timeout` or `wait_for`, which cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from hiqlite._accel import forks


class Ending:
    """The end of one thing."""

    __slots__ = ("_forks", "_over")

    def __init__(self) -> None:
        self._forks = forks.count()
        self._over: asyncio.Future[None] | None = None

    @property
    def begun(self) -> bool:
        return self._over is not None

    async def reach(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work`, or wait until who came first has done his. Raises what that raised."""
        if self._forks != forks.count():
            return
        if self._over is not None:
            await Undisturbed(_until(self._over))
            return
        over = self._over = asyncio.get_running_loop().create_future()
        try:
            await Undisturbed(work())
        except Exception as error:
            over.set_exception(error)
            over.exception()  # nobody else may ask
            raise
        finally:
            if not over.done():
                over.set_result(None)


async def _until(over: asyncio.Future[None]) -> None:
    await over


class Undisturbed:
    """Awaited, it runs `work` to its end in the task that awaits it, and raises then with what that was cancelled."""

    __slots__ = ("_work",)

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, None]:
        work, process = self._work, forks.count()
        cancelled: asyncio.CancelledError | None = None
        try:
            while True:
                try:
                    awaited = work.send(None)
                except StopIteration:
                    break
                cancelled = (yield from _one_step(awaited)) or cancelled
                if forks.count() != process:  # the child of a fork: the work goes on in the parent
                    forks.keep(work)
                    return
        finally:
            if forks.count() == process:
                work.close()
        if cancelled is not None:
            raise cancelled


def _one_step(awaited: Any) -> Generator[Any, Any, asyncio.CancelledError | None]:
    """Until `awaited`, which a coroutine has handed to its task, is done; the cancellation that came meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    if awaited is None:  # a bare turn of the loop
        try:
            yield
        except asyncio.CancelledError as error:
            cancelled = error
        return cancelled
    awaited._asyncio_future_blocking = False  # asyncio's word between a future and who awaits it: it was handed over
    process = forks.count()
    while not awaited.done() and forks.count() == process:
        try:
            # A future of our own: a cancellation reaches what its task awaits, and would cancel `awaited` itself.
            yield from asyncio.wait([awaited]).__await__()
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
