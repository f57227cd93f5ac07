"""The nodes under the bench: three processes, three in one process, or a single node. One interface for all."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Protocol

from hiqlite.client.local import LocalClient
from hiqlite.node_opening import open as open_node

from .worker import obey

LINE_BYTES_MAX = 1 << 20


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
            self._process.kill()
            await self._process.wait()


class LocalNode:
    """A node in this process."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        return checked(await obey(self._client, command))


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


async def find_leader(nodes: list[BenchNode]) -> int:
    """Position of the leader, once all nodes agree on it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        leaders = {(await node.do({"do": "status"}))["leader_id"] for node in nodes}
        if len(leaders) == 1 and (leader := leaders.pop()):
            return int(leader) - 1
        await asyncio.sleep(0.05)
    raise SystemExit("no leader was elected in time")
