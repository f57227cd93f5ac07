"""Two first starts, each told to go on without the other's nodes: what became of the rule that one set acts."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.transport.loopback import loopback_cluster
from tests.healing.patients import until
from tests.waiting import moment

TABLES = "SELECT name FROM sqlite_schema WHERE name IN ('first', 'second')"


async def told(client: LocalClient, other: int) -> None:
    """It says that the other node belongs to another cluster."""
    found: list[str] = []

    async def said() -> bool:
        found[:] = (await client.metrics()).node["split_brain"]
        return any(f"node {other} belongs to another cluster" in one for one in found)

    async with asyncio.timeout(20):
        while not await said():
            await moment()


async def test_what_formed_apart_stays_apart_and_says_so(tmp_path: Path) -> None:
    """Neither takes anything of the other; the majority goes on, the other one is not ready. Emptied, it joins."""
    settings = loopback_cluster(tmp_path, 3, {"cache": False, "wal_size": "8 MiB"})
    first = await hiqlite.open(settings[1], form_without=(2, 3))
    await first.execute("CREATE TABLE first (x)")
    await first.shutdown()
    pair = await asyncio.gather(*(hiqlite.open(settings[number], form_without=(1,)) for number in (2, 3)))
    await pair[0].execute("CREATE TABLE second (x)")
    first = await hiqlite.open(settings[1])
    try:
        await told(first, 2)
        for client in pair:
            await told(client, 1)
        assert not await first.is_ready()
        await pair[1].execute("INSERT INTO second VALUES (1)")
        assert [tuple(row) for row in await first.query(TABLES)] == [("first",)]
        for client in pair:
            assert [tuple(row) for row in await client.query(TABLES, consistency="linearizable")] == [("second",)]
            assert (await client.metrics()).db.members == (2, 3)
        await first.shutdown()
        shutil.rmtree(settings[1]["data_dir"])
        first = await hiqlite.open(settings[1])
        assert await first.query_value("SELECT count(*) FROM second", consistency="linearizable") == 1
        await until(lambda: len(first._services.node.members.members()) == 3)
    finally:
        await asyncio.gather(*(client.shutdown() for client in (first, *pair)))
