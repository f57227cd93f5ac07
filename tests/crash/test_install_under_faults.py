"""Images between three real processes, while they are killed: who was away gets all data, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from harness import Member, Members, begin_load, eventually
from images import image_travels, lag_behind_the_logs, segments

pytestmark = pytest.mark.timeout(180)

SETTINGS = {"wal_size": "64 KiB", "logs_until_snapshot": 50}


async def check(members: Members, files: list[Path]) -> None:
    assert await members.check_after_load(*files) > 400


async def test_a_leader_that_dies_while_its_image_travels(tmp_path: Path) -> None:
    """The next one gives another, or goes on with this one."""
    async with Members(tmp_path, **SETTINGS) as members:
        files: list[Path] = []
        leader, gone = await lag_behind_the_logs(members, files)
        generation = set((gone.folder / "db").iterdir())
        await gone.start()
        await image_travels(gone)
        await leader.kill()
        await leader.start()
        await asyncio.gather(leader.answer(), gone.answer())
        assert set((gone.folder / "db").iterdir()) != generation, "no image was taken"
        await check(members, files)


async def test_a_node_that_is_killed_again_and_again_while_an_image_comes(tmp_path: Path) -> None:
    """Wherever it was: it goes on from what it has, or begins anew, and ends with all data."""
    async with Members(tmp_path, **SETTINGS) as members:
        files: list[Path] = []
        _, gone = await lag_behind_the_logs(members, files)
        for _ in range(4):
            await gone.start()
            await image_travels(gone)
            await gone.kill()
        await gone.start()
        await gone.answer()
        await check(members, files)


async def test_nodes_that_are_killed_while_they_purge(tmp_path: Path) -> None:
    """Each in turn, at the moment in which a segment goes, under load: none is rebuilt, nothing is lost.

    The load is on the victim alone and ends with it: else the others could go on for more than their logs keep.
    """
    async with Members(tmp_path, **SETTINGS) as members:
        await members.start_with_table()
        files: list[Path] = []
        for number in (1, 2, 3):
            victim = members.all[number]
            files += await begin_load(members, 12, of=[victim])
            inode = next((victim.folder / "db").glob("*/hiqlite.db")).stat().st_ino
            before = segments(victim)

            async def purges(victim: Member = victim, before: list[str] = before) -> bool:
                return segments(victim)[0] > before[-1]

            await eventually(purges)
            await victim.kill()
            await members.start(number)
            assert next((victim.folder / "db").glob("*/hiqlite.db")).stat().st_ino == inode, "it was rebuilt"
            await members.check_after_load(*files)
            await members.in_order()
