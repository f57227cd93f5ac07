"""Opening, looking at, closing and opening again: an embedded node from its first to its last moment."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import hiqlite
import hiqlite.testing
from hiqlite.client.local import LocalClient
from hiqlite.config import NodeConfig
from tests.cluster.traces import Traces

CREATE = "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)"
INSERT = "INSERT INTO t (x) VALUES (1)"


@pytest.mark.parametrize(
    "source",
    [
        str,
        Path,
        lambda path: NodeConfig.from_mapping({"data_dir": str(path)}),
        lambda path: {"data_dir": str(path), "log_sync": "interval_50"},
    ],
    ids=["text", "path", "config", "mapping"],
)
async def test_a_node_opens_from_each_kind_of_source_and_keeps_its_data(
    tmp_path: Path, source: Callable[[Path], Any]
):
    """Closed and opened again, everything is there, and the log goes on above."""
    index = 0
    for round_number in range(1, 4):
        async with hiqlite.open(source(tmp_path / "data")) as db:
            await db.execute(CREATE)
            result = await db.execute(INSERT)
            assert result.last_insert_rowid == round_number and result.log_index > index
            index = result.log_index
            assert await db.query_value("SELECT count(*) FROM t") == round_number


async def test_open_is_awaitable_as_well(tmp_path: Path):
    """`db = await open(...)`, then `await db.shutdown()`; a client is a context manager too."""
    db = await hiqlite.open(tmp_path / "data")
    await db.execute(CREATE)
    await db.shutdown()
    async with await hiqlite.open(tmp_path / "data") as again:
        assert await again.query("SELECT * FROM t") == []


async def test_open_without_waiting_gives_a_client_at_once(tmp_path: Path):
    """Writes issued before the node leads go through as soon as it does."""
    async with hiqlite.open(tmp_path / "data", wait=False) as db:
        await db.execute(CREATE)
        await db.wait_until_healthy()
        assert await db.query("SELECT * FROM t") == []


async def test_a_single_node_listens_on_no_port(tmp_path: Path):
    """Nothing but its own files is open."""
    before = Traces()
    async with hiqlite.open(tmp_path / "data"):
        assert not any("socket" in trace for trace in before.new())


async def test_a_closed_node_leaves_nothing_behind(tmp_path: Path):
    """No task, no thread, no file, however often it was opened."""
    async with hiqlite.open(tmp_path / "warm"):
        pass
    before = Traces()
    for _ in range(5):
        async with hiqlite.open(tmp_path / "data") as db:
            await db.execute(CREATE)
            await asyncio.gather(*(db.execute(INSERT) for _ in range(100)))
            await db.query("SELECT * FROM t", consistency="linearizable")
    await before.gone()


@pytest.mark.parametrize(
    "overrides, kind, words",
    [
        ({"log_snyc": "immediate"}, hiqlite.ConfigError, "log_sync"),
        ({"read_pool": 3}, hiqlite.ConfigError, "read_pool"),
        ({"log_sync": "sometimes"}, hiqlite.ConfigError, "log_sync"),
        ({"wal_size": "5 parrots"}, hiqlite.ConfigError, "wal_size"),
        ({"request_timeout": -1}, hiqlite.ConfigError, "request_timeout"),
        ({"nodes": ["1 h:1 h:2"]}, hiqlite.ConfigError, "secret"),
        ({"node_id": 3, "nodes": ["1 h:1 h:2"], "secret_raft": "x" * 16, "secret_api": "x" * 16},
         hiqlite.ConfigError, "node_id"),
    ],
)  # fmt: skip
async def test_a_wrong_config_is_one_clear_error(
    tmp_path: Path, overrides: dict[str, Any], kind: type[hiqlite.HiqliteError], words: str
):
    """ConfigError that names the key, with a suggestion for a misspelt one; nothing is left running."""
    before = Traces()
    with pytest.raises(kind, match=words) as caught:
        async with hiqlite.open(tmp_path / "data", **overrides):
            pass
    assert isinstance(caught.value, ValueError) and caught.value.code == "config"
    await before.gone()


@pytest.mark.parametrize("source", [5, None, b"data", ["data"]])
async def test_a_source_that_is_none_is_a_config_error(source: Any):
    """It says what may be given."""
    with pytest.raises(hiqlite.ConfigError, match="path"):
        hiqlite.open(source)


async def test_a_folder_is_used_once(tmp_path: Path):
    """The second opening fails clearly, the first goes on, and the folder is free afterwards."""
    async with hiqlite.open(tmp_path / "data") as db:
        await db.execute(CREATE)
        with pytest.raises(hiqlite.DataFolderInUse) as caught:
            await hiqlite.open(tmp_path / "data")
        assert str(os.getpid()) in str(caught.value) and caught.value.hint
        await db.execute(INSERT)
    async with hiqlite.open(tmp_path / "data") as db:
        assert await db.query_value("SELECT count(*) FROM t") == 1


async def test_a_folder_that_cannot_be_one_is_a_storage_error(tmp_path: Path):
    """A file stands in its place; nothing is left running."""
    (tmp_path / "file").write_text("")
    before = Traces()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(hiqlite.StorageError):
            await hiqlite.open(path)
    await before.gone()


async def test_a_folder_of_another_node_is_refused(tmp_path: Path):
    """Its id stands in the folder."""
    async with hiqlite.open(tmp_path / "data", node_id=1):
        pass
    with pytest.raises(hiqlite.ConfigError, match="belongs to node 1"):
        await hiqlite.open(tmp_path / "data", node_id=2)


async def test_nodes_in_one_process_are_apart(tmp_path: Path):
    """Two single nodes, each with its own data."""
    async with hiqlite.open(tmp_path / "a") as a, hiqlite.open(tmp_path / "b") as b:
        await a.execute(CREATE)
        await a.execute(INSERT)
        await b.execute("CREATE TABLE t (other)")
        assert await a.content_hash() != await b.content_hash()
        assert await b.query("SELECT * FROM t") == []


async def test_the_standard_librarys_sqlite_is_kept_off_the_open_file(tmp_path: Path):
    """Inside the process it would break the locks of the live database; after closing it may look."""
    async with hiqlite.open(tmp_path / "data") as db:
        await db.execute(CREATE)
        await db.execute(INSERT)
        (file,) = (tmp_path / "data" / "db").glob("*/hiqlite.db")
        with pytest.raises(Exception, match="hiqlite"):
            sqlite3.connect(file)
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    connection.close()


async def test_a_node_tells_how_it_is(tmp_path: Path):
    """Metrics, members, leadership, health."""
    async with hiqlite.open(tmp_path / "data") as db:
        await db.execute(CREATE)
        result = await db.execute(INSERT)
        metrics = await db.metrics()
        assert metrics.db is metrics.groups["db"]
        assert (metrics.db.id, metrics.db.role, metrics.db.leader_id) == (1, "leader", 1)
        assert metrics.db.applied_index == metrics.db.commit_index == metrics.db.last_log_index == result.log_index
        assert metrics.db.term >= 1 and metrics.db.members == (1,) and metrics.db.learners == ()
        (member,) = await db.members()
        assert (member.id, member.role) == (1, "voter")
        assert await db.is_leader() and await db.is_healthy()
        await db.wait_until_healthy(timeout=1)
        assert metrics.as_dict()["groups"]["db"]["role"] == "leader"


async def test_every_call_takes_a_timeout(tmp_path: Path):
    """Also what is answered at once, in whatever time; what is no number of seconds is refused."""
    calls: list[Callable[..., Awaitable[object]]] = [
        LocalClient.members, LocalClient.is_leader, LocalClient.metrics, LocalClient.is_healthy, LocalClient.is_ready,
        LocalClient.snapshot,
        lambda db, timeout: db.migrate({"1_a.sql": "CREATE TABLE a (x)"}, timeout=timeout),
    ]  # fmt: skip
    async with hiqlite.open(tmp_path / "data") as db:
        await db.execute(CREATE)
        for call in calls:
            for wrong in ("soon", -1, float("nan")):
                with pytest.raises(hiqlite.UsageError, match="timeout must be a number of seconds"):
                    await call(db, timeout=wrong)
            await call(db, timeout=5)


# --------------------------------------------------------------------------- closing


async def test_a_shutdown_that_is_not_over_in_time_goes_on(tmp_path: Path):
    """RequestTimeout for who does not wait for longer; the node ends all the same, and who asks again waits for it."""
    db = await hiqlite.open(tmp_path / "data", shutdown_drain=0.1)
    with pytest.raises(hiqlite.UsageError, match="timeout must be a number of seconds"):
        await db.shutdown(timeout="soon")  # type: ignore[arg-type]  # that it is refused is the point
    with pytest.raises(hiqlite.RequestTimeout):
        await db.shutdown(timeout=0)
    assert await db.is_healthy() and not await db.is_ready()
    await db.shutdown(timeout=10)
    assert not await db.is_healthy()


async def test_shutdown_is_idempotent_and_may_be_called_at_once(tmp_path: Path):
    """Everybody waits for the one shutdown; `closed()` tells when it is over."""
    db = await hiqlite.open(tmp_path / "data")
    closed = asyncio.create_task(db.closed())
    await asyncio.gather(db.shutdown(), db.shutdown(), db.shutdown())
    await db.shutdown()
    await closed


async def test_calls_after_shutdown_say_so(tmp_path: Path):
    """ShuttingDown, not applied, from each call; looking at the node still works."""
    async with hiqlite.open(tmp_path / "data") as db:
        await db.execute(CREATE)
    for write in (db.execute(INSERT), db.execute_many(INSERT, [[]]), db.batch(INSERT), db.txn([(INSERT, ())])):
        with pytest.raises(hiqlite.ShuttingDown) as caught:
            await write
        assert caught.value.outcome == "not_applied"
    with pytest.raises(hiqlite.ShuttingDown):
        await db.migrate({"1_a.sql": "CREATE TABLE m (x)"})
    for consistency in (None, "local", "linearizable"):
        with pytest.raises(hiqlite.ShuttingDown) as caught:
            await db.query("SELECT 1", consistency=consistency)  # type: ignore[arg-type]
        assert caught.value.outcome is None
    with pytest.raises(hiqlite.ShuttingDown):
        _ = [row async for row in db.query_iter("SELECT 1")]
    assert not await db.is_healthy()


async def test_writes_under_way_end_before_the_node_closes(tmp_path: Path):
    """Each one either is there afterwards or was refused as not applied."""
    db = await hiqlite.open(tmp_path / "data")
    await db.execute(CREATE)
    writes = [asyncio.ensure_future(db.execute(INSERT)) for _ in range(500)]
    await db.shutdown()
    ends = await asyncio.gather(*writes, return_exceptions=True)
    refused = [end for end in ends if isinstance(end, BaseException)]
    assert all(isinstance(end, hiqlite.ShuttingDown) and end.outcome == "not_applied" for end in refused)
    async with hiqlite.open(tmp_path / "data") as db:
        assert await db.query_value("SELECT count(*) FROM t") == 500 - len(refused)


async def test_a_read_under_way_does_not_hold_up_the_shutdown(tmp_path: Path):
    """It ends with ShuttingDown."""
    db = await hiqlite.open(tmp_path / "data")
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    reads = [asyncio.create_task(db.query(endless, timeout=60)) for _ in range(6)]
    await asyncio.sleep(0)
    await asyncio.wait_for(db.shutdown(), 10)
    ends = await asyncio.gather(*reads, return_exceptions=True)
    assert all(isinstance(end, hiqlite.ShuttingDown) for end in ends)


FORGETS = """
import asyncio, sys, hiqlite
async def main():
    db = await hiqlite.open(sys.argv[1])
    await db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)")
    await db.execute("INSERT INTO t (x) VALUES (1)")
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    task = asyncio.create_task(db.query(endless, timeout=60))
    await asyncio.sleep(0)
    {end}
asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["pass", "sys.exit(0)", "raise KeyboardInterrupt", "raise SystemExit(0)"])
def test_a_process_that_forgets_to_close_exits(tmp_path: Path, end: str):
    """Background threads do not keep it alive, and what was written is there."""
    child = subprocess.run(
        [sys.executable, "-c", FORGETS.replace("{end}", end), str(tmp_path / "data")],
        timeout=30,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode in (0, 130, -signal.SIGINT, 1) and "Fatal" not in child.stderr, child.stderr

    async def look() -> None:
        async with hiqlite.open(tmp_path / "data") as db:
            assert await db.query_value("SELECT count(*) FROM t") == 1

    asyncio.run(look())


HANDLES_SIGNALS = """
import asyncio, sys, hiqlite
async def main():
    async with hiqlite.open(sys.argv[1], handle_signals=True) as db:
        await db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)")
        print("ready", flush=True)
        await db.closed()
    print("closed", flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_shut_a_node_down_when_asked_to_be_handled(tmp_path: Path, number: int):
    """`await db.closed()` returns, and the process ends well; a second signal does no harm."""
    with subprocess.Popen(
        [sys.executable, "-c", HANDLES_SIGNALS, str(tmp_path / "data")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        child.send_signal(number)
        out, errors = child.communicate(timeout=30)
    assert (out, child.returncode) == ("closed\n", 0), errors


async def test_a_port_in_use_is_a_config_error(tmp_path: Path):
    """Raft or api port, whether one waits for the node or not; nothing is left running."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    raft, api = (one.getsockname()[1] for one in free)
    settings = {
        "data_dir": str(tmp_path / "data"), "node_id": 1, "nodes": [f"1 127.0.0.1:{raft} 127.0.0.1:{api}"],
        "secret_raft": "x" * 16, "secret_api": "y" * 16,
        "listen_addr_raft": "127.0.0.1", "listen_addr_api": "127.0.0.1", "cache": False,
    }  # fmt: skip
    before = Traces()
    for taken in (free, free[1:]):
        for wait in (True, False):
            with pytest.raises(hiqlite.ConfigError, match=str(taken[0].getsockname()[1])):
                await hiqlite.open(settings, wait=wait)
        taken[0].close()
    await before.gone()
    async with hiqlite.open(settings) as db:
        await db.execute(CREATE)


async def test_signals_are_given_back_when_the_node_has_ended(tmp_path: Path):
    """Else a process whose node is gone could not be stopped by them any more."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with hiqlite.open(tmp_path / "data", handle_signals=True):
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before


async def test_a_shutdown_that_is_cancelled_while_it_says_farewell_stops_the_node_all_the_same(tmp_path: Path):
    """`asyncio.run` cancels every task at its end: threads, ports and the data folder must not outlive it."""
    async with hiqlite.testing.cluster(3, base_dir=tmp_path) as cluster:
        leader = cluster.leader
        cluster.nodes.pop(leader)
        node = cluster._running.pop(leader)
        shutdown = asyncio.create_task(node.shutdown())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (stopping,) = [task for task in asyncio.all_tasks() if task.get_name() == "hiqlite-shutdown"]
        assert not node.closed.is_set()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shutdown
        assert node.closed.is_set()
        again = await hiqlite.open(node.config, wait=False)
        await again.shutdown()
