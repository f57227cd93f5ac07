"""The nodes under the bench: three processes, three in one process, or a single node. One interface for all."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

from hiqlite.client.local import LocalClient
from hiqlite.config import NodeConfig
from hiqlite.node_opening import open as open_node

from .worker import Worker

LINE_BYTES_MAX = 1 << 20


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line sets on all nodes, by key of the configuration. Raises ConfigError."""
    settings = {"log_sync": options.log_sync, "apply_thread": options.apply_thread}
    for pair in options.set:
        key, is_pair, value = pair.partition("=")
        if not is_pair:
            raise SystemExit(f"--set {pair}: expected KEY=VALUE")
        settings[key] = value
    NodeConfig(**settings)  # says now what is wrong with them
    return settings


class BenchNode(Protocol):
    """A node that obeys the worker's commands."""

    async def do(self, command: dict[str, Any]) -> dict[str, Any]: ...


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise SystemExit(f"a node of the bench failed: {answer['error']}")
    return answer


class ProcessNode:
    """A worker process, spoken to by lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, config: dict[str, Any]) -> ProcessNode:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hiqlite.bench.worker", json.dumps(config),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX,
        )  # fmt: skip
        return cls(process)

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("a node of the bench ended unexpectedly")
        answer: dict[str, Any] = json.loads(line)
        return checked(answer)

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self.answer()

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 15)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        await self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)


class Processes:
    """Worker processes of one cluster that can be replaced by their next lives."""

    def __init__(self, configs: list[dict[str, Any]]) -> None:
        self._configs = configs
        self.nodes: list[ProcessNode] = []

    @property
    def folders(self) -> list[Path]:
        """Of their data."""
        return [Path(config["data_dir"]) for config in self._configs]

    async def start(self) -> None:
        for config in self._configs:
            self.nodes.append(await ProcessNode.start(config))
        await asyncio.gather(*(node.answer() for node in self.nodes))

    async def close(self) -> None:
        for node in self.nodes:
            await node.stop()

    async def start_again(self, place: int) -> None:
        self.nodes[place] = await ProcessNode.start(self._configs[place])
        await self.nodes[place].answer()


class LocalNode:
    """A node in this process."""

    def __init__(self, client: LocalClient) -> None:
        self._worker = Worker(client)

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        return checked(await self._worker.obey(command))


async def start_processes(stack: AsyncExitStack, configs: list[dict[str, Any]]) -> list[BenchNode]:
    nodes = [await ProcessNode.start(config) for config in configs]
    for node in nodes:
        stack.push_async_callback(node.stop)
    await asyncio.gather(*(node.answer() for node in nodes))
    return list(nodes)


async def start_in_process(stack: AsyncExitStack, configs: list[dict[str, Any]]) -> list[BenchNode]:
    clients = await asyncio.gather(*(open_node(config) for config in configs))
    for client in clients:
        stack.push_async_callback(client.shutdown)
    return [LocalNode(client) for client in clients]


async def find_leader(nodes: Sequence[BenchNode]) -> int:
    """Position of the leader, once all nodes agree on it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        leaders = {(await node.do({"do": "status"}))["leader_id"] for node in nodes}
        if len(leaders) == 1 and (leader := leaders.pop()):
            return int(leader) - 1
        await asyncio.sleep(0.05)
    raise SystemExit("no leader was elected in time")


async def equal_nodes(nodes: Sequence[BenchNode], index: int) -> str:
    """Row count and content hash of all nodes at `index` or later, compared. A difference ends the bench."""
    found = await asyncio.gather(*(node.do({"do": "hash", "index": index}) for node in nodes))
    if len({(one["rows"], one["hash"]) for one in found}) != 1:
        raise SystemExit(f"the nodes differ: {found}")
    return str(found[0]["hash"])
