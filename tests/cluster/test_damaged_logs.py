"""Entries that a disk gives back damaged: exactly they come back from the other nodes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal

NEEDLE = "a body that stands once in the log"


def damage(folder: Path) -> int:
    """Flips a bit of the needle in the log below `folder`; how often it stood there."""
    found = 0
    for path in sorted(folder.rglob("log/*/*.wal")):
        data = bytearray(path.read_bytes())
        at = data.find(NEEDLE.encode())
        if at >= 0:
            found += 1
            data[at] ^= 1
            path.write_bytes(data)
    return found


def engine(three: Cluster, number: int):
    return three._running[number].group.engine


async def test_a_follower_gets_back_what_its_disk_lost(tmp_path: Path) -> None:
    """It takes part meanwhile, its log is whole afterwards, and can bring others up to date."""
    async with cluster(3, base_dir=tmp_path, cache=False, wal_size="1 MiB") as three:
        await three.client.execute("CREATE TABLE t (x)")
        await three.client.execute("INSERT INTO t VALUES ('before')")
        index = (await three.client.execute("INSERT INTO t VALUES (?)", [NEEDLE])).log_index
        for number in range(50):
            await three.client.execute("INSERT INTO t VALUES (?)", [number])
        one = three.followers[0]
        await three.wait_until(lambda: engine(three, one).applied_index >= index + 50)
        folder = Path(three._configs[one].data_path)
        await three.kill(one)
        assert damage(folder) == 1
        await three.start(one)
        node = three._running[one]
        assert node.storage.db.recovered.faulty == ((index, index),)
        await three.client.execute("INSERT INTO t VALUES ('while it mends')")
        await three.wait_until(lambda: node.group.started and not engine(three, one).faulty)
        async with asyncio.timeout(10):
            last, records = await node.storage.db.log.read(index, 1)
        assert last == index and NEEDLE.encode() in records
        await three.kill(one)
        await three.start(one)
        assert three._running[one].storage.db.recovered.faulty == ()
        await three.wait_until(three.settled)
        await check_equal(three)
