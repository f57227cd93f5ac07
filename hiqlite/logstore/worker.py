"""One daemon thread that does what would block the loop: metadata transactions, reads of old entries, joins.

Must not know what it runs. Jobs run one at a time in the order of submission. The thread starts with the first job and
never keeps the process alive: a disk that hangs must not hang its exit, which an executor's thread would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from hiqlite._accel import forks
from hiqlite.errors import UsageError

T = TypeVar("T")


class Worker:
    """A queue of calls and the thread that makes them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._forks = forks.count()

    def submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Runs `call(*arguments)` on the thread, after all that was submitted before."""
        if self._forks != forks.count():
            raise UsageError(f"worker {self._name} was made before a fork; only the parent has its thread")
        if self._closed:
            raise RuntimeError(f"worker {self._name} is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._jobs.put((future, call, arguments))
        return future

    def close(self, timeout_s: float = 5.0) -> None:
        """Lets what was submitted finish, then ends the thread; waits at most `timeout_s` for it."""
        if self._closed or self._forks != forks.count():
            return
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call, arguments = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call(*arguments))
            except BaseException as error:  # handed to the waiter, whatever it is
                future.set_exception(error)
            del job, future, call, arguments  # keeps nothing alive while it waits for the next one
