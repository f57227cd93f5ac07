"""Nodes that leave on purpose: by a call, by a signal, under load, in the middle of something; within two seconds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import hiqlite
import hiqlite.testing
from hiqlite.client.local import LocalClient
from hiqlite.errors import HiqliteError
from hiqlite.logstore.folder import CACHE, DB
from hiqlite.node import Node
from hiqlite.testing import Cluster
from hiqlite.transport.loopback import loopback_cluster
from tests.waiting import moment, until

CREATE = "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)"
INSERT = "INSERT INTO t (x) VALUES (1)"
STOP_LIMIT_S = 2.0
DEADLINE_S = 30.0


def leaders(nodes: list[Node], number: int) -> list[int]:
    return [node.config.node_id for node in nodes if number in node.groups and node.groups[number].group.leads]


async def make_leader(cluster: Cluster, node_id: int, number: int) -> None:
    """Node `node_id` leads group `number`."""
    nodes = list(cluster._running.values())

    def led() -> bool:
        found = leaders(nodes, number)
        if found == [node_id]:
            return True
        for node in nodes:
            group = node.groups[number].group
            if group.leads and group.engine.transfer_leadership(node_id, group.clock.monotonic_ns()):
                group.pump()
        return False

    await until(led)


@pytest.mark.parametrize("disk", [True, False], ids=["cache on disk", "cache in memory"])
async def test_who_leaves_hands_the_leadership_of_both_groups_over(tmp_path: Path, disk: bool) -> None:
    """When the call returns somebody else leads each group already, by a hand-over and no election of its own."""
    async with hiqlite.testing.cluster(3, base_dir=tmp_path, cache_storage_disk=disk) as cluster:
        for number in (DB, CACHE):
            await make_leader(cluster, 1, number)
        nodes = [node for number, node in cluster._running.items() if number != 1]
        terms = [node.groups[number].group.engine.term for number in (DB, CACHE) for node in nodes]
        begun = time.monotonic()
        await cluster.stop(1)
        assert time.monotonic() - begun < STOP_LIMIT_S
        await until(lambda: all(len(leaders(nodes, number)) == 1 for number in (DB, CACHE)))
        after = [node.groups[number].group.engine.term for number in (DB, CACHE) for node in nodes]
        assert [new - old for old, new in zip(terms, after, strict=True)] == [1, 1, 1, 1]


async def test_a_long_statement_holds_up_no_shutdown(tmp_path: Path) -> None:
    """It is interrupted: what was accepted is in the log, so the next start applies it."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000000)"
    db = await hiqlite.open(tmp_path / "data")
    await db.execute(CREATE)
    begun = time.monotonic()
    write = asyncio.ensure_future(written(db, f"{numbers} INSERT INTO t (x) SELECT max(i) FROM n", 60))
    applied = (await db.metrics()).db.applied_index
    while (await db.metrics()).db.commit_index == applied:
        await asyncio.sleep(0)
    begun = time.monotonic()
    await db.shutdown()
    assert time.monotonic() - begun < STOP_LIMIT_S
    (end,) = await asyncio.gather(write, return_exceptions=True)
    assert end is None or (isinstance(end, hiqlite.ShuttingDown) and end.outcome == "unknown")
    async with hiqlite.open(tmp_path / "data") as db:
        assert await db.query_value("SELECT x FROM t", consistency="linearizable", timeout=60) == 6000000


async def written(db: LocalClient, sql: str, timeout: float) -> None:
    await db.execute(sql, timeout=timeout)


# --------------------------------------------------------------------------- processes

