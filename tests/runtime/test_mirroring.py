"""The members of one group mirrored by another one: who waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import hiqlite

DEADLINE_S = 5.0


async def test_who_waits_for_a_group_that_began_anew_is_told_to_ask_the_new_one(tmp_path: Path) -> None:
    """What was closed never mirrors anything again: waiting on would end with the caller's time."""
    async with hiqlite.open(tmp_path / "data", wal_size="1 MiB") as db:
        mirroring = db._services.node._cache._mirroring
        waiting = asyncio.create_task(mirroring.until_mirrored(1 << 62))
        await asyncio.sleep(0)
        await mirroring.close()
        assert await asyncio.wait_for(waiting, DEADLINE_S) is False
