"""A relay in a process of its own: it obeys, and it ends with its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

from conftest import until

from hiqlite.transport.relay import HOST
from hiqlite.transport.relay_process import RelayProcess

OWNER = """
import os, signal
from hiqlite.transport.relay_process import RelayProcess
relay = RelayProcess({(1, 2): ("127.0.0.1", 9)})
print(relay._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def lives(pid: int) -> bool:
    """A process that ended and that nobody has waited for yet does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_obeys_from_the_first_word_on_and_leaves_nothing() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(echo, HOST, 0)
    relay = RelayProcess({(1, 2): (HOST, server.sockets[0].getsockname()[1])})
    try:
        reader, writer = await asyncio.open_connection(HOST, relay.ports[1, 2])
        await relay.set([(1, 2)], "hold")
        writer.write(b"hello\n")
        await relay.heal()
        assert await reader.readline() == b"hello\n"
        writer.close()
    finally:
        await relay.close()
        server.close()
    assert not lives(relay._process.pid)


async def test_one_that_was_killed_is_noticed_and_closing_is_harmless() -> None:
    relay = RelayProcess({(1, 2): (HOST, 9)})
    os.kill(relay._process.pid, signal.SIGKILL)
    try:
        await relay.heal()
    except OSError:
        pass
    else:
        raise AssertionError("nobody can have obeyed")
    finally:
        await relay.close()


async def test_it_ends_with_its_owner_however_that_ends() -> None:
    owner = subprocess.run([sys.executable, "-c", OWNER], capture_output=True, text=True, check=False)
    assert owner.returncode == -signal.SIGKILL
    await until(lambda: not lives(int(owner.stdout)))