MEMBER = """
import asyncio, json, os, signal, sys, hiqlite
settings, options = json.loads(sys.argv[1]), sys.argv[2:]
acknowledged = 0

async def write(db):
    global acknowledged
    while True:
        await db.execute("INSERT INTO t (x) VALUES (1)")
        acknowledged += 1

async def main():
    if "opening" in options:
        print("opening", flush=True)
    async with hiqlite.open(settings, handle_signals="signals" in options) as db:
        await db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)")
        tasks = [asyncio.create_task(write(db)) for _ in range(4)] if "load" in options else []
        if "fork" in options:
            child = os.fork()
            if child == 0:
                print("child", os.getpid(), flush=True)
                signal.pause()
                os._exit(1)
            print("ended", os.WTERMSIG((await asyncio.to_thread(os.waitpid, child, 0))[1]), flush=True)
        print("ready", flush=True)
        await db.closed()
        await asyncio.gather(*tasks, return_exceptions=True)
    print("closed", acknowledged, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def member(settings: dict[str, Any], *options: str) -> AsyncIterator[subprocess.Popen[str]]:
    """A process with one node; killed at the end if it has not ended."""
    with subprocess.Popen(
        [sys.executable, "-c", MEMBER, json.dumps(settings), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


async def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), DEADLINE_S)


async def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    return await asyncio.wait_for(asyncio.to_thread(process.communicate), DEADLINE_S)


@asynccontextmanager
async def two_more(configs: dict[int, dict[str, Any]]) -> AsyncIterator[list[Node]]:
    """Nodes 2 and 3 in this process."""
    nodes: list[Node] = []
    try:
        for number in (2, 3):
            nodes.append(await Node.start(hiqlite.NodeConfig.from_mapping(configs[number]), wait=False))
        yield nodes
    finally:
        await asyncio.gather(*(node.shutdown() for node in nodes))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_a_leader_under_load_costs_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """It ends well and soon; writes of the others all succeed, and what anybody was told is written, is."""
    configs = loopback_cluster(tmp_path, 3, {})
    async with member(configs[1], "signals", "load") as process, two_more(configs) as nodes:
        assert await line(process) == "ready\n", process.stderr and process.stderr.read()
        await led_by_one(nodes)
        clients = [node.client for node in nodes]
        acknowledged = 0
        over = False

        async def write(client: LocalClient) -> None:
            nonlocal acknowledged
            while not over:
                await client.execute(INSERT)
                acknowledged += 1

        writers = [asyncio.create_task(write(client)) for client in clients for _ in range(2)]
        await until(lambda: acknowledged > 50)
        begun = time.monotonic()
        process.send_signal(number)
        out, errors = await ended(process)
        took = time.monotonic() - begun
        enough = acknowledged + 50
        await until(lambda: acknowledged > enough or any(writer.done() for writer in writers))
        over = True
        await asyncio.gather(*writers)
        words = out.split()
        assert words[0] == "closed" and process.returncode == 0, errors
        assert took < STOP_LIMIT_S + 1.0, "the process's own end included"
        await clients[0].query("SELECT 1", consistency="linearizable")
        assert await clients[0].query_value("SELECT count(*) FROM t") >= acknowledged + int(words[1])


async def led_by_one(nodes: list[Node]) -> None:
    """The node of the other process leads both groups."""

    def led() -> bool:
        for number in (DB, CACHE):
            for node in nodes:
                group = node.groups[number].group
                if group.leads and group.engine.transfer_leadership(1, group.clock.monotonic_ns()):
                    group.pump()
        return all(node.groups[number].group.leader_id == 1 for number in (DB, CACHE) for node in nodes)

    await until(led)


async def test_a_signal_while_a_node_waits_for_its_cluster_ends_it(tmp_path: Path) -> None:
    """Nobody else comes: the opening ends with an error that names the signal, and nothing is left."""
    configs = loopback_cluster(tmp_path, 3, {})
    async with member(configs[1], "signals", "opening") as process:
        assert await line(process) == "opening\n"
        port = int(configs[1]["nodes"][0].split(":")[1].split()[0])
        await until(lambda: listening(port))
        process.send_signal(signal.SIGTERM)
        _, errors = await ended(process)
        assert process.returncode == 1 and "ShuttingDown: SIGTERM came before the node was open" in errors


def listening(port: int) -> bool:
    """Whether somebody listens on a port of this machine (column 1 of the table: address; 3: state, 0A listens)."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


async def test_signals_of_a_forked_child_are_its_own(tmp_path: Path) -> None:
    """The child of a node that handles signals ends by them like any process; the node goes on until its own come."""
    number = signal.SIGTERM
    async with member({"data_dir": str(tmp_path / "data")}, "signals", "fork") as process:
        word, child = (await line(process)).split()
        assert word == "child"
        os.kill(int(child), number)
        assert (await line(process)).split() == ["ended", str(int(number))]
        assert await line(process) == "ready\n"
        process.send_signal(number)
        out, errors = await ended(process)
        assert out.startswith("closed") and process.returncode == 0, errors


async def test_a_child_that_outlives_its_parent_holds_nothing(tmp_path: Path) -> None:
    """The parent is killed: its folder, its ports and its links are free at once, and the node comes back."""
    configs = loopback_cluster(tmp_path, 3, {})
    async with member(configs[1], "fork") as process, two_more(configs) as nodes:
        word, child = (await line(process)).split()
        assert word == "child"
        try:
            await led_by_one(nodes)
            client = nodes[0].client
            await client.execute(INSERT)
            process.kill()
            process.wait()
            await until(lambda: leaders(nodes, DB) != [])
            await client.execute(INSERT, timeout=DEADLINE_S)
            back = await asyncio.wait_for(hiqlite.open(configs[1])._open(), DEADLINE_S)
            try:
                result = await client.execute(INSERT)
                deadline = time.monotonic() + DEADLINE_S
                while (await back.metrics()).db.applied_index < result.log_index:
                    assert time.monotonic() < deadline, "nobody sends it anything"
                    await moment()
                assert await back.query_value("SELECT count(*) FROM t") == 3
            finally:
                await back.shutdown()
        finally:
            os.kill(int(child), signal.SIGKILL)


async def test_an_opening_that_fails_gives_the_signals_back(tmp_path: Path) -> None:
    """Whatever kept it from opening."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    (tmp_path / "file").write_text("")
    with pytest.raises(HiqliteError):
        await hiqlite.open(tmp_path / "file", handle_signals=True)
    assert {number: signal.getsignal(number) for number in before} == before


async def test_signals_are_given_back_by_the_last_of_several_nodes(tmp_path: Path) -> None:
    """Whichever ends first; a signal in between ends all that asked for it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    first = await hiqlite.open(tmp_path / "a", handle_signals=True)
    second = await hiqlite.open(tmp_path / "b", handle_signals=True)
    third = await hiqlite.open(tmp_path / "c", handle_signals=True)
    await first.shutdown()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(second.closed(), third.closed()), DEADLINE_S)
    assert {number: signal.getsignal(number) for number in before} == before


async def test_signals_are_not_for_other_threads(tmp_path: Path) -> None:
    """They belong to the main thread: UsageError, and nothing is opened."""

    async def opening() -> None:
        await hiqlite.open(tmp_path / "data", handle_signals=True)

    with pytest.raises(hiqlite.UsageError, match="main thread"):
        await asyncio.to_thread(lambda: asyncio.run(opening()))
    assert not (tmp_path / "data").exists()
