"""A majority lost for good: a survivor goes on as another cluster, and nobody of the old one takes part in it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

import hiqlite
from hiqlite.logstore.meta import Meta
from hiqlite.node_recovery import RecoveryReport, recover
from hiqlite.server.recover import lines
from hiqlite.transport.listener import ApiListener
from tests.cluster.growing import Growing, growing

ALL = (1, 2, 3)


async def three_with_data(nodes: Growing, rows: int = 50) -> None:
    await nodes.form(*ALL)
    await nodes.members(set(ALL), set())
    await nodes.client(1).execute("CREATE TABLE t (x)")
    await nodes.client(1).execute_many("INSERT INTO t VALUES (?)", [(number,) for number in range(rows)])


async def report(nodes: Growing, number: int, *, write: bool = False) -> RecoveryReport:
    return await recover(nodes.config(number, ALL), write=write)


@pytest.mark.parametrize("settings", [{}, {"cache_storage_disk": False}, {"cache": False}])
async def test_a_survivor_goes_on_and_empty_nodes_join_it(tmp_path: Path, settings: dict[str, object]) -> None:
    """With all that it had; under another id; with voters again in the end, in both groups."""
    async with growing(tmp_path, **settings) as nodes:
        await three_with_data(nodes)
        before = nodes.running[1].storage.meta.cluster_id
        for number in ALL:
            await nodes.kill(number)
        for number in (2, 3):
            nodes.lose(number)
        looked = await report(nodes, 1)
        assert (looked.voters, looked.alive, looked.refusal, looked.new_cluster_id) == (ALL, (), "", "")
        done = await report(nodes, 1, write=True)
        assert bytes.fromhex(done.cluster_id) == before and done.new_cluster_id not in ("", done.cluster_id)
        one = await nodes.start(1, ALL, wait=True)
        assert await one.query_value("SELECT count(*) FROM t", consistency="linearizable") == 50
        await nodes.members({1}, set())
        await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in (2, 3)))
        await nodes.members(set(ALL), set())
        assert {node.storage.meta.cluster_id.hex() for node in nodes.running.values()} == {done.new_cluster_id}  # type: ignore[union-attr]  # None fails the test
        await nodes.check_equal()
        for number in ALL:
            await nodes.stop(number)
        await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in ALL))
        await nodes.check_equal()


async def test_the_rest_of_the_old_cluster_does_not_mix_with_the_new_one(tmp_path: Path) -> None:
    """It was not lost after all: it goes on without the one that was recovered; both refuse each other."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        for number in ALL:
            await nodes.stop(number)
        await report(nodes, 1, write=True)
        await nodes.start(1, ALL, wait=True)
        await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in (2, 3)))
        await nodes.client(1).execute("INSERT INTO t VALUES ('new')")
        await nodes.client(2).execute("INSERT INTO t VALUES ('old')")
        await nodes.wait_until(lambda: nodes.running[2].network.refusals.counts["cluster"] > 0)
        await nodes.members({1}, set(), 1)
        await nodes.members(set(ALL), set(), 2, 3)
        assert await nodes.client(1).query_value("SELECT count(*) FROM t WHERE x = 'old'") == 0
        assert await nodes.client(3).query_value("SELECT count(*) FROM t WHERE x = 'new'") == 0
        await nodes.stop(2)  # its operator gives the old cluster up: empty, it joins the new one
        nodes.lose(2)
        await nodes.stop(3)
        await nodes.start(2, ALL, wait=True)
        await nodes.members({1, 2}, set())


async def test_two_survivors_that_are_both_recovered_are_two_clusters(tmp_path: Path) -> None:
    """Even from copies of one folder: neither takes anything from the other."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        for number in ALL:
            await nodes.stop(number)
        ids = {(await report(nodes, number, write=True)).new_cluster_id for number in (1, 2)}
        assert len(ids) == 2
        for number in (1, 2):
            await nodes.start(number, ALL, wait=True)
        await nodes.wait_until(lambda: nodes.running[1].network.refusals.counts["cluster"] > 0)
        await nodes.members({1}, set(), 1)
        await nodes.members({2}, set(), 2)


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_who_only_looks_changes_no_file(tmp_path: Path, end: str) -> None:
    """Not even what a start would tidy up, nor what a kill left half done: it may be the last copy of anything."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        for number in ALL:
            await (nodes.kill if end == "kill" else nodes.stop)(number)
        folder = Path(nodes.config(1, ALL).data_path)
        (folder / "db" / "0123456789abcdef").mkdir()
        (folder / "db" / "images" / "in-x.db").write_text("left over")

        def files() -> dict[Path, bytes | None]:
            return {one: one.read_bytes() if one.is_file() else None for one in folder.rglob("*") if one.name != "lock"}

        before = files()
        assert (await report(nodes, 1)).refusal == ""
        assert files() == before


async def test_a_cache_group_that_is_damaged_is_given_up(tmp_path: Path) -> None:
    """The database is what is recovered; the report says what went, and both groups take part again."""
    async with growing(tmp_path, cache_storage_disk=True) as nodes:
        await three_with_data(nodes)
        # Before there was a leader, and a log, nothing of the cache's can be lost.
        await nodes.wait_until(lambda: all(one.group.leader_id for one in nodes.running[1].groups.values()))
        for number in ALL:
            await nodes.stop(number)
        shutil.rmtree(Path(nodes.config(1, ALL).data_path) / "log" / "cache")
        done = await report(nodes, 1, write=True)
        assert any("cache" in one for one in done.missing), done
        for number in (2, 3):
            nodes.lose(number)
        await asyncio.gather(*(nodes.start(number, ALL, wait=True) for number in ALL))
        await nodes.members(set(ALL), set())
        await nodes.check_equal()


