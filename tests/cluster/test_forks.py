"""A process with an open node forks: the child is told that the node is not its own, and the parent feels nothing."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import hiqlite
import hiqlite.testing
from hiqlite.client.local import LocalClient
from hiqlite.engine.model import Change, ChangeKind
from hiqlite.transport.loopback import loopback_cluster
from tests.cluster.forking import exit_code, forked

# From Python 3.12 on a fork of a process with threads warns: that is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CREATE = "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)"
INSERT = "INSERT INTO t (x) VALUES (1)"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
AT_ONCE_S = 1.0


async def consume(rows: AsyncIterator[Any]) -> list[Any]:
    return [row async for row in rows]


async def written(db: LocalClient) -> None:
    await db.execute(f"INSERT INTO t (x) {ENDLESS}", timeout=3)


async def in_block(db: LocalClient) -> None:
    async with db.atomic() as block:
        block.execute(INSERT)


CALLS: dict[str, Callable[[LocalClient], Awaitable[Any]]] = {
    "execute": lambda db: db.execute(INSERT),
    "execute with parameters": lambda db: db.execute("INSERT INTO t (x) VALUES (?)", [1], timeout=60),
    "execute_many": lambda db: db.execute_many("INSERT INTO t (x) VALUES (?)", [[1], [2]]),
    "execute_returning": lambda db: db.execute_returning(f"{INSERT} RETURNING id"),
    "execute_returning_one": lambda db: db.execute_returning_one(f"{INSERT} RETURNING id"),
    "txn": lambda db: db.txn([(INSERT, ())]),
    "atomic": in_block,
    "batch": lambda db: db.batch(INSERT),
    "migrate on a copy": lambda db: db.migrate({"1_a.sql": "CREATE TABLE m (x)"}, dry_run=True),
    "migrate": lambda db: db.migrate({"1_a.sql": "CREATE TABLE m (x)"}),
    "query": lambda db: db.query("SELECT 1"),
    "query session": lambda db: db.query("SELECT 1", consistency="session"),
    "query linearizable": lambda db: db.query("SELECT 1", consistency="linearizable"),
    "query_one": lambda db: db.query_one("SELECT 1"),
    "query_optional": lambda db: db.query_optional("SELECT 1"),
    "query_value": lambda db: db.query_value("SELECT 1"),
    "query_iter": lambda db: consume(db.query_iter("SELECT 1")),
    "metrics": lambda db: db.metrics(),
    "members": lambda db: db.members(),
    "is_leader": lambda db: db.is_leader(),
    "is_healthy": lambda db: db.is_healthy(),
    "is_ready": lambda db: db.is_ready(),
    "wait_until_healthy": lambda db: db.wait_until_healthy(),
    "content_hash": lambda db: db.content_hash(),
    "closed": lambda db: db.closed(),
    "shutdown": lambda db: db.shutdown(),
}


def refused(begin: Callable[[], Awaitable[Any]]) -> None:
    """In a child: on a loop of its own the call ends at once with UsageError, which says what to do."""

    async def call() -> None:
        await begin()

    begun = time.monotonic()
    with pytest.raises(hiqlite.UsageError, match="fork") as caught:
        asyncio.run(call())
    assert caught.value.hint and time.monotonic() - begun < AT_ONCE_S


@asynccontextmanager
async def loaded(db: LocalClient) -> AsyncIterator[None]:
    """Writes and reads all the while; afterwards every acknowledged write is there, once, and the file is sound."""
    acknowledged: list[int] = []
    over = asyncio.Event()

    async def write() -> None:
        while not over.is_set():
            acknowledged.append((await db.execute(INSERT)).last_insert_rowid)
            await db.query("SELECT count(*) FROM (SELECT 1 FROM t LIMIT 500)")

    await db.execute(CREATE)
    writers = [asyncio.create_task(write()) for _ in range(4)]
    await asyncio.wait(writers, timeout=0)
    try:
        yield
        before = len(acknowledged)
        while len(acknowledged) < before + 50:
            await asyncio.wait(writers, timeout=0.01, return_when=asyncio.FIRST_COMPLETED)
            assert not any(writer.done() for writer in writers)
    finally:
        over.set()
        await asyncio.gather(*writers)
    rows = {row[0] for row in await db.query("SELECT id FROM t")}
    assert len(set(acknowledged)) == len(acknowledged) and rows.issuperset(acknowledged)


def assert_sound(folder: Path) -> None:
    """SQLite itself finds nothing wrong with the closed database."""
    (file,) = (folder / "db").glob("*/hiqlite.db")
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize("name", CALLS)
async def test_each_call_of_a_forked_child_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """UsageError, on another loop and in the coroutine that forked; the parent goes on under load."""
    call = CALLS[name]
    async with hiqlite.open(tmp_path / "data") as db, loaded(db):
        assert exit_code(forked(lambda: refused(lambda: call(db)))) == 0

        def here() -> None:
            begun = time.monotonic()
            with pytest.raises(hiqlite.UsageError, match="fork"):  # without a turn of the loop: nothing turns it
                made = call(db)
                (made.send(None) if asyncio.iscoroutine(made) else made.__await__().send(None))  # type: ignore[attr-defined]
            assert time.monotonic() - begun < AT_ONCE_S

        assert exit_code(forked(here)) == 0
    assert_sound(tmp_path / "data")


async def test_calls_of_the_node_are_refused_in_a_forked_child(tmp_path: Path) -> None:
    """Those of the node behind the client, and of a cluster of the testing module."""
    change = Change(ChangeKind.REMOVE, ())
    async with hiqlite.testing.cluster(1, base_dir=tmp_path) as cluster:
        node = cluster._running[1]
        client = cluster.client
        of_members = client.members, lambda: client.remove_member(1), lambda: client.transfer_leadership(1)
        of_node = node.shutdown, node.abandon, lambda: node.change_members(change, 1.0), client.metrics
        for call in (*of_node, *of_members):
            assert exit_code(forked(lambda call=call: refused(call))) == 0  # type: ignore[misc]

        def looks() -> None:
            with pytest.raises(hiqlite.UsageError):
                node.metrics()

        assert exit_code(forked(looks)) == 0
        await cluster.client.execute(CREATE)


async def test_a_child_of_a_process_with_a_node_opens_none(tmp_path: Path) -> None:
    """SQLite's own locks may be held for ever in it; a child that is spawned may."""
    async with hiqlite.open(tmp_path / "data"):
        assert exit_code(forked(lambda: refused(lambda: hiqlite.open(tmp_path / "other")._open()))) == 0
        assert not (tmp_path / "other").exists()
    spawned = multiprocessing.get_context("spawn").Process(target=opens, args=(str(tmp_path / "other"),))
    spawned.start()
    spawned.join(60)
    assert spawned.exitcode == 0
    spawned.close()
    child = forked(lambda: opens(str(tmp_path / "third")))  # the parent's node is closed: nothing is held
    assert exit_code(child) == 0


