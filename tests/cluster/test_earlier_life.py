"""A folder of an earlier life of its node: its volume was not mounted at one start, and is there again at the next."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import hiqlite
from hiqlite.engine.change import members_of
from hiqlite.logstore.folder import DB
from hiqlite.node import Node
from tests.cluster.growing import Growing, growing

ALL = (1, 2, 3)
WHY = "earlier life of node 3"


async def replaced(nodes: Growing) -> None:
    """Node 3 was taken back with an empty folder and wrote; the folder that it had before lies in `volume`."""
    await nodes.form(*ALL)
    await nodes.members(set(ALL), set())
    await nodes.client(1).execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    await nodes.stop(3)
    (nodes.folder / "node3").rename(nodes.folder / "volume")
    await nodes.start(3, ALL)
    await nodes.members(set(ALL), set())
    await nodes.client(3).execute("INSERT INTO t VALUES (1)")


async def put_back(nodes: Growing) -> None:
    await nodes.stop(3)
    nodes.lose(3)
    (nodes.folder / "volume").rename(nodes.folder / "node3")


async def test_it_says_so_and_stops_and_the_next_start_fetches_everything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody sends it anything any more, so it would wait for ever: it is told, once a majority confirms it. Nothing of
    the folder is used; it is put aside, and removed when the node has all that is committed."""
    async with growing(tmp_path) as nodes:
        await replaced(nodes)
        await put_back(nodes)
        await nodes.start(3, ALL)
        old = nodes.running[3].storage.incarnations
        await nodes.wait_until(nodes.running[3].closed.is_set)
        assert sum(WHY in record.message and "it stops" in record.message for record in caplog.records) == 1
        await nodes.stop(3)
        await nodes.start(3, ALL)
        now = nodes.running[3].storage.incarnations
        assert all(now[group] != old[group] for group in now)
        await nodes.members(set(ALL), set())
        assert await nodes.client(3).query_value("SELECT count(*) FROM t", consistency="linearizable") == 1
        await nodes.check_equal()
        await nodes.wait_until(lambda: not (tmp_path / "node3" / "aside").exists())
        await nodes.stop(3)
        await nodes.start(3, ALL)  # it is who it is from then on
        assert nodes.running[3].storage.incarnations[DB] == now[DB]
        await nodes.members(set(ALL), set())


async def test_who_waits_for_the_node_to_be_open_is_told(tmp_path: Path) -> None:
    """As an application or `hiqlite serve` opens it: the call ends with the reason, and the next one succeeds."""
    async with growing(tmp_path) as nodes:
        await replaced(nodes)
        await put_back(nodes)
        with pytest.raises(hiqlite.ShuttingDown, match=WHY):
            await nodes.start(3, ALL, wait=True)
        await nodes.start(3, ALL, wait=True)
        assert await nodes.client(3).query_value("SELECT count(*) FROM t", consistency="linearizable") == 1


async def test_it_is_given_up_only_where_a_majority_can_fill_the_node_again(tmp_path: Path) -> None:
    """One of two others is down: the folder may be all that is left of the cluster. The node waits, and says for what;
    it goes on when a majority is there."""
    async with growing(tmp_path) as nodes:
        await replaced(nodes)
        await put_back(nodes)
        await nodes.stop(2)
        await nodes.start(3, ALL)
        node = nodes.running[3]
        await nodes.wait_until(lambda: WHY in node.members.standing)
        assert any(WHY in reason for reason in node.health().reasons)
        end = node.members._end
        assert end._replaced is not None and not await end._majority_says(end._replaced)
        assert not node.closed.is_set() and not node.storage.meta.replaced(DB)
        await nodes.start(2, ALL)
        await nodes.wait_until(node.closed.is_set)


async def test_who_lives_now_is_not_replaced_by_it(tmp_path: Path) -> None:
    """The old folder is started somewhere else, beside the node that took its place: that one keeps its place and its
    data, and the other one is not let in."""
    async with growing(tmp_path) as nodes:
        await replaced(nodes)
        there, living = nodes.ports[3], nodes.running[3]
        nodes.move(3)
        shutil.copytree(tmp_path / "volume", tmp_path / "twin")
        twin = await Node.start(nodes.config(3, ALL, data_dir=str(tmp_path / "twin")), wait=False)
        nodes.ports[3] = there
        try:
            networks = [nodes.running[number].network for number in (1, 2)]
            await nodes.wait_until(lambda: all(network.refusals.counts["double"] > 3 for network in networks))
            for number in ALL:
                await nodes.client(number).execute("INSERT INTO t VALUES (?)", [10 + number])
                members = members_of(nodes.running[number].group.engine.membership)
                assert living.storage.db.identity in members and twin.storage.db.identity not in members
        finally:
            await twin.shutdown()
        assert not living.closed.is_set() and not living.storage.meta.replaced(DB)
        await nodes.check_equal()
