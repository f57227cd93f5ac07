"""The life of one node: what it opened is closed in reverse, once and completely, whoever asks.

Part of the composition root. Must not know what is opened. Invariant: courtesies towards others may be cut short, by
time or by a cancellation; closing what is open is not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol

from hiqlite import observe
from hiqlite._accel import forks
from hiqlite.ending import Ending
from hiqlite.errors import UsageError

# How long farewell, drain and hand-over may take together: who waits for this node's end waits less than 2 s.
COURTESY_S = 1.2
log = observe.logger("node")


class Inherited(Protocol):
    """A node, in a forked child."""

    def inherited(self, told: bool) -> None: ...


class Life:
    """Of one node.

    Args:
        node: in a forked child it hears that it is the parent's.
    """

    def __init__(self, node: Inherited, loop: asyncio.AbstractEventLoop) -> None:
        self.stack = AsyncExitStack()
        self.closed = asyncio.Event()
        self._node = node
        self._loop = loop
        self._thread = threading.get_ident()
        self._ending = Ending()
        self._stopping: asyncio.Task[None] | None = None
        self._at_end: list[Callable[[], object]] = []
        self._left = False  # to the parent of this process
        forks.watch(self)

    def at_end(self, ended: Callable[[], object]) -> None:
        """Call `ended` once the node has stopped."""
        self._at_end.append(ended)

    async def stop(self, courtesy: Callable[[], Awaitable[object]], drain_s: float = 0.0) -> None:
        """Go on as before for `drain_s`, be polite, then close what is open. Idempotent; a second caller waits for the
        first."""
        self.check_process()
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(courtesy, drain_s), name="hiqlite-shutdown")
        try:
            await asyncio.shield(self._stopping)
        except asyncio.CancelledError:
            if self._stopping.cancelled() or self._stopping.cancelling():
                await self.end()  # all tasks of the program are cancelled: that one perhaps before it began
            raise

    async def end(self) -> None:
        """Close what is open, without a word to anybody."""
        await self._ending.reach(self._close)

    def check_process(self) -> None:
        """Raises UsageError in a child that was forked while the node was open: it lives in the parent."""
        if self._left:
            raise of_the_parent()

    def left_to_parent(self) -> None:
        self._left = True
        told = threading.get_ident() == self._thread
        self._node.inherited(told)
        if told:
            self.closed.set()

    async def _stop(self, courtesy: Callable[[], Awaitable[object]], drain_s: float) -> None:
        try:
            if drain_s:
                await asyncio.sleep(drain_s)
            async with asyncio.timeout(COURTESY_S):
                await courtesy()
        except TimeoutError:
            log.warning("the node leaves without having handed everything over within %.1f s", COURTESY_S)
        finally:
            await self.end()

    async def _close(self) -> None:
        try:
            await self.stack.aclose()
        finally:
            forks.forget(self)
            for ended in self._at_end:
                ended()
            self.closed.set()


def check_start() -> None:
    """Raises UsageError where no node can be started."""
    if forks.beside_node():
        raise UsageError(
            "this process was forked from one with an open node, so SQLite cannot be used in it",
            hint="start the process anew: multiprocessing's spawn or forkserver, or exec",
        )


def of_the_parent() -> UsageError:
    return UsageError(
        "this node was opened before a fork, and lives in the parent process only",
        hint="use it there, or open one in a process started by spawn, forkserver or exec",
    )
