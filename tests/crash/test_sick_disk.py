"""Three real processes, one of them on a disk that fails or fills up: the others serve, nothing promised is lost."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from harness import HERE, Member, Members, acknowledged, begin_load, build_library, eventually, noted
from sick_disk import Inserts, SickDisk, lead, leads_one_of, says, start_with_sick, try_insert

from hiqlite.runtime.applier import RETRY_S

pytestmark = pytest.mark.timeout(180)


async def test_a_leader_whose_disk_fails_hands_over_by_falling_silent(tmp_path: Path) -> None:
    """EIO from fsync: the leader stops taking part, beats included; the others elect and keep what was promised."""
    disk = SickDisk(build_library(HERE.parent / "logstore" / "faulty_disk.c", tmp_path), tmp_path)
    async with Members(tmp_path) as members:
        sick = await start_with_sick(members, disk)
        for number in range(1, 50):
            assert "index" in await try_insert(sick, number)
        disk[SickDisk.FDATASYNC] = errno.EIO
        # On the disks of the two others it is durable: this one may still be acknowledged, the next one never.
        await try_insert(sick, 50)
        answer = await try_insert(sick, 51)
        assert str(answer["error"]).startswith("StorageError")
        assert answer["outcome"] in ("not_applied", "unknown")
        others = [members.all[2], members.all[3]]

        async def another_leads() -> bool:
            return {(await other.do(do="status"))["leader"] for other in others} <= {2, 3}

        await eventually(another_leads)
        await others[0].do(do="execute", sql="INSERT INTO load VALUES (100, 2, '')")
        for other in others:
            rows = (await other.do(do="query", sql="SELECT id FROM load", consistency="linearizable"))["rows"]
            assert set(range(1, 50)) | {100} <= {row[0] for row in rows}
        await sick.kill()
        disk[SickDisk.FDATASYNC] = 0
        await sick.start()
        await sick.answer()
        await members.check_equal()
        await members.in_order()
    disk.close()


async def test_a_leader_whose_disk_is_full_refuses_writes_until_there_is_room(tmp_path: Path) -> None:
    """No space for the log: DiskFull and not applied on this node, the others lead; with room it goes on by itself."""
    disk = SickDisk(build_library(HERE.parent / "logstore" / "faulty_disk.c", tmp_path), tmp_path)
    async with Members(tmp_path, wal_size="64 KiB") as members:
        sick = await start_with_sick(members, disk)
        disk[SickDisk.FALLOCATE] = errno.ENOSPC
        inserts = Inserts(sick, 1)
        await inserts.until_refused()
        await eventually(lambda: leads_one_of(members, {2, 3}))
        await members.all[2].do(do="execute", sql="INSERT INTO load VALUES (200000, 2, '')")
        disk[SickDisk.FALLOCATE] = 0
        await inserts.until_taken()
        assert inserts.outcomes == {"not_applied"}
        await members.check_equal()
        await members.in_order()
        rows = (await sick.do(do="query", sql="SELECT id FROM load", consistency="linearizable"))["rows"]
        assert not {row[0] for row in rows} & set(inserts.refused)
    disk.close()


async def test_a_leader_without_room_for_its_database_hands_over_and_answers_reads(tmp_path: Path) -> None:
    """What it cannot apply it applies when there is room: nothing acknowledged is lost, nothing refused is there."""
    disk = SickDisk(build_library(HERE.parent / "logstore" / "faulty_disk.c", tmp_path), tmp_path)
    async with Members(tmp_path) as members:
        sick = await start_with_sick(members, disk)
        for number in range(1, 20):
            assert "index" in await try_insert(sick, number)
        disk[SickDisk.DATABASE] = errno.ENOSPC
        inserts = Inserts(sick, 20)
        await inserts.until_refused()
        await eventually(lambda: leads_one_of(members, {2, 3}))
        await members.all[2].do(do="execute", sql="INSERT INTO load VALUES (200000, 2, '')")
        rows = (await sick.do(do="query", sql="SELECT id FROM load", consistency="local"))["rows"]
        assert {row[0] for row in rows} >= set(range(1, 20))
        disk[SickDisk.DATABASE] = 0
        await inserts.until_taken()
        await members.check_equal()
        await members.in_order()
        rows = (await sick.do(do="query", sql="SELECT id FROM load", consistency="linearizable"))["rows"]
        assert not {row[0] for row in rows} & set(inserts.refused)
        assert {row[0] for row in rows} >= {*range(1, 20), 200000}
    disk.close()


async def test_a_sync_of_the_database_that_failed_once_is_not_believed_when_it_succeeds(tmp_path: Path) -> None:
    """Linux forgets what it could not write: the node takes part no more, the others go on, and a start applies again
    what is only said to be in the file."""
    disk = SickDisk(build_library(HERE.parent / "logstore" / "faulty_disk.c", tmp_path), tmp_path)
    async with Members(tmp_path, wal_size="64 KiB", logs_until_snapshot=40) as members:
        sick = await start_with_sick(members, disk)
        disk[SickDisk.DATABASE_SYNC] = errno.EIO
        inserts = Inserts(sick, 1)

        async def stops() -> bool:
            return says(await inserts.next(), "IOERR_FSYNC")

        await eventually(stops)
        await eventually(lambda: leads_one_of(members, {2, 3}))
        end = asyncio.get_running_loop().time() + 2 * RETRY_S
        while asyncio.get_running_loop().time() < end:  # for good: nothing is tried again
            assert says(await inserts.next(), "IOERR_FSYNC")
        await members.all[2].do(do="execute", sql="INSERT INTO load VALUES (200000, 2, '')")
        await sick.kill()
        await sick.start()
        await sick.answer()
        await members.check_equal()
        await members.in_order()
    disk.close()


@pytest.mark.parametrize("order", [SickDisk.FALLOCATE, SickDisk.DATABASE], ids=["its log", "its database"])
async def test_a_disk_that_fills_up_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path, order: int) -> None:
    """Through every node, while it is full, and while it goes on; the leader's own callers included."""
    disk = SickDisk(build_library(HERE.parent / "logstore" / "faulty_disk.c", tmp_path), tmp_path)
    async with Members(tmp_path, wal_size="64 KiB", logs_until_snapshot=200) as members:
        await start_with_sick(members, disk)
        files = await begin_load(members, 4)
        for error in (0, errno.ENOSPC, 0):
            disk[order] = error
            if error:
                await eventually(lambda: leads_one_of(members, {2, 3}))
            await acknowledged(files, noted(files) + 300)
        assert await members.check_after_load(*files) >= 900
    disk.close()


