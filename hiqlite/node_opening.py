"""The public call `open`: what it takes, and the node behind it from start to shutdown.

The node itself is imported at the first opening: `import hiqlite` stays cheap for who only needs its types or errors.
Must not know rooms below the node.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hiqlite._accel import forks
from hiqlite.config import NodeConfig
from hiqlite.errors import ConfigError, ShuttingDown, UsageError

if TYPE_CHECKING:
    from hiqlite.client.local import LocalClient
    from hiqlite.node import Node


class Opening:
    """What `hiqlite.open` returns: awaitable, and an async context manager."""

    def __init__(self, config: NodeConfig, wait: bool, handle_signals: bool, form_without: tuple[int, ...]) -> None:
        self._config = config
        self._wait = wait
        self._handle_signals = handle_signals
        self._form_without = form_without
        self._client: LocalClient | None = None

    async def _open(self) -> LocalClient:
        from hiqlite.node import Node  # see the module's text

        stoppable = Stoppable() if self._handle_signals else None
        try:
            node = await Node.start(self._config, wait=self._wait, form_without=self._form_without)
        except BaseException as error:
            if stoppable is not None:
                stoppable.failed(error)
            raise
        if stoppable is not None:
            stoppable.opened(node)
        self._client = node.client
        return node.client

    def __await__(self) -> Generator[Any, None, LocalClient]:
        return self._open().__await__()

    async def __aenter__(self) -> LocalClient:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.__aexit__(kind, error, traceback)


class Stoppable:
    """An opening, and then the node that it opened, as a signal sees them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.current_task()
        self._node: Node | None = None
        self._came: signal.Signals | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._signals = Signals.taken_for(self)

    def opened(self, node: Node) -> None:
        """From now on a signal shuts the node down."""
        self._node, self._opening = node, None
        node.at_end(lambda: self._signals.give_back(self))

    def failed(self, error: BaseException) -> None:
        """It did not open. Raises ShuttingDown when that was because of a signal."""
        self._signals.give_back(self)
        if isinstance(error, asyncio.CancelledError) and self._came is not None and self._opening is not None:
            self._opening.uncancel()
            raise ShuttingDown(f"{self._came.name} came before the node was open", outcome=None) from None

    def come(self, number: signal.Signals) -> None:
        if self._node is not None:
            self._stopping = self._stopping or self._loop.create_task(self._node.shutdown())
        elif self._opening is not None and self._came is None:
            self._came = number
            self._opening.cancel()


class Signals:
    """SIGINT and SIGTERM, while there is anybody to stop; afterwards they do again what they did before."""

    _taken: Signals | None = None  # the main thread has them, and runs one loop

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: list[Stoppable] = []
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            self._loop.add_signal_handler(number, self._come, number)
        forks.watch(self)

    @classmethod
    def taken_for(cls, one: Stoppable) -> Signals:
        """Raises UsageError where signals cannot be taken."""
        if threading.current_thread() is not threading.main_thread():
            raise UsageError("handle_signals works in the main thread only", hint="leave it out, and call shutdown()")
        if cls._taken is None or cls._taken._loop is not asyncio.get_running_loop():
            cls._taken = cls()
        cls._taken._told.append(one)
        return cls._taken

    def give_back(self, one: Stoppable) -> None:
        self._told.remove(one)
        if self._told or Signals._taken is not self:
            return
        Signals._taken = None
        forks.forget(self)
        for number, handler in self._before.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def left_to_parent(self) -> None:
        """A forked child can be stopped like any other process, and its signals do not reach the parent's loop."""
        Signals._taken = None
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _come(self, number: signal.Signals) -> None:
        for one in list(self._told):
            one.come(number)


def open(  # the name of the public call; the builtin is not used in this file
    source: str | Path | NodeConfig | Mapping[str, Any],
    *,
    wait: bool = True,
    handle_signals: bool = False,
    form_without: tuple[int, ...] = (),
    **overrides: Any,
) -> Opening:
    """Start a node in this process; it joins or forms its cluster and yields a `Client`.

    Args:
        source: a path (a single node without ports), a `NodeConfig`, or a mapping of config keys.
        wait: yield when this node is a member and a leader is known; False yields at once.
        handle_signals: SIGINT and SIGTERM shut the node down; `await db.closed()` waits for it.
        form_without: configured voters that a new cluster forms without.
        overrides: config keys that win over `source`.

    Returns: an async context manager that is also awaitable.
    Raises: ConfigError, DataFolderInUse, StorageError.
    """
    if isinstance(source, NodeConfig):
        config = source.with_overrides(**overrides) if overrides else source
    elif isinstance(source, Mapping):
        config = NodeConfig.from_mapping({**source, **overrides})
    elif isinstance(source, str | Path):
        config = NodeConfig.from_mapping({"data_dir": str(source), **overrides})
    else:
        raise ConfigError(f"cannot open a {type(source).__name__}", hint="give a path, a NodeConfig or a mapping")
    return Opening(config, wait, handle_signals, tuple(form_without))