def opens(folder: str) -> None:
    async def run() -> None:
        async with hiqlite.open(folder) as db:
            await db.execute(CREATE)
            assert await db.query("SELECT * FROM t") == []

    asyncio.run(run())


async def test_who_waits_in_the_forking_coroutine_is_told_in_the_child(tmp_path: Path) -> None:
    """Writes, reads on threads, iterations and rounds that were under way end with UsageError, there only."""
    async with hiqlite.open(tmp_path / "data") as db:
        await db.execute(CREATE)
        waiting: list[asyncio.Task[Any]] = [
            asyncio.create_task(written(db)),
            asyncio.create_task(db.query(ENDLESS, timeout=3)),
            asyncio.create_task(consume(db.query_iter(ENDLESS))),
            asyncio.create_task(db.query("SELECT 1", consistency="linearizable")),
            asyncio.create_task(db.closed()),
            asyncio.create_task(db.migrate({"1_a.sql": f"CREATE TABLE m AS {ENDLESS}"}, dry_run=True)),
        ]
        for _ in range(3):  # turns: each has begun to wait, the round of the linearizable read may be over
            await asyncio.sleep(0)
        while db._services.node.storage.db.rehearsals._waiting is None:
            await asyncio.sleep(0)
        waiting = [one for one in waiting if not one.done()]
        assert len(waiting) >= 5
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            os._exit(0 if all(isinstance(end, hiqlite.UsageError) for end in ends) else 1)
        assert exit_code(child) == 0
        assert not any(one.done() and isinstance(one.exception(), hiqlite.UsageError) for one in waiting)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_multiprocessing_forks_beside_a_node(tmp_path: Path) -> None:
    """Its children work, use the client in vain, and end well, with whatever exit code they chose."""
    context = multiprocessing.get_context("fork")
    async with hiqlite.open(tmp_path / "data") as db, loaded(db):

        def work(code: int) -> None:
            refused(lambda: db.execute(INSERT))
            refused(lambda: db.query("SELECT 1"))
            sys.exit(code)

        children = [context.Process(target=work, args=(code,)) for code in (0, 7)]
        for child in children:
            child.start()
        while any(child.is_alive() for child in children):
            await db.execute(INSERT)
        assert [child.exitcode for child in children] == [0, 7]
        for child in children:
            child.close()
    assert_sound(tmp_path / "data")


async def test_many_forks_at_any_moment_do_no_harm(tmp_path: Path) -> None:
    """From the loop's thread and from another one, under load, with every lock in any state: no child hangs."""
    chance = random.Random(7)
    settings = loopback_cluster(tmp_path, 1, {"cache_storage_disk": True})[1]

    def use(db: LocalClient) -> None:
        refused(lambda: db.execute(INSERT))
        refused(lambda: db.query(f"SELECT * FROM t, t, t LIMIT {chance.randrange(5)}"))

    async with hiqlite.open(settings) as db, loaded(db):
        children: list[int] = []
        for _ in range(40):
            children.append(forked(lambda: use(db)))
            for _ in range(chance.randrange(4)):
                await db.execute(INSERT)
        thread = threading.Thread(target=lambda: children.extend(forked(lambda: use(db)) for _ in range(20)))
        thread.start()
        while thread.is_alive():
            await db.execute(INSERT)
        thread.join()
        while children:
            child, status = os.waitpid(children[-1], os.WNOHANG)
            if child:
                assert os.waitstatus_to_exitcode(status) == 0
                children.pop()
            await db.execute(INSERT)
    assert_sound(Path(settings["data_dir"]))


