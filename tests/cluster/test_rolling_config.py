"""A cluster that is restarted one by one with another config, as an operator does it, while clients write."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.cluster.growing import growing


async def test_a_cluster_grows_by_a_rolling_restart_under_load(tmp_path: Path) -> None:
    """From three to five, the new config rolled out node by node: no write fails, and everybody votes in the end."""
    three, five = (1, 2, 3), (1, 2, 3, 4, 5)
    async with growing(tmp_path) as nodes:
        await nodes.form(*three)
        await nodes.members(set(three), set())
        await nodes.client(1).execute("CREATE TABLE t (x)")
        stop, written = asyncio.Event(), 0

        async def write() -> None:
            nonlocal written
            while not stop.is_set():
                await nodes.client(3).execute("INSERT INTO t VALUES (?)", [written])
                written += 1

        writing = asyncio.create_task(write())
        for number in (4, 5):  # they come first, and wait until somebody knows them
            await nodes.start(number, five)
        for number in (1, 2):
            await nodes.stop(number)
            await nodes.start(number, five, wait=True)
        await nodes.members(set(five), set())
        stop.set()
        await writing
        assert written > 0
        assert await nodes.client(5).query_value("SELECT count(*) FROM t", consistency="linearizable") == written
        await nodes.check_equal()


async def test_a_node_that_leaves_the_config_stays_a_member_until_it_is_removed(tmp_path: Path) -> None:
    """The config never takes anybody out: a file that was rolled out by half does no harm."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.members({1, 2, 3}, set())
        for number in (1, 2):
            await nodes.stop(number)
            await nodes.start(number, (1, 2), wait=True)
        await nodes.members({1, 2, 3}, set())
        await nodes.check_equal()
        await nodes.stop(3)
        await nodes.start(3, (1, 2, 3), wait=True)
        await nodes.check_equal()
        await nodes.client(1).remove_member(3)
        await nodes.members({1, 2}, set(), 1, 2)
