"""Members that move to other ports, one that has the data of another cluster, and a second process on a member's
folder, on real processes under load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import CREATE, HERE, Member, Members, acknowledged, begin_load, noted

from hiqlite.transport.loopback import HOST, hold_ports

LISTENS = HERE.parent / "cluster" / "retrying.py"  # ready as soon as it listens, member of something or not
WAIT_S = 1.0  # of a call that nobody answers

pytestmark = pytest.mark.timeout(180)


@contextmanager
def new_lines(numbers: Sequence[int]) -> Iterator[dict[int, str]]:
    """What configs may say of these members from now on: ports that are nobody else's."""
    with hold_ports(2 * len(numbers)) as held:
        ports = iter(held)
        yield {number: f"{number} {HOST}:{next(ports)} {HOST}:{next(ports)}" for number in numbers}


async def test_members_move_one_by_one_while_writes_go_on(tmp_path: Path) -> None:
    """Each changes its own line in its own config, and is restarted; the others hear of it from the node itself."""
    async with Members(tmp_path) as members:
        await members.start_with_table()
        files: list[Path] = []
        with new_lines(range(1, 4)) as lines:
            for number, member in members.all.items():
                others = [other for other in members.all if other != number]
                await member.stop()
                files += await begin_load(members, 4)
                nodes = list(member.config["nodes"])
                nodes[number - 1] = lines[number]
                member.config["nodes"] = nodes
                await acknowledged(files, 200 * number)
                await members.start(number)
                await acknowledged(files, noted(files) + 100)
                assert await members.end_load() == {other: {} for other in others}
            for number, member in members.all.items():
                await member.do(do="execute", sql="INSERT INTO load VALUES (?, 0, '')", params=[-number])
            await members.check_after_load(*files)
            await members.in_order()
            for member in members.all.values():  # each knows where the others are now, whatever its config says
                await member.stop()
                await members.start(member.config["node_id"])
            await members.check_equal()
            await members.in_order()


async def test_all_members_come_back_with_new_ports_in_every_config(tmp_path: Path) -> None:
    """Stopped under load, all at once: what was acknowledged is there, nothing is rebuilt, no new call fails."""
    async with Members(tmp_path) as members:
        await members.start_with_table()
        generations = members.generations
        files = await begin_load(members, 4)
        await acknowledged(files, 300)
        await asyncio.gather(*(member.stop() for member in members.up))
        with new_lines(range(1, 4)) as lines:
            for member in members.all.values():
                member.config["nodes"] = list(lines.values())
            await members.start()
            files += await begin_load(members, 4)
            await acknowledged(files, noted(files) + 300)
            assert await members.end_load() == {1: {}, 2: {}, 3: {}}
            await members.check_after_load(*files)
            await members.in_order()
            assert members.generations == generations and len(generations) == 3


async def folder_of_another_cluster(folder: Path) -> Path:
    """Of its node 3, which was stopped. It has one row."""
    folder.mkdir()
    async with Members(folder) as members:
        await members.start()
        third = members.all[3]
        await third.do(do="execute", sql=CREATE)
        await third.do(do="execute", sql="INSERT INTO load VALUES (-1, 3, 'of another cluster')")
        await members.in_order()
        await asyncio.gather(*(member.stop() for member in members.up))
    return third.folder


async def test_a_member_with_the_data_of_another_cluster_takes_no_part(tmp_path: Path) -> None:
    """The two others go on undisturbed; it reads what it has and writes nothing. With its own folder it catches up."""
    other = await folder_of_another_cluster(tmp_path / "other")
    async with Members(tmp_path) as members:
        await members.start()
        first, second, third = members.all.values()
        await (await members.leader()).do(do="execute", sql=CREATE)
        await third.stop()
        before = await members.leader()
        term = (await before.do(do="status"))["term"]
        third.folder.rename(tmp_path / "own")
        other.rename(third.folder)
        files = await begin_load(members, 4)
        await acknowledged(files, 300)
        stranger = Member(third.config, program=LISTENS)
        await stranger.start()
        try:
            await stranger.answer()
            row = "INSERT INTO load VALUES (-2, 3, 'of a stranger')"
            stranger.tell(do="execute", sql=row, timeout=WAIT_S)
            refused = await stranger.answer()
            assert refused["outcome"] == "not_applied"
            await acknowledged(files, noted(files) + 300)
            assert (await stranger.do(do="query", sql="SELECT id FROM load", consistency="local"))["rows"] == [[-1]]
            told = await stranger.do(do="views")
            assert {view["role"] for view in told["groups"]} <= {"follower", "pre_candidate"}
            assert told["cluster_id"] not in ("", (await first.do(do="views"))["cluster_id"])
        finally:
            await stranger.kill()
        for member in (first, second):
            status = await member.do(do="status")
            assert (status["leader"], status["term"]) == (before.config["node_id"], term)
        third.folder.rename(other)
        (tmp_path / "own").rename(third.folder)
        await members.start(3)
        await acknowledged(files, noted(files) + 100)
        assert await members.end_load() == {1: {}, 2: {}}
        await members.check_after_load(*files)
        await members.in_order()
        assert (await third.do(do="query", sql="SELECT count(*) FROM load WHERE id < 0"))["rows"] == [[0]]


async def test_a_second_process_on_a_members_folder_ends_and_harms_nothing(tmp_path: Path) -> None:
    """Under its own name and ports, or as another node: it says that the folder is in use."""
    async with Members(tmp_path) as members:
        await members.start_with_table()
        files = await begin_load(members, 4)
        await acknowledged(files, 200)
        for number in (1, 2):
            second = Member({**members.all[number].config, "data_dir": str(members.all[1].folder)}, keep_errors=True)
            second.errors = tmp_path / f"second-{number}"
            await second.start()
            assert second.process is not None
            assert await second.process.wait() != 0
            assert "DataFolderInUse" in second.errors.read_text()
            await second.kill()
        await acknowledged(files, noted(files) + 200)
        assert await members.end_load() == {1: {}, 2: {}, 3: {}}
        await members.check_after_load(*files)
        await members.in_order()
