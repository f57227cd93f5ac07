"""Nodes that nobody closes: the process is told, exits soon, and finds everything it wrote; nothing is left in it."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import hiqlite
from tests.cluster.traces import Traces

EXIT_LIMIT_S = 20.0  # from the end of the program to that of its process, on a busy machine

PROGRAM = """
import asyncio, os, signal, sys, time, hiqlite
from pathlib import Path
from hiqlite.transport.loopback import loopback_cluster

folder, ports, end = Path(sys.argv[1]), sys.argv[2] == "ports", sys.argv[3]
acknowledged = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it

async def write(db):
    global acknowledged
    while True:
        await db.execute("INSERT INTO t (x) VALUES (1)")
        acknowledged += 1

async def opened():
    settings = {"data_dir": str(folder / "node1"), "wal_size": "1 MiB"}
    if ports:
        settings = loopback_cluster(folder, 1, {"cache_storage_disk": True, "wal_size": "1 MiB"})[1]
    db = await hiqlite.open(settings)
    await db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)")
    return db

async def main():
    db = await opened()
    tasks = [asyncio.create_task(write(db)) for _ in range(4)]
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    tasks.append(asyncio.create_task(db.query(endless, timeout=60)))
    while acknowledged < 200:
        await asyncio.sleep(0)
    if end == "kept":
        sys.modules["__main__"].kept = db
    if end == "error":
        raise ValueError("wanted")
    if end == "exit":
        sys.exit(0)
    if end == "signal":
        print(acknowledged, flush=True)  # a turn of the loop may have told more than one write of each
        os.kill(os.getpid(), signal.SIGTERM)
    if end == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)
    if end == "opening":
        tasks.append(asyncio.create_task(hiqlite.open(folder / "other")._open()))
        await asyncio.sleep(0)
    if end == "stopping":
        tasks.append(asyncio.create_task(db.shutdown()))
        await asyncio.sleep(0)

def bare():  # a loop that is neither cleaned up nor closed, or closed with everything pending
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
    if end == "loop closed":
        loop.close()

try:
    bare() if end in ("loop left", "loop closed") else asyncio.run(main())
except (ValueError, KeyboardInterrupt):
    pass
finally:
    print(acknowledged, time.monotonic(), flush=True)
"""

ENDS = ["return", "kept", "error", "exit", "interrupt", "opening", "stopping", "loop left", "loop closed"]
ALONE = ("return", "loop left")  # with ports there is all that a node alone has, and more


@pytest.mark.parametrize(
    ("end", "ports"),
    [*((end, "ports") for end in ENDS),
     *(pytest.param(end, "alone", marks=() if end in ALONE else pytest.mark.long) for end in ENDS)],
)  # fmt: skip
def test_a_process_that_forgets_to_close_exits_soon_and_loses_nothing(tmp_path: Path, end: str, ports: str) -> None:
    """Under load, however its program ends: a ResourceWarning, no crash, no hang; what was acknowledged is there."""
    run = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-X", "faulthandler", "-c", PROGRAM,
         str(tmp_path), ports, end],
        timeout=100, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and "Fatal" not in run.stderr, run.stderr
    if end != "stopping":
        assert "was never shut down" in run.stderr, run.stderr
    acknowledged, its_end = run.stdout.split()
    assert time.monotonic() - float(its_end) < EXIT_LIMIT_S
    asyncio.run(look(tmp_path / "node1", int(acknowledged)))


@pytest.mark.parametrize("ports", ["alone", "ports"])
def test_a_signal_that_nobody_handles_ends_the_process_at_once(tmp_path: Path, ports: str) -> None:
    """A node takes no signals by itself: SIGTERM does what it does in any other program, and the data are there."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), ports, "signal"],
        timeout=60, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == -signal.SIGTERM, run.stderr
    asyncio.run(look(tmp_path / "node1", int(run.stdout)))


async def look(folder: Path, acknowledged: int) -> None:
    async with hiqlite.open(folder) as db:
        rows = await db.query_value("SELECT count(*) FROM t")
        # A write whose answer was on its way may be there too.
        assert acknowledged <= rows <= acknowledged + 4


async def write_some(folder: Path) -> hiqlite.Client:
    db = await hiqlite.open(folder)
    await db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)")
    await db.execute("INSERT INTO t (x) VALUES (1)")
    return db


def forget(folder: Path) -> object:
    """A node whose loop is closed; what is left of it."""
    return asyncio.run(write_some(folder))


def collect_until(condition: Callable[[], bool]) -> None:
    """More than once: a thread of the node may be at a job, and hold what waits for it, a moment longer."""
    deadline = time.monotonic() + EXIT_LIMIT_S
    while not condition() and time.monotonic() < deadline:
        gc.collect()


@pytest.mark.parametrize("where", ["this thread", "another thread"])
def test_a_forgotten_node_goes_with_its_last_reference(tmp_path: Path, where: str) -> None:
    """Collected in whatever thread: its threads, files and lock are gone, and the folder can be opened again."""
    asyncio.run(look_at_nothing(tmp_path / "warm"))
    before = Traces()
    with pytest.warns(ResourceWarning, match="was never shut down") as told:
        left = [forget(tmp_path / "data")]
        assert before.new() != []

        def collect() -> None:
            left.clear()
            collect_until(lambda: len(told) > 0)

        if where == "this thread":
            collect()
        else:
            thread = threading.Thread(target=collect)
            thread.start()
            thread.join()
    told.clear()  # the warning holds what it was about
    collect_until(lambda: not before.new())
    assert before.new() == []
    asyncio.run(look(tmp_path / "data", 1))


def test_a_forgotten_node_whose_loop_is_closed_makes_way_for_the_next_one(tmp_path: Path) -> None:
    """Somebody still holds it; its folder can be opened in this process all the same, and it says that it is closed."""
    left = forget(tmp_path / "data")
    with pytest.warns(ResourceWarning, match="was never shut down"):
        asyncio.run(look(tmp_path / "data", 1))
    del left


async def look_at_nothing(folder: Path) -> None:
    async with hiqlite.open(folder):
        pass
