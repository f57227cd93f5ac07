"""A cluster in one process for users' tests: real nodes, real loopback TCP, kernel-chosen ports.

    async with hiqlite.testing.cluster(3) as c:
        await c.client.execute("CREATE TABLE t(x)")
        await c.partition([c.leader], c.followers)

The nodes dial each other through a relay, which cuts. Knows the public face, the node and the relay. Invariant: after
the block no thread, task, socket or file of the nodes is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hiqlite.client.local import LocalClient
from hiqlite.config import NodeConfig
from hiqlite.errors import UsageError
from hiqlite.node import Node
from hiqlite.transport.loopback import hold_ports, loopback_cluster
from hiqlite.transport.relay import HOST, Pair
from hiqlite.transport.relay_process import RelayProcess
from hiqlite.transport.settings import NetworkSettings

DEADLINE_S = 30.0


class Cluster:
    """`n` nodes of one cluster; see `cluster`."""

    def __init__(self, configs: dict[int, NodeConfig]) -> None:
        self._configs = configs
        self._running: dict[int, Node] = {}
        known = next(iter(configs.values())).nodes
        targets = {(one, node.id): (node.raft_host, node.raft_port) for one in configs for node in known}
        self._relay = RelayProcess({pair: target for pair, target in targets.items() if pair[0] != pair[1]})
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

        def reach(peer_id: int, address: tuple[str, int]) -> tuple[str, int]:
            port = self._relay.ports.get((number, peer_id))
            return address if port is None else (HOST, port)

        node = await Node.start(self._configs[number], wait=False, network=NetworkSettings(reach=reach))
        self._running[number] = node
        self.nodes[number] = node.client
        return node.client

    async def stop(self, number: int) -> None:
        """Shut a node down cleanly."""
        self.nodes.pop(number, None)
        await self._running[number].shutdown()
        self._running.pop(number, None)  # not before: if this is cancelled, the end of the cluster waits for the node

    async def kill(self, number: int) -> None:
        """End a node without a clean shutdown: nothing is said to peers, nothing is flushed."""
        self.nodes.pop(number, None)
        await self._running[number].abandon()
        self._running.pop(number, None)

    async def partition(self, one: Collection[int], other: Collection[int], *, one_way: bool = False) -> None:
        """From now on nothing that the nodes of `one` say reaches those of `other`, nor the other way.

        The network is silent about it, as a broken one is: connections stand, their bytes do not arrive, a new one gets
        no answer. Cuts add up; clients, which use the api ports, are not cut off.

        Args:
            one, other: ids of nodes, also of such that are down.
            one_way: `one` goes on to hear `other`.

        Raises:
            UsageError: an id that no node has, or one on both sides.
        """
        strangers = {*one, *other} - set(self._configs)
        if strangers or set(one) & set(other):
            raise UsageError(
                f"a partition of {sorted(one)} and {sorted(other)}",
                hint=f"two separate groups of the ids {', '.join(map(str, self._configs))}",
            )
        cuts: list[Pair] = [(here, there) for here in one for there in other]
        cuts += [] if one_way else [(there, here) for here, there in cuts]
        await self._relay.set(cuts, "hold")

    async def heal(self) -> None:
        """Ends all cuts: what was on the wire arrives, and traffic flows as before."""
        await self._relay.heal()

    async def open(self) -> None:
        """Start all nodes, and wait until there is a leader that all of them know."""
        started = await asyncio.gather(*(self.start(number) for number in self._configs), return_exceptions=True)
        for failed in started:
            if isinstance(failed, BaseException):
                raise failed
        await self.wait_until(self.settled)

    async def close(self) -> None:
        """Stop all; one that does not stop keeps none of the others."""
        try:
            stopped = [
                await asyncio.gather(self.stop(number), return_exceptions=True) for number in list(self._running)
            ]
        finally:
            await self._relay.close()
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
    with TemporaryDirectory(prefix="hiqlite-cluster-") as temporary, hold_ports(2 * n) as ports:
        folder = Path(base_dir) if base_dir is not None else Path(temporary)
        configs = {
            number: NodeConfig.from_mapping(settings)
            for number, settings in loopback_cluster(folder, n, overrides, ports).items()
        }
        running = Cluster(configs)
        try:
            await running.open()
            yield running
        finally:
            await running.close()
