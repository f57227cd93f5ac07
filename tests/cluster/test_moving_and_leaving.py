"""Members that move to other addresses, and members that were removed: who is dialled, and what those left out say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import hiqlite
from tests.cluster.growing import Growing, growing


def dialled(nodes: Growing, number: int) -> set[int]:
    """Whom a node dials now."""
    network = nodes.running[number].network
    assert network is not None
    return {peer_id for peer_id, peer in network._peers.items() if peer._wanted.is_set()}


@pytest.mark.parametrize("moved", ["a follower", "the leader"])
async def test_a_node_that_starts_at_another_address_is_found(tmp_path: Path, moved: str) -> None:
    """The others' configs name the old one; they learn the new one, keep it, and name it to each other."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        old = nodes.config(1, (1, 2, 3)).nodes
        one = nodes.leader if moved == "the leader" else next(one for one in (1, 2, 3) if one != nodes.leader)
        others = [number for number in (1, 2, 3) if number != one]
        await nodes.stop(one)
        nodes.move(one)
        await nodes.start(one, (1, 2, 3), wait=True)
        await nodes.members({1, 2, 3}, set())
        await nodes.check_equal()
        for number in others:
            reached = nodes.running[number].network.epochs
            await nodes.wait_until(lambda reached=reached, number=number: set(reached()) == {1, 2, 3} - {number})
            shown = {each.id: (each.raft_addr, each.api_addr) for each in await nodes.client(number).members()}
            assert shown == {each: nodes.addresses(each) for each in (1, 2, 3)}
        for number in others:  # with their old configs: what they heard is kept
            await nodes.stop(number)
            await nodes.start(number, (1, 2, 3), nodes=old)
            await nodes.members({1, 2, 3}, set())
        await nodes.check_equal()


async def test_all_nodes_move_at_once(tmp_path: Path) -> None:
    """Each has the new addresses in its config, and the old ones in its memory."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        for number in (1, 2, 3):
            await nodes.stop(number)
        for number in (1, 2, 3):
            nodes.move(number)
        await asyncio.gather(*(nodes.start(number, (1, 2, 3), wait=True) for number in (1, 2, 3)))
        await nodes.members({1, 2, 3}, set())
        await nodes.check_equal()


async def test_two_nodes_that_changed_places_find_each_other(tmp_path: Path) -> None:
    """At the address of the one the other one answers: the handshake tells them apart."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        for number in (1, 2):
            await nodes.stop(number)
        nodes.ports[1], nodes.ports[2] = nodes.ports[2], nodes.ports[1]
        await asyncio.gather(*(nodes.start(number, (1, 2, 3), wait=True) for number in (1, 2)))
        await nodes.members({1, 2, 3}, set())
        await nodes.check_equal()
        assert {one.id: one.raft_addr for one in await nodes.client(3).members()}[1] == nodes.addresses(1)[0]


async def test_a_node_that_moved_and_lost_its_disk_comes_back(tmp_path: Path) -> None:
    """Its word is as good as new, though what the others remember of it is older and stamped the same."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.kill(2)
        nodes.lose(2)
        old = nodes.config(1, (1, 2, 3)).nodes
        nodes.move(2)
        await nodes.start(2, (1, 2, 3), wait=True)
        await nodes.members({1, 2, 3}, set())
        await nodes.check_equal()
        for number in (1, 3):
            assert {one.id: one.raft_addr for one in await nodes.client(number).members()}[2] == nodes.addresses(2)[0]
            assert nodes.running[number].config.nodes == old


async def test_a_removed_node_is_not_dialled_and_does_not_come_back_by_itself(tmp_path: Path) -> None:
    """It stops; started again, with its folder or an empty one, it waits and says why; a command brings it back."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        gone = nodes.client(3)
        await nodes.client(1).remove_member(3)
        await asyncio.wait_for(gone.closed(), 20)
        for call in (gone.execute("SELECT 1"), gone.query("SELECT 1", consistency="linearizable")):
            with pytest.raises(hiqlite.ShuttingDown, match="node 3 was removed"):
                await call
        await nodes.stop(3)
        for number in (1, 2):  # a restart changes nothing: it stands in the log, not in the config
            await nodes.stop(number)
            await nodes.start(number, (1, 2, 3))
            await nodes.members({1, 2}, set())
        assert dialled(nodes, 1) == {2} and dialled(nodes, 2) == {1}
        await nodes.start(3, (1, 2, 3))
        await nodes.check_removed(3)
        await nodes.stop(3)
        nodes.lose(3)
        await nodes.start(3, (1, 2, 3))
        await nodes.wait_until(lambda: "was removed" in nodes.running[3].members.standing)
        await nodes.members({1, 2}, set(), 1, 2)
        await nodes.client(2).add_learner(3, *nodes.addresses(3))
        await nodes.members({1, 2}, {3})
        await nodes.client(3).promote(3)
        await nodes.members({1, 2, 3}, set())
        await nodes.check_equal()
        assert dialled(nodes, 1) == {2, 3}


