"""The public call `open`: what it takes, and the node behind it from start to shutdown.

The node itself is imported at the first opening: `import hiqlite` stays cheap for who only needs its types or errors.
Must not know rooms below the node.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hiqlite.config import NodeConfig
from hiqlite.errors import ConfigError

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

        node = await Node.start(self._config, wait=self._wait, form_without=self._form_without)
        if self._handle_signals:
            take_signals(node)
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
        await self._client.shutdown()


def take_signals(node: Node) -> None:
    """SIGINT and SIGTERM shut the node down; once it has ended they do again what they did before."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        loop.add_signal_handler(number, lambda: loop.create_task(node.shutdown()))
        node.at_end(partial(loop.remove_signal_handler, number))
        node.at_end(partial(signal.signal, number, before))


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