async def applied(member: Member) -> int:
    return int((await member.do(do="status"))["applied"])


@pytest.mark.parametrize("order", [SickDisk.FALLOCATE, SickDisk.DATABASE], ids=["its log", "its database"])
async def test_a_full_disk_of_one_follower_makes_no_difference_to_what_entries_give(tmp_path: Path, order: int) -> None:
    """The others write on, also what changes much, and it falls behind. It is started again while there is no room: it
    does not come up, and holds the same once there is."""
    disk = SickDisk(build_library(HERE.parent / "logstore" / "faulty_disk.c", tmp_path), tmp_path)
    async with Members(tmp_path, wal_size="64 KiB") as members:
        sick = await start_with_sick(members, disk)
        await lead(members, members.all[2])
        leader = members.all[2]
        disk[order] = errno.ENOSPC
        for number in range(1, 100):
            assert "index" in await try_insert(leader, number)
        for sql in (
            "UPDATE load SET text = text || 'y' WHERE id % 2",
            "INSERT OR IGNORE INTO load SELECT id + 1, 2, text FROM load WHERE id > 50",
            "DELETE FROM load WHERE id % 7 = 0",
        ):
            await leader.do(do="execute", sql=sql)
        await Inserts(sick, 2000).until_refused()
        assert await applied(sick) < await applied(leader)
        await sick.kill()
        await sick.start()
        with pytest.raises((TimeoutError, AssertionError)):  # it waits until it can apply, or ended with DiskFull
            await sick.answer(2.0)
        await leader.do(do="execute", sql="INSERT INTO load VALUES (1000, 2, 'while it was full')")
        disk[order] = 0
        await sick.kill()
        await sick.start()
        await sick.answer()
        await members.check_equal()
        await members.in_order()
        rows = (await sick.do(do="query", sql="SELECT text FROM load WHERE id = 1000"))["rows"]
        assert rows == [["while it was full"]]
    disk.close()
