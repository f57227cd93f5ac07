"""The means of chaos do what they say: a fault that is none would let every history pass."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hiqlite.transport.loopback import hold_ports
from hiqlite.transport.relay import HOST
from tests.chaos.subjects import HERE, Cluster, Orders, Wires
from tests.crash.harness import build_library

SOON_S = 10.0
A_WHILE_S = 0.2


@asynccontextmanager
async def wire() -> AsyncIterator[tuple[Wires, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Node 1 has dialled node 2, which gives back each line that it hears."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
        except ConnectionError:
            pass  # what some of these tests are about
        finally:
            writer.close()

    one, two = held = hold_ports(2)
    server = await asyncio.start_server(echo, HOST, two)
    wires = Wires([1, 2])
    try:
        wires.open({1: one, 2: two})
        reader, writer = await asyncio.open_connection(HOST, wires.ports[1, 2])
        try:
            await hears(reader, writer, b"hello\n")
            yield wires, reader, writer
        finally:
            writer.close()
    finally:
        await wires.close()
        server.close()
        held.close()


async def hears(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    assert await asyncio.wait_for(reader.readline(), SOON_S) == line


@pytest.mark.parametrize("edge", [(1, 2), (2, 1)])
async def test_what_is_held_arrives_later_and_in_order(edge: tuple[int, int]) -> None:
    """In either direction: nothing comes through, then all of it; the connection lives on."""
    async with wire() as (wires, reader, writer):
        await wires.set([edge], "hold")
        writer.write(b"one\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), A_WHILE_S)
        writer.write(b"two\n")
        await wires.heal()
        assert await asyncio.wait_for(reader.readline(), SOON_S) == b"one\n"
        assert await asyncio.wait_for(reader.readline(), SOON_S) == b"two\n"
        await hears(reader, writer, b"three\n")


async def test_what_is_lost_never_arrives_and_its_connection_ends() -> None:
    """A stream with a hole would be no TCP."""
    async with wire() as (wires, reader, writer):
        await wires.set([(1, 2)], "lose")
        writer.write(b"one\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), A_WHILE_S)
        await wires.heal()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readline(), SOON_S)


async def test_a_refusing_edge_resets_what_is_and_what_comes() -> None:
    """Until it passes again."""
    async with wire() as (wires, reader, _):
        await wires.set([(1, 2)], "refuse")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readline(), SOON_S)
        with pytest.raises(ConnectionResetError):  # at once, or when it is read from
            other, writer = await asyncio.open_connection(HOST, wires.ports[1, 2])
            try:
                await asyncio.wait_for(other.readline(), SOON_S)
            finally:
                writer.close()
        await wires.heal()
        other, writer = await asyncio.open_connection(HOST, wires.ports[1, 2])
        await hears(other, writer, b"again\n")
        writer.close()


async def test_a_reset_ends_connections_and_no_more() -> None:
    """New ones pass."""
    async with wire() as (wires, reader, _):
        await wires.reset(2, 1)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readline(), SOON_S)
        other, writer = await asyncio.open_connection(HOST, wires.ports[1, 2])
        await hears(other, writer, b"again\n")
        writer.close()


async def test_a_delay_is_at_least_what_was_asked() -> None:
    """Both ways are delayed: their sum is the least that an answer takes."""
    async with wire() as (wires, reader, writer):
        await wires.set(wires.all_edges(), "pass", 100)
        begun = asyncio.get_running_loop().time()
        await hears(reader, writer, b"slow\n")
        assert asyncio.get_running_loop().time() - begun >= 0.19


def dialled_ports(pid: int) -> set[int]:
    """Remote ports of the established connections of a process (proc(5))."""
    sockets = {os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()}
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    own = [line for line in lines if line[3] == "01" and f"socket:[{line[9]}]" in sockets]
    return {int(line[2].rpartition(":")[2], 16) for line in own}


async def test_nodes_dial_each_other_through_the_wires_alone(tmp_path: Path) -> None:
    """Also after a restart, when they know from each other where they listen: a cut must leave no way around."""
    async with Cluster(tmp_path, 3, random.Random(1), power=False, epoch=0, cache="memory") as cluster:
        await cluster.ready(clients=False)
        one = cluster.subjects[0]
        await one.kill()
        await cluster.ready(clients=False)
        for subject in cluster.subjects:
            assert subject.member.process is not None
            dialled = dialled_ports(subject.member.process.pid)
            assert dialled & set(cluster.wires.ports.values()) and not dialled & cluster.wires.listening


CLOCKS = """
import mmap, sys, time
import apsw
def read():
    stamp = apsw.Connection(":memory:").execute("SELECT unixepoch('now')").get
    return time.time(), stamp, time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
before = read()
with open(sys.argv[1], "r+b") as file:
    mmap.mmap(file.fileno(), 64)[0:8] = (-3600).to_bytes(8, "little", signed=True)
after = read()
print(*(round(there - here) for here, there in zip(before, after)))
"""


def test_the_wall_clock_steps_and_the_others_do_not(tmp_path: Path) -> None:
    """In Python and inside SQLite, at once."""
    library, clock = build_library(HERE / "wallclock.c", tmp_path), Orders(tmp_path / "clock")
    child = subprocess.run(
        [sys.executable, "-c", CLOCKS, str(clock.path)],
        env={**os.environ, "LD_PRELOAD": str(library), "WALLCLOCK_STEP": str(clock.path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    clock.close()
    wall, sqlite, monotonic, boot = map(int, child.stdout.split())
    assert (monotonic, boot) == (0, 0)
    assert abs(wall + 3600) <= 1 and abs(sqlite + 3600) <= 1
