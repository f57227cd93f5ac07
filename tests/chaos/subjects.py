"""Nodes under torture: real processes behind a relay, on a disk that fails when told to, with a wall clock that steps.

Knows how to do something to a node, not when. Invariant: each node dials each other one through the relay alone.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import random
import secrets
import signal
import struct
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiqlite.transport.loopback import hold_ports
from hiqlite.transport.relay import HOST, Pair
from hiqlite.transport.relay_process import RelayProcess
from tests.crash.harness import Member, build_library

HERE = Path(__file__).parent
ANSWER_S = 40.0
START_S = 60.0
# Small segments: a full disk is felt at the next one. Short logs: who was away for a moment needs an image.
SETTINGS = {"wal_size": "256 KiB", "logs_until_snapshot": 100}
CACHES = ("disk", "memory")  # where the cache group's log is
CLIENTS = {3: 5, 5: 3}  # of one node, by the number of nodes


class Hang(Exception):
    """A node did not do in time what it has to do."""


class Wires:
    """The relay between the nodes."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = list(numbers)
        self._relay: RelayProcess | None = None
        self.listening: set[int] = set()

    def open(self, raft_ports: dict[int, int]) -> dict[Pair, int]:
        """The port through which one node dials another, by (one, other)."""
        self.listening = set(raft_ports.values())
        self._relay = RelayProcess({(one, other): (HOST, raft_ports[other]) for one, other in self.all_edges()})
        return self.ports

    @property
    def ports(self) -> dict[Pair, int]:
        return self.relay.ports

    @property
    def relay(self) -> RelayProcess:
        assert self._relay is not None
        return self._relay

    async def set(self, pairs: Iterable[Pair], mode: str, delay_ms: float = 0) -> None:
        await self.relay.set(pairs, mode, delay_ms / 1000)

    async def reset(self, one: int, other: int) -> None:
        await self.relay.reset(one, other)

    async def heal(self) -> None:
        await self.relay.heal()

    def all_edges(self) -> list[Pair]:
        return [(one, other) for one in self.numbers for other in self.numbers if one != other]

    async def close(self) -> None:
        if self._relay is not None:
            await self._relay.close()


