"""Starts that cannot work: each ends with one clear error, or waits and says for whom, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import hiqlite
from hiqlite.testing import cluster
from hiqlite.transport.loopback import HOST, loopback_cluster
from tests.cluster.agreement import check_equal, eventually, same_content, same_index
from tests.cluster.traces import Traces

SETTINGS = {"cache": False, "wal_size": "8 MiB"}

HOLDS_FOLDER = """
import asyncio, json, sys, hiqlite
async def main():
    async with hiqlite.open(json.loads(sys.argv[1])):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


async def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path):
    """DataFolderInUse names that process; once it has gone, the folder opens with its data."""
    config = {"data_dir": str(tmp_path / "data")}
    before = Traces()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_FOLDER, json.dumps(config)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        for _ in range(2):
            with pytest.raises(hiqlite.DataFolderInUse, match=str(other.pid)) as caught:
                await hiqlite.open(config)
            assert caught.value.hint and caught.value.code == "data_folder_in_use"
        other.stdin.close()
        assert other.wait(20) == 0
    await before.gone()
    async with hiqlite.open(config) as db:
        assert await db.is_healthy()


async def test_a_folder_in_use_in_this_process_is_refused_and_the_cluster_goes_on(tmp_path: Path):
    """A second opening of a member's folder harms neither the member nor the cluster."""
    async with cluster(3, base_dir=tmp_path, **SETTINGS) as three:
        with pytest.raises(hiqlite.DataFolderInUse):
            await hiqlite.open(tmp_path / "node2", node_id=2)
        await check_equal(three)


async def test_a_member_with_a_wrong_secret_joins_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Nothing forms with fewer than all; the log names the reason on both sides, writes end in time as not applied."""
    settings = loopback_cluster(tmp_path, 3, SETTINGS)
    settings[3]["secret_raft"] = "another secret altogether"
    with caplog.at_level(logging.INFO, "hiqlite"):
        clients = [await hiqlite.open(settings[number], wait=False) for number in (1, 2, 3)]
        try:

            async def told() -> bool:
                reasons = [str((await client.metrics()).node["reasons"]) for client in clients]
                named = all("secret" in one for one in reasons)
                return named and "secret" in caplog.text and "waiting to hear of node 3" in caplog.text

            await eventually(told)
            for client in clients:
                assert (await client.metrics()).db.role == "forming"
                assert not await client.is_healthy()
                with pytest.raises(hiqlite.NoLeader, match="secret") as caught:
                    await client.execute("CREATE TABLE t (x)", timeout=0.2)
                assert caught.value.outcome == "not_applied" and "secret" in caught.value.hint
                with pytest.raises(hiqlite.NoLeader, match="secret"):
                    await client.wait_until_healthy(timeout=0.05)
        finally:
            await asyncio.gather(*(client.shutdown() for client in clients))
    assert settings[3]["secret_raft"] not in caplog.text and settings[1]["secret_raft"] not in caplog.text


async def test_a_member_that_comes_back_with_a_wrong_secret_stays_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The two others go on without it; with the right secret it catches up."""
    settings = loopback_cluster(tmp_path, 3, SETTINGS)
    clients = dict(zip((1, 2, 3), await asyncio.gather(*(hiqlite.open(settings[n]) for n in (1, 2, 3))), strict=True))
    await clients[1].execute("CREATE TABLE t (x)")
    await same_index(list(clients.values()))
    await clients.pop(3).shutdown()
    with caplog.at_level(logging.INFO, "hiqlite"):
        stranger = await hiqlite.open({**settings[3], "secret_raft": "another secret altogether"}, wait=False)

        async def told() -> bool:
            reasons = str((await stranger.metrics()).node["reasons"])
            return "secret" in caplog.text and reasons.count("the secrets differ") == 2

        await eventually(told)
        await asyncio.gather(*(client.wait_until_healthy() for client in clients.values()))
        await clients[1].execute("INSERT INTO t VALUES (1)")
        assert await stranger.query("SELECT * FROM t") == []
        with pytest.raises(hiqlite.ClusterError):
            await stranger.query("SELECT * FROM t", consistency="linearizable", timeout=0.2)
        with pytest.raises(hiqlite.NoLeader, match=r"node 1: .* secret"):
            await stranger.execute("INSERT INTO t VALUES (2)", timeout=0.2)
        await stranger.shutdown()
    async with hiqlite.open(settings[3]) as third:
        assert await third.query_value("SELECT x FROM t", consistency="linearizable") == 1
        await same_content([*clients.values(), third])
    await asyncio.gather(*(client.shutdown() for client in clients.values()))


