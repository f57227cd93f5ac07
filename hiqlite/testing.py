"""A cluster in one process for users' tests: real nodes, real loopback TCP, kernel-chosen ports.

    async with hiqlite.testing.cluster(3) as c:
        await c.client.execute("CREATE TABLE t(x)")

Knows the public face and the node. Invariant: after the block no thread, task, socket or file of the nodes is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiqlite.client.local import LocalClient
from hiqlite.config import NodeConfig
from hiqlite.errors import UsageError
from hiqlite.node import Node
from hiqlite.transport.loopback import loopback_cluster

DEADLINE_S = 30.0


class Cluster:
    """`n` nodes of one cluster; see `cluster`."""

    def __init__(self, configs: dict[int, NodeConfig]) -> None:
        self._configs = configs
        self._running: dict[int, Node] = {}
        self.nodes: dict[int, LocalClient] = {}

    @property
    def addresses(self) -> dict[int, tuple[str, str]]:
        """id -> (raft address, api address), each `host:port`."""
        return {
            node.id: (f"{node.raft_host}:{node.raft_port}", f"{node.api_host}:{node.api_port}")
            for node in next(iter(self._configs.values())).nodes
        }

    @property
    def leader(self) -> int:
        """Id of the node that leads and is known as leader to a majority; 0 while there is none."""
        known = [node.group.leader_id for node in self._running.values()]
        for number, node in self._running.items():
            if node.group.leads and known.count(number) > len(self._configs) // 2:
                return number
        return 0

    @property
    def followers(self) -> list[int]:
        leader = self.leader
        return [number for number in self.nodes if number != leader]

    @property
    def client(self) -> LocalClient:
        """Client of the leader. Raises UsageError while there is none."""
        leader = self.leader
        if not leader:
            raise UsageError("the cluster has no leader now", hint="await wait_for_leader()")
        return self.nodes[leader]

    def settled(self) -> bool:
        """Whether there is a leader and every running node knows it, in each group."""
        return self.leader != 0 and all(
            len(known) == 1 and 0 not in known
            for known in (
                {node.groups[number].group.leader_id for node in self._running.values() if number in node.groups}
                for number in {number for node in self._running.values() for number in node.groups}
            )
        )

    async def wait_for_leader(self, timeout: float = DEADLINE_S) -> int:
        """The leader's id, once a majority follows it."""
        await self.wait_until(lambda: self.leader != 0, timeout)
        return self.leader

    async def wait_until(self, condition: Callable[[], bool], timeout: float = DEADLINE_S) -> None:
        """Give the loop back until `condition()` holds. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("the cluster did not reach the condition in time")
            await asyncio.sleep(0.005)

    async def start(self, number: int) -> LocalClient:
        """Start a node that is down, on the data it has; does not wait for a leader."""
        node = await Node.start(self._configs[number], wait=False)
        self._running[number] = node
        self.nodes[number] = node.client
        return node.client

    async def stop(self, number: int) -> None:
        """Shut a node down cleanly."""
        self.nodes.pop(number)
        await self._running.pop(number).shutdown()

    async def kill(self, number: int) -> None:
        """End a node without a clean shutdown: nothing is said to peers, nothing is flushed."""
        self.nodes.pop(number)
        await self._running.pop(number).abandon()

    async def close(self) -> None:
        """Stop all; one that does not stop keeps none of the others."""
        stopped = [await asyncio.gather(self.stop(number), return_exceptions=True) for number in list(self._running)]
        for (failed,) in stopped:
            if failed is not None:
                raise failed


@asynccontextmanager
async def cluster(n: int, *, base_dir: str | Path | None = None, **overrides: Any) -> AsyncIterator[Cluster]:
    """`n` nodes in this process, formed and with a leader that all of them know.

    Args:
        base_dir: where the nodes' folders are made; a temporary folder by default.
        overrides: config keys for all nodes.
    """
    with TemporaryDirectory(prefix="hiqlite-cluster-") as temporary:
        folder = Path(base_dir) if base_dir is not None else Path(temporary)
        configs = {
            number: NodeConfig.from_mapping(settings)
            for number, settings in loopback_cluster(folder, n, overrides).items()
        }
        running = Cluster(configs)
        try:
            started = await asyncio.gather(*(running.start(number) for number in configs), return_exceptions=True)
            for failed in started:
                if isinstance(failed, BaseException):
                    raise failed
            await running.wait_until(running.settled)
            yield running
        finally:
            await running.close()
