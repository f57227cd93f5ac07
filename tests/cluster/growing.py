"""Clusters whose nodes do not all have the same config: nodes that come, go, move and come back empty."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from hiqlite.client.local import LocalClient
from hiqlite.config import NodeConfig
from hiqlite.node import Node
from hiqlite.transport.loopback import HOST, hold_ports
from hiqlite.transport.settings import NetworkSettings
from hiqlite.transport.versions import SPOKEN, Versions

DEADLINE_S = 30.0


class Growing:
    """Nodes of one secret; each is started with the nodes that its config shall name."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.ports: dict[int, tuple[int, int]] = {}
        self.running: dict[int, Node] = {}
        self._held = ExitStack()  # while a node is down its ports are nobody else's
        self._settings = {
            "listen_addr_raft": HOST, "listen_addr_api": HOST, "secret_raft": secrets.token_hex(16),
            "secret_api": secrets.token_hex(16), "wal_size": "256 KiB", **settings,
        }  # fmt: skip

    def addresses(self, number: int) -> tuple[str, str]:
        """(raft, api) of a node; it keeps them until it moves."""
        if number not in self.ports:
            self.move(number)
        raft, api = self.ports[number]
        return f"{HOST}:{raft}", f"{HOST}:{api}"

    def move(self, number: int) -> None:
        """From its next start on it is somewhere else."""
        raft, api = self._held.enter_context(hold_ports(2))
        self.ports[number] = raft, api

    def config(self, number: int, named: Iterable[int], **overrides: Any) -> NodeConfig:
        nodes = [f"{one} {' '.join(self.addresses(one))}" for one in named]
        given = {"node_id": number, "nodes": nodes, "data_dir": str(self.folder / f"node{number}"), **self._settings}
        return NodeConfig.from_mapping({**given, **overrides})

    async def start(
        self,
        number: int,
        named: Iterable[int],
        *,
        wait: bool = False,
        form_without: tuple[int, ...] = (),
        versions: Versions = SPOKEN,
        **overrides: Any,
    ) -> LocalClient:
        config = self.config(number, named, **overrides)
        network = NetworkSettings(versions=versions)
        node = await Node.start(config, wait=wait, form_without=form_without, network=network)
        self.running[number] = node
        return node.client

    async def form(self, *numbers: int) -> None:
        """These nodes, with a config that names these."""
        await asyncio.gather(*(self.start(number, numbers, wait=True) for number in numbers))

    def client(self, number: int) -> LocalClient:
        return self.running[number].client

    @property
    def leader(self) -> int:
        """Who leads the database's group; 0: nobody."""
        return next((number for number, node in self.running.items() if node.group.leads), 0)

    async def stop(self, number: int) -> None:
        await self.running.pop(number).shutdown()

    async def kill(self, number: int) -> None:
        await self.running.pop(number).abandon()

    def lose(self, number: int) -> None:
        """Its volume is gone."""
        shutil.rmtree(self.folder / f"node{number}")

    async def wait_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, f"not in time: {self.shown()}"
            await asyncio.sleep(0.005)

    def roles(self, number: int) -> list[tuple[set[int], set[int]]]:
        """(voters, learners) in each group, as a node has applied them; empty sets while it is no member."""
        found = []
        for one in self.running[number].groups.values():
            group = one.group
            members = group.engine.membership if group.started else None
            if members is None or members.joint or members.index > group.applier.applied_index:
                found.append((set(), set()))
            else:
                found.append(({each.id for each in members.voters}, {each.id for each in members.learners}))
        return found

    def shown(self) -> dict[int, Any]:
        return {number: (self.roles(number), self.running[number].group.leader_id) for number in self.running}

    async def members(self, voters: set[int], learners: set[int], *among: int) -> None:
        """All running nodes, or those named, know these members in both groups, and a leader."""

        def known() -> bool:
            chosen = among or tuple(self.running)
            return all(role == (voters, learners) for number in chosen for role in self.roles(number)) and all(
                self.running[number].group.leader_id for number in chosen
            )

        await self.wait_until(known)

    async def check_removed(self, number: int) -> None:
        """A node that runs knows that it was removed, says so, and takes no part."""
        await self.wait_until(lambda: "was removed" in self.running[number].members.standing)
        assert not self.running[number].group.leads

    async def check_equal(self) -> None:
        """Every running node takes a write and contradicts no other one; all have the same rows."""
        for node in list(self.running.values()):
            await node.client.execute("CREATE TABLE IF NOT EXISTS alive (n INTEGER)")
            await node.client.execute("INSERT INTO alive VALUES (?)", [node.config.node_id])
        for node in self.running.values():
            await node.client.query("SELECT count(*) FROM alive", consistency="linearizable")
        hashes = [await node.client.content_hash() for node in self.running.values()]
        assert len(set(hashes)) == 1, hashes

    async def close(self) -> None:
        with self._held:
            ends = [await asyncio.gather(self.stop(number), return_exceptions=True) for number in list(self.running)]
        for (failed,) in ends:
            if failed is not None:
                raise failed


@asynccontextmanager
async def growing(folder: Path, **settings: Any) -> AsyncIterator[Growing]:
    """An empty one; whatever runs at its end is stopped."""
    nodes = Growing(folder, settings)
    try:
        yield nodes
    finally:
        await nodes.close()