async def test_what_needs_no_recovery_is_not_recovered(tmp_path: Path) -> None:
    """The majority lives; a node is alone; a folder is in use, or nobody's. Nothing is written."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        with pytest.raises(hiqlite.DataFolderInUse):
            await report(nodes, 1, write=True)
        await nodes.stop(1)
        with pytest.raises(hiqlite.UsageError, match="majority of the voters lives"):
            await report(nodes, 1, write=True)
        await nodes.start(1, ALL, wait=True)
        await nodes.check_equal()
        with pytest.raises(hiqlite.UsageError, match="no cluster"):
            await recover(nodes.config(4, (1, 2, 3, 4)), write=True)
        await nodes.client(1).set_voters([1])
        await nodes.members({1}, set(), 1)
        await nodes.stop(1)
        with pytest.raises(hiqlite.UsageError, match="only voter"):
            await report(nodes, 1, write=True)


async def moved_to_4_and_5(nodes: Growing) -> None:
    """By command: the config of node 1 still names those that were taken out."""
    await three_with_data(nodes)
    for number in (4, 5):
        await nodes.start(number, (number, 1))
        await nodes.client(1).add_learner(number, *nodes.addresses(number))
    await nodes.client(1).set_voters([1, 4, 5])
    await nodes.members({1, 4, 5}, set(), 1, 4, 5)


async def test_members_that_only_a_command_named_are_asked_too(tmp_path: Path) -> None:
    """The majority lives at addresses that no config here says: it is not given up."""
    async with growing(tmp_path) as nodes:
        await moved_to_4_and_5(nodes)
        await nodes.stop(1)
        looked = await report(nodes, 1)
        assert (looked.voters, looked.voting, looked.not_asked) == ((1, 4, 5), (4, 5), ())
        with pytest.raises(hiqlite.UsageError, match="majority of the voters lives"):
            await report(nodes, 1, write=True)


async def test_who_could_not_be_asked_is_named(tmp_path: Path) -> None:
    """Where a member is may be known to nobody here: that is not the same as a member that does not answer."""
    async with growing(tmp_path) as nodes:
        await moved_to_4_and_5(nodes)
        await nodes.stop(1)
        meta = Meta.open(Path(nodes.config(1, ALL).data_path) / "meta")
        meta.set_addresses([])
        meta.close()
        looked = await report(nodes, 1)
        assert (looked.voting, looked.not_asked) == ((), (4, 5))
        assert any("not asked, address unknown: 4, 5" in line for line in lines(looked))


@pytest.mark.parametrize(
    ("said", "counts"), [({"node": [2, 7]}, False), ({}, True), ({"node": [2, 7], "index": 1 << 40}, True)]
)
async def test_who_began_anew_under_the_id_of_a_voter_is_none(
    tmp_path: Path, said: dict[str, object], counts: bool
) -> None:
    """It has nothing, and its vote is another one's: the survivor is not sent to wait for it. One of an earlier release
    does not say who it is, and counts; so does one that votes by members that are newer than those known here."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        config, cluster_id = nodes.config(2, ALL), nodes.running[1].storage.meta.cluster_id
        for number in ALL:
            await nodes.stop(number)
        members = [{"id": one, "role": "voter", "raft_addr": "", "api_addr": ""} for one in ALL]
        word = {"index": 0, "cluster_id": cluster_id, "members": members, "voters": [[1, 1], [2, 7], [3, 1]], **said}

        async def answer(_client: int, _payload: object) -> object:
            return word

        _, port = nodes.ports[2]
        listener = ApiListener("127.0.0.1", port, config.secret_api or "", {"members": answer}, node_id=2)
        await listener.start()
        try:
            looked = await report(nodes, 1)
        finally:
            await listener.close()
        assert (looked.voters, looked.alive, looked.voting) == (ALL, (2,), (2,) if counts else ())
        assert bool(looked.refusal) == counts


async def test_the_report_says_who_has_more(tmp_path: Path) -> None:
    """Of two survivors the one that was away for longer ends earlier; what is not known to be committed counts too."""
    async with growing(tmp_path) as nodes:
        await three_with_data(nodes)
        away = next(number for number in ALL if number != nodes.leader)
        await nodes.stop(away)
        leader = nodes.leader
        for number in range(20):
            await nodes.client(leader).execute("INSERT INTO t VALUES (?)", [number])
        other = next(number for number in ALL if number not in (away, leader))
        await nodes.stop(other)
        with pytest.raises(hiqlite.HiqliteError):  # it stands in the leader's log, and nobody else has it
            await nodes.client(leader).execute("INSERT INTO t VALUES ('uncertain')", timeout=0.3)
        await nodes.kill(leader)
        reports = {number: await report(nodes, number) for number in ALL}
        assert reports[away].last_index < reports[other].last_index < reports[leader].last_index
        assert reports[leader].uncertain > 0
        assert all(one.refusal == "" for one in reports.values())
        await report(nodes, leader, write=True)
        one = await nodes.start(leader, ALL, wait=True)
        assert await one.query_value("SELECT count(*) FROM t") == 50 + 20 + 1