LEAVES = """
import asyncio, os, signal, sys, hiqlite
from tests.cluster.interrupting import Interrupted
from hiqlite.transport.loopback import loopback_cluster
from pathlib import Path

folder, moment, at, way = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
children = []
done, tell = os.pipe()  # its end of file: the parent needs its loop no more, which the child is about to break

def fork(task):
    child = os.fork()
    if child:
        children.append(child)
        return
    signal.alarm(50)
    os.close(tell)
    os.read(done, 1)
    children.clear()
    if way == "exit":
        sys.exit(0)
    if way == "exec":
        os.execv(sys.executable, [sys.executable, "-c", "pass"])
    if way == "error":
        raise KeyboardInterrupt
    task.get_loop().stop()

async def main():
    settings = loopback_cluster(folder, 1, {"cache_storage_disk": True, "wal_size": "1 MiB"})[1]
    if moment == "open":
        db = await Interrupted(hiqlite.open(settings)._open(), at, fork)
    else:
        db = await hiqlite.open(settings)
    await db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, x)")
    if moment == "use":
        async with db.atomic() as block:
            block.execute("INSERT INTO t (x) VALUES (0)")
            fork(asyncio.current_task())
    for _ in range(20):
        await db.execute("INSERT INTO t (x) VALUES (1)")
    if moment == "stop":
        loop = asyncio.get_running_loop()
        from tests.cluster.interrupting import InterruptedTask
        loop.set_task_factory(InterruptedTask("Life._stop", at, fork))
    await db.shutdown()

pid = os.getpid()
try:
    asyncio.run(main())
except (KeyboardInterrupt, RuntimeError) as error:
    if os.getpid() == pid:
        raise
if os.getpid() == pid:
    assert children, "it never came to that await"
    os.close(tell)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0], codes
"""


WAYS = ("exit", "exec", "error", "stop")
MOMENTS = (("use", 0), ("open", 1), ("open", 3), ("open", 5), ("stop", 1), ("stop", 4), ("stop", 9))
# Each moment, each way, and a stop that has just begun in every way.
SLICE = {(moment, WAYS[number % 4]) for number, moment in enumerate(MOMENTS)} | {(("stop", 1), way) for way in WAYS}


@pytest.mark.parametrize(
    ("moment", "at", "way"),
    [pytest.param(*moment, way, marks=() if (moment, way) in SLICE else pytest.mark.long)
     for moment, way in itertools.product(MOMENTS, WAYS)],
)  # fmt: skip
def test_a_child_may_leave_through_the_loop_it_inherited(tmp_path: Path, moment: str, at: int, way: str) -> None:
    """Forked while the node opens, works or stops: the child's way out, clean-up of all tasks included, is clean.

    asyncio shares what wakes a loop with a forked child, and a child that closes the loop takes it from the parent: so
    it goes when the parent has gone.
    """
    run = subprocess.run(
        [sys.executable, "-c", LEAVES, str(tmp_path), moment, str(at), way],
        timeout=60, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and "Fatal" not in run.stderr, run.stderr

    async def look() -> None:
        settings = loopback_cluster(tmp_path, 1, {"cache_storage_disk": True, "wal_size": "1 MiB"})[1]
        async with hiqlite.open(settings) as db:
            assert await db.query_value("SELECT count(*) FROM t WHERE x = 1") == 20

    asyncio.run(look())


TOLD_TOGETHER = """
import asyncio, os, sys, types
from hiqlite._accel.batch import Op
from hiqlite._accel.pending import Pending

loop, parent = asyncio.new_event_loop(), os.getpid()
ops, pending = [Op(loop, lambda answer, index, detail: answer) for _ in range(2)], Pending()
run = types.SimpleNamespace(first=1, last=2, answer=lambda index: b"")

async def leave():
    await ops[0]
    if os.fork() == 0:
        sys.exit()

async def stay():
    await ops[1]
    print("told", "in the parent" if os.getpid() == parent else "in a child", flush=True)

async def main():
    pending.add(1, ops)
    tasks = [asyncio.create_task(leave()), asyncio.create_task(stay())]
    await asyncio.sleep(0)
    loop.call_soon(pending.complete, 2, run)
    await asyncio.gather(*tasks)

try:
    loop.run_until_complete(main())
except SystemExit:
    os._exit(0)
os.wait()
"""


def test_a_child_that_leaves_while_results_are_told_tells_nobody() -> None:
    """It was forked by one who was told: the others wait in the parent, and are told there alone."""
    command = [sys.executable, "-c", TOLD_TOGETHER]
    run = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "told in the parent\n"), run.stderr