async def test_a_removed_node_comes_back_with_what_it_has(tmp_path: Path) -> None:
    """Its folder is that of the same cluster: it goes on from there."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        await nodes.client(1).remove_member(3)
        await asyncio.wait_for(nodes.client(3).closed(), 20)
        await nodes.stop(3)
        await nodes.start(3, (1, 2, 3))
        await nodes.check_removed(3)
        before = nodes.running[3].groups[0].group.identity
        await nodes.client(1).add_learner(3, *nodes.addresses(3))
        await nodes.client(1).promote(3)
        await nodes.members({1, 2, 3}, set())
        assert nodes.running[3].groups[0].group.identity == before and not nodes.running[3].members.standing
        await nodes.check_equal()


async def test_a_node_that_was_removed_while_it_was_down_is_told_so(tmp_path: Path) -> None:
    """It believes that it votes; the others go on undisturbed, in the same term."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).transfer_leadership(1)
        await nodes.stop(3)
        await nodes.client(2).remove_member(3)
        await nodes.members({1, 2}, set())
        term = nodes.running[1].group.engine.term
        await nodes.start(3, (1, 2, 3))
        await nodes.check_removed(3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        assert nodes.running[1].group.engine.term == term
        await nodes.stop(3)
        await nodes.check_equal()


async def test_the_folder_of_a_removed_node_founds_no_second_cluster(tmp_path: Path) -> None:
    """Neither alone by its path nor with others under a new config."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).remove_member(3)
        await asyncio.wait_for(nodes.client(3).closed(), 20)
        await nodes.stop(3)
        with pytest.raises(hiqlite.ConfigError, match="cluster of the nodes 1, 2"):
            await asyncio.wait_for(hiqlite.open(tmp_path / "node3", node_id=3)._open(), 20)
        await nodes.start(4, (3, 4))
        await nodes.start(3, (3, 4))
        await nodes.check_removed(3)
        await nodes.wait_until(lambda: nodes.running[3].network.connected(4))
        assert not nodes.running[4].group.started and not nodes.running[3].group.leads


async def test_a_dead_node_is_removed(tmp_path: Path) -> None:
    """Nobody has to hear of it; the majority of the rest decides from then on."""
    async with growing(tmp_path) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.kill(3)
        await nodes.client(1).remove_member(3)
        await nodes.members({1, 2}, set())
        await nodes.client(2).remove_member(nodes.leader)
        await nodes.wait_until(lambda: any(node.closed.is_set() for node in nodes.running.values()))
        rest = next(number for number in (1, 2) if not nodes.running[number].closed.is_set())
        await nodes.client(rest).execute("CREATE TABLE t (x)")


async def test_a_node_that_came_back_empty_reads_of_its_removal_and_stays(tmp_path: Path) -> None:
    """Its log tells of it before it tells that it was let in again."""
    async with growing(tmp_path, raft_frame_bytes_max="1 KiB", raft_window_frames=1, cache=False) as nodes:
        await nodes.form(1, 2, 3)
        await nodes.client(1).execute("CREATE TABLE t (x)")
        await nodes.client(1).remove_member(3)
        await asyncio.wait_for(nodes.client(3).closed(), 20)
        await nodes.stop(3)
        nodes.lose(3)
        rows = [nodes.client(1).execute("INSERT INTO t VALUES (?)", ["x" * 1000]) for _ in range(1000)]
        await asyncio.gather(*rows)
        await nodes.start(3, (1, 2, 3))
        await nodes.client(1).add_learner(3, *nodes.addresses(3))
        await nodes.client(1).promote(3)
        await nodes.members({1, 2, 3}, set())
        await nodes.check_equal()
        assert not nodes.running[3].closed.is_set()