class Orders:
    """Bytes shared with the libraries that are preloaded under a node."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(64))
        self.path = path
        with path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), 64)

    def byte(self, at: int, value: int) -> None:
        self._bytes[at] = value

    @property
    def in_force(self) -> bool:
        return any(self._bytes[:])

    def number(self, value: int) -> None:
        self._bytes[0:8] = struct.pack("<q", value)

    def close(self) -> None:
        self._bytes.close()


@dataclass
class Subject:
    """One node.

    Args:
        disk, clock: what the libraries under it are told.
        power: the library of the power loss, or None where power is never lost.
        begin: what all clients are told.
        deaths: processes that ended without being killed.
        records: (a life, a file that its clients wrote).
        away: when it was stopped or on a stalled disk, in nanoseconds [from, to).
    """

    number: int
    member: Member
    disk: Orders
    clock: Orders
    environment: dict[str, str]
    power: Path | None
    begin: dict[str, Any]
    folder: Path
    chance: random.Random
    stopped: bool = False
    has_clients: bool = False
    sick: bool = False  # its disk gave an error: only a new process helps
    starting: asyncio.Task[None] | None = None  # spawned, not ready yet
    records: list[tuple[int, Path]] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    away: list[tuple[int, int]] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)  # faults that meet on one node come one by one

    @property
    def up(self) -> bool:
        return self.member.process is not None

    @property
    def obeys(self) -> bool:
        return self.up and not self.stopped and self.starting is None

    async def ask(self, seconds: float = ANSWER_S, **command: object) -> dict[str, Any]:
        """Its answer, an error included. Raises Hang."""
        async with self.turn:
            self.member.tell(**command)
            try:
                return await self.member.answer(seconds)
            except (TimeoutError, AssertionError) as error:
                raise Hang(f"node {self.number} did not answer {command['do']}: {error or 'timeout'}") from error

    async def spawn(self, *, clients: bool) -> None:
        """Starts the process, if there is none. `starting` ends when it is ready, with clients if they are wanted."""
        async with self.changing:
            if not self.up:
                await self.member.start(self.power, keep_durable=True, environment=self.environment)
                self.starting = asyncio.create_task(self._until_ready(clients))

    async def _until_ready(self, clients: bool) -> None:
        """Cancelled when the node is killed before it is ready. Raises Hang, which `ready` passes on."""
        answer = await self.member.answer(START_S)
        if "error" in answer:
            if self.disk.in_force:
                self.sick = True
                return  # it says so, and is started again when the disk works
            raise Hang(f"node {self.number} did not start: {answer['error']}")
        if clients:
            await self.begin_clients()
        self.starting = None

    async def begin_clients(self) -> None:
        life = self.number * 1000 + len(self.records)
        record = self.folder / f"record-{life}"
        self.records += [(life, record), (life, Path(f"{record}-beliefs"))]
        await self.ask(
            do="begin", record=str(record), life=life, node=self.number, seed=self.chance.getrandbits(32), **self.begin
        )
        self.has_clients = True

    def belief(self, group: str) -> tuple[int, str] | None:
        """Term and role that the node wrote down last in this life."""
        file = self.records[-1][1] if self.has_clients else None
        lines = file.read_text().split("\n")[:-1] if file is not None and file.exists() else []
        for line in map(json.loads, reversed(lines)):
            if line["g"] == group:
                return line["term"], line["role"]
        return None

    async def kill(self) -> None:
        """kill -9, at whatever it does."""
        async with self.changing:
            await self._kill()

    async def lose_power(self) -> None:
        """kill -9, and what was not synced is gone."""
        async with self.changing:
            await self._kill()
            self.member.lose_power()

    async def _kill(self) -> None:
        if self.starting is not None:
            self.starting.cancel()
            await asyncio.gather(self.starting, return_exceptions=True)
            self.starting = None
        self._look_for_death()
        if self.up:
            await self.member.kill()
        self.stopped = self.has_clients = self.sick = False
        self.turn = asyncio.Lock()

    def _look_for_death(self) -> None:
        """A process that ended by itself crashed; on a sick disk it may have refused to start."""
        process = self.member.process
        if process is not None and process.returncode is not None and not self.sick:
            self.deaths.append(f"node {self.number} ended by itself: {process.returncode}")

    async def pause(self, until: Coroutine[Any, Any, None]) -> None:
        """SIGSTOP, and SIGCONT at that moment, if it was not killed meanwhile."""
        process = self.member.process
        if process is None or process.returncode is not None or self.stopped:
            until.close()
            return
        begun = time.monotonic_ns()
        process.send_signal(signal.SIGSTOP)
        self.stopped = True
        try:
            await until
        finally:
            if self.member.process is process and process.returncode is None:
                process.send_signal(signal.SIGCONT)
                self.stopped = False
            self.away.append((begun, time.monotonic_ns()))

    def close(self) -> None:
        self.disk.close()
        self.clock.close()


class Cluster:
    """All nodes of one history and the wires between them.

    Args:
        size: how many nodes.
        power: whether power is lost at times.
        epoch: nanoseconds; the begin of the history's first slot.
        cache: where the cache group's log is; one of `CACHES`.
    """

    def __init__(
        self, folder: Path, size: int, chance: random.Random, *, power: bool, epoch: int, cache: str
    ) -> None:
        self.folder = folder
        self.size = size
        self.wires = Wires(range(1, size + 1))
        self.subjects: list[Subject] = []
        self._chance = chance
        self._power = power
        self._cache = cache
        self._begin = {"clients": CLIENTS[size], "epoch": epoch}

    async def __aenter__(self) -> Cluster:
        sources = (HERE / "wallclock.c", HERE.parent / "logstore" / "faulty_disk.c")
        libraries = [build_library(source, self.folder) for source in sources]
        power = build_library(HERE.parent / "crash" / "powerloss.c", self.folder) if self._power else None
        self._ports = ports = hold_ports(2 * self.size)  # while a node is down they are nobody else's
        raft = dict(zip(self.wires.numbers, ports[: self.size], strict=True))
        api = dict(zip(self.wires.numbers, ports[self.size :], strict=True))
        through = self.wires.open(raft)
        shared = {
            **SETTINGS, "cache_storage_disk": self._cache == "disk", "listen_addr_raft": HOST, "listen_addr_api": HOST,
            "secret_raft": secrets.token_hex(16), "secret_api": secrets.token_hex(16),
        }  # fmt: skip
        for number in self.wires.numbers:
            nodes = [
                f"{other} {HOST}:{through.get((number, other), raft[number])} {HOST}:{api[other]}"
                for other in self.wires.numbers
            ]
            config = {**shared, "nodes": nodes, "node_id": number, "data_dir": str(self.folder / f"node{number}")}
            member = Member(config, keep_errors=True, program=HERE / "workload.py")
            disk, clock = Orders(self.folder / f"disk-{number}"), Orders(self.folder / f"clock-{number}")
            environment = {
                "LD_PRELOAD": ":".join(map(str, libraries)),
                "FAULTY_DISK": str(disk.path), "WALLCLOCK_STEP": str(clock.path),
            }  # fmt: skip
            self.subjects.append(
                Subject(number, member, disk, clock, environment, power, self._begin, self.folder, self._chance)
            )
        return self

    async def __aexit__(self, *exc: object) -> None:
        for one in self.subjects:
            await one.kill()
            one.close()
        await self.wires.close()
        self._ports.close()

    def leader(self, group: str) -> Subject | None:
        """Who led in the highest term when last heard of; nobody is asked, for a stopped node would not answer."""
        found = [(*belief, one) for one in self.subjects if one.up and (belief := one.belief(group)) is not None]
        leading = [(term, one) for term, role, one in found if role == "leader"]
        return max(leading, key=lambda pair: pair[0])[1] if leading else None

    async def ready(self, *, clients: bool) -> None:
        """Starts who is down, and waits until all are ready. Raises Hang."""
        for one in self.subjects:
            if not one.up:
                await one.spawn(clients=clients)
        for one in self.subjects:
            if (starting := one.starting) is not None:
                done, _ = await asyncio.wait([starting], timeout=START_S)
                if not done:
                    raise Hang(f"node {one.number} was not ready in {START_S} s")
                await starting

    @property
    def records(self) -> list[tuple[int, Path]]:
        return [record for one in self.subjects for record in one.records]
