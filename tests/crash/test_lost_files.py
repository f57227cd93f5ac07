"""Files of one of three real processes, lost or damaged under load: it comes back by itself, nothing is lost."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from harness import Member, Members, acknowledged, begin_load, eventually, noted

from tests.healing.damages import DAMAGES, KINDS, Others

pytestmark = pytest.mark.timeout(180)

NOBODY = Others(Path(), Path())


def lost(what: str, folder: Path) -> None:
    shutil.rmtree(folder / what)


def damaged(kind: str, damage: str, folder: Path) -> None:
    found = KINDS[kind]
    if kind.startswith("db/"):
        found = replace(found, flip_at=None)  # its middle, however small it is
    DAMAGES[damage](found, folder, NOBODY)


LOST: dict[str, Callable[[Path], None]] = {
    what or "the data folder": partial(lost, what) for what in ("", "db", "log", "meta")
}
LOST_OF_CACHE = {what: partial(lost, what) for what in ("log/cache", "cache")}
DAMAGED: dict[str, Callable[[Path], None]] = {
    f"{kind}: {damage}": partial(damaged, kind, damage)
    for kind in ("meta/data.mdb", "log/db/*.wal, newest", "log/cache/*.wal, newest", "cache/state",
                 *(f"db/*/hiqlite.db{end}" for end in ("", "-wal", "-mark")))
    for damage in ("truncated", "a flipped bit")
}


async def comes_back(members: Members, victim: Member, damage: Callable[[Path], None]) -> None:
    """Under load on the others it is killed, damaged and started again; then every acknowledged write is everywhere."""

    async def all_files_there() -> bool:
        return (victim.folder / "cache" / "state").exists()

    files = await begin_load(members, 4)
    await acknowledged(files, 300)
    await eventually(all_files_there)
    await victim.kill()
    damage(victim.folder)
    seen = noted(files)
    await acknowledged(files, seen + 50)  # the others go on without it
    await victim.start()
    await victim.answer()
    await acknowledged(files, seen + 200)
    await members.check_after_load(*files)


@pytest.mark.parametrize("what", LOST)
async def test_a_leader_that_loses_its_files_comes_back(tmp_path: Path, what: str) -> None:
    """All of them, or one part: the others elect, and it takes its place again."""
    async with Members(tmp_path, wal_size="64 KiB", logs_until_snapshot=200) as members:
        leader = await members.start_with_table()
        await comes_back(members, leader, LOST[what])


@pytest.mark.long
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("what", [*LOST, *LOST_OF_CACHE, *DAMAGED])
async def test_any_node_comes_back_whatever_happened_to_a_file(tmp_path: Path, what: str, number: int) -> None:
    """Whoever leads; twice in a row, so that what it came back with is looked at, too."""
    async with Members(tmp_path, wal_size="64 KiB", logs_until_snapshot=200) as members:
        await members.start_with_table()
        for _ in range(2):
            await comes_back(members, members.all[number], {**LOST, **LOST_OF_CACHE, **DAMAGED}[what])
            await asyncio.gather(*(member.stop() for member in members.up))
            await members.start()
            await members.check_equal()
            await members.in_order()
