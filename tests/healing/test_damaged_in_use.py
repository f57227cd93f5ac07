"""A database whose pages go bad under a running node: nobody is given wrong rows, and the next start heals it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.node import Node
from hiqlite.testing import cluster
from tests.cluster.agreement import check_equal
from tests.healing.patients import take_back, until

SETTINGS = {"cache": False, "wal_size": "1 MiB"}
INSERT = "INSERT INTO t VALUES (?, 'whole', randomblob(3000))"
# By another process: closing a descriptor of the file would drop this one's locks.
SPOIL = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY)
for page in range(10, os.fstat(descriptor).st_size // 4096):
    os.pwrite(descriptor, b"spoilt" * 20, page * 4096)
"""


async def spoil(node: Node) -> None:
    """All is in the database file, and no reader has looked at it yet."""
    writer = node.storage.db.writer
    writer.make_durable()
    await until(lambda: writer.durable_index == writer.applied_index)
    subprocess.run([sys.executable, "-c", SPOIL, str(node.storage.db.database)], check=True)


async def check_refuses(db: LocalClient) -> None:
    """What a caller of a damaged member is told, whatever he asks of the database."""
    for read in (
        db.query("SELECT text FROM t"),
        db.query("SELECT text FROM t", consistency="session"),
        db.query("SELECT text FROM t", consistency="linearizable"),
        anext(aiter(db.query_iter("SELECT text FROM t"))),
    ):
        with pytest.raises(hiqlite.SnapshotCorruption, match="malformed") as caught:
            await read
        assert caught.value.outcome is None and "starts again" in caught.value.hint and not caught.value.retryable
    for write in (
        db.execute("INSERT INTO t VALUES (1000, '', '')"),
        db.execute("INSERT INTO t VALUES (1000, '', '')", request_id="refused"),
        db.execute_many(INSERT, [(1000,)]),
        db.execute_returning(f"{INSERT} RETURNING id", (1000,)),
        db.txn([(INSERT, (1000,))]),
        db.batch("INSERT INTO t VALUES (1000, '', '')"),
        db.migrate({"1_refused.sql": "DROP TABLE t"}),
    ):
        with pytest.raises(hiqlite.SnapshotCorruption, match="malformed") as refused:
            await write
        assert refused.value.outcome == "not_applied" and not refused.value.retryable


@pytest.mark.parametrize("role", ["leader", pytest.param("follower", marks=pytest.mark.long)])
async def test_a_member_says_so_and_is_filled_by_the_others_when_it_starts_again(tmp_path: Path, role: str) -> None:
    """Whether a read finds it: the node takes no part from then on, and its writes are refused."""
    async with cluster(3, base_dir=tmp_path, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text, filler)")
        last = await three.client.execute_many(INSERT, [(number,) for number in range(100)])
        number = three.leader if role == "leader" else three.followers[0]
        patient = three._running[number]
        await patient.group.until_applied(last[-1].log_index)
        await spoil(patient)
        with pytest.raises(hiqlite.SnapshotCorruption) as caught:
            await patient.client.query("SELECT text FROM t")
        assert caught.value.outcome is None and "starts again" in caught.value.hint
        await check_refuses(patient.client)
        await three.wait_until(lambda: three.leader not in (0, number))
        await three.client.execute("INSERT INTO t VALUES (1001, 'whole', '')")
        before = patient.storage.db.database
        await three.kill(number)
        await three.start(number)
        patient = three._running[number]
        assert patient.storage.db.database != before
        await take_back({key: node for key, node in three._running.items() if key != number}, patient)
        await three.wait_until(three.settled)
        await check_equal(three)
        assert await patient.client.query("SELECT DISTINCT text FROM t") == [("whole",)]


async def test_a_member_that_finds_it_while_it_applies_does_the_same(tmp_path: Path) -> None:
    """What it cannot apply it has not acknowledged as applied; the others have it."""
    async with cluster(3, base_dir=tmp_path, **SETTINGS) as three:
        await three.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text, filler)")
        last = await three.client.execute_many(INSERT, [(number,) for number in range(100)])
        number = three.followers[0]
        await three._running[number].group.until_applied(last[-1].log_index)
        await three.stop(number)
        await three.start(number)  # its caches are empty
        patient = three._running[number]
        await patient.groups[0].until_leader()
        await spoil(patient)
        await three.client.execute("UPDATE t SET text = 'changed'")
        await three.wait_until(lambda: patient.group.failure is not None)
        assert isinstance(patient.group.failure, hiqlite.SnapshotCorruption)
        await check_refuses(patient.client)
        await three.kill(number)
        await three.start(number)
        patient = three._running[number]
        await take_back({key: node for key, node in three._running.items() if key != number}, patient)
        await three.wait_until(three.settled)
        await check_equal(three)
        assert await patient.client.query("SELECT DISTINCT text FROM t") == [("changed",)]


async def test_a_node_that_is_alone_says_so_and_answers_what_it_can(tmp_path: Path) -> None:
    """Nobody else has its data: it stays up for what can still be read."""
    node = await Node.start(hiqlite.NodeConfig.from_mapping({"data_dir": str(tmp_path), **SETTINGS}))
    try:
        await node.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text, filler)")
        await node.client.execute("CREATE TABLE u (x)")
        await node.client.execute("INSERT INTO u VALUES ('whole')")
        await node.client.execute_many(INSERT, [(number,) for number in range(100)])
        await spoil(node)
        with pytest.raises(hiqlite.SnapshotCorruption):
            await node.client.query("SELECT text FROM t")
        assert node.group.failure is None
        assert await node.client.query("SELECT x FROM u", consistency="linearizable") == [("whole",)]
    finally:
        await node.shutdown()