async def test_a_node_with_the_data_of_another_cluster_stays_outside(tmp_path: Path):
    """Another cluster's member under a configured address is refused; the cluster it was sent to goes on."""
    first = loopback_cluster(tmp_path / "first", 3, SETTINGS)
    other = loopback_cluster(tmp_path / "other", 3, SETTINGS)
    for settings in (first, other):
        clients = await asyncio.gather(*(hiqlite.open(settings[n]) for n in (1, 2, 3)))
        await clients[0].execute("CREATE TABLE t (x)")
        await clients[0].execute("INSERT INTO t VALUES (?)", [str(settings is first)])
        await same_index(list(clients))
        await asyncio.gather(*(client.shutdown() for client in clients))
    pair = await asyncio.gather(*(hiqlite.open(first[n]) for n in (1, 2)))
    stranger = await hiqlite.open({**first[3], "data_dir": other[3]["data_dir"]}, wait=False)
    try:
        for _ in range(20):
            await pair[0].execute("INSERT INTO t VALUES ('more')")
        assert await stranger.query("SELECT x FROM t") == [("False",)]
        with pytest.raises(hiqlite.ClusterError):
            await stranger.execute("INSERT INTO t VALUES ('stranger')", timeout=0.3)
        assert await pair[1].query_value("SELECT count(*) FROM t WHERE x = 'stranger'", consistency="linearizable") == 0
    finally:
        await asyncio.gather(stranger.shutdown(), *(client.shutdown() for client in pair))


async def test_all_nodes_may_come_back_with_new_addresses(tmp_path: Path):
    """Nodes are known by what the hello proves, never by where they are."""
    settings = loopback_cluster(tmp_path, 3, SETTINGS)
    for round_number in range(2):
        clients = await asyncio.gather(*(hiqlite.open(settings[n]) for n in (1, 2, 3)))
        await clients[round_number].execute("CREATE TABLE IF NOT EXISTS t (x)")
        await clients[2].execute("INSERT INTO t VALUES (1)")
        assert await clients[0].query_value("SELECT count(*) FROM t", consistency="linearizable") == round_number + 1
        await asyncio.gather(*(client.shutdown() for client in clients))
        moved = loopback_cluster(tmp_path, 3, SETTINGS)
        settings = {n: {**settings[n], "nodes": moved[n]["nodes"]} for n in settings}


async def test_voter_lists_that_differ_wait_and_print_both(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """No cluster forms from configs that contradict each other."""
    settings = loopback_cluster(tmp_path, 4, SETTINGS)
    settings[1]["nodes"] = settings[2]["nodes"] = settings[1]["nodes"][:3]
    with caplog.at_level(logging.INFO, "hiqlite"):
        clients = [await hiqlite.open(settings[number], wait=False) for number in (1, 2, 3)]
        try:

            async def told() -> bool:
                return "1, 2, 3, 4" in caplog.text.replace("[", "").replace("(", "")

            await eventually(told)
            assert {(await client.metrics()).db.role for client in clients} == {"forming"}
        finally:
            await asyncio.gather(*(client.shutdown() for client in clients))


@pytest.mark.parametrize("port", ["raft", "api"])
async def test_a_port_in_use_fails_one_node_and_not_the_others(tmp_path: Path, port: str):
    """ConfigError that names the port; when it is free, the node joins the others, which waited."""
    settings = loopback_cluster(tmp_path, 3, SETTINGS)
    address = settings[1]["nodes"][0].split()[1 if port == "raft" else 2]
    others = [await hiqlite.open(settings[number], wait=False) for number in (2, 3)]
    try:
        # Not a server of asyncio: that one leaks what it accepts in the turn of its close, before Python 3.12.
        number = address.rpartition(":")[2]
        with socket.create_server((HOST, int(number))), pytest.raises(hiqlite.ConfigError, match=number):
            await hiqlite.open(settings[1])
        async with hiqlite.open(settings[1]) as first:
            await first.execute("CREATE TABLE t (x)")
            await same_content([first, *others])
    finally:
        await asyncio.gather(*(client.shutdown() for client in others))
