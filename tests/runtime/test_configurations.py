"""A committed configuration is on disk before anything from it on is applied."""

from __future__ import annotations

import asyncio
from typing import cast

from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import StorageError
from hiqlite.runtime.applier import Applier
from hiqlite.runtime.configurations import Configurations


class Feed:
    """Where applying is held."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def hold(self, index: int) -> None:
        self.held.append(index)


class Disk:
    """Metadata that take their time."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.free = asyncio.Event()
        self.broken = False

    async def record(self, membership: Membership) -> None:
        await self.free.wait()
        if self.broken:
            raise StorageError("the disk refuses")
        self.recorded.append(membership.index)


def at(index: int) -> Membership:
    return Membership(index, (Identity(1, 1),))


def make(disk: Disk, feed: Feed, failures: list[StorageError]) -> Configurations:
    return Configurations(disk.record, cast(Applier, feed), asyncio.get_running_loop(), fail=failures.append)


async def settled(configurations: Configurations) -> None:
    while configurations._task is not None:
        await asyncio.sleep(0)


async def test_applying_waits_for_the_record_and_no_longer() -> None:
    """Before the first unrecorded one; the newest stands for those before it; known ones cost nothing."""
    disk, feed, failures = Disk(), Feed(), list[StorageError]()
    configurations = make(disk, feed, failures)
    configurations.committed((at(5), at(9)))
    configurations.committed((at(9), at(12)))
    assert feed.held == [5, 5]
    disk.free.set()
    await settled(configurations)
    assert disk.recorded == [12] and feed.held[-1] == 0
    configurations.committed((at(5), at(12)))
    assert configurations._task is None and failures == []


async def test_what_commits_while_one_is_recorded_is_recorded_too() -> None:
    """The bound moves on only over what is on disk."""
    disk, feed = Disk(), Feed()
    configurations = make(disk, feed, [])
    configurations.committed((at(5),))
    await asyncio.sleep(0)  # it is being recorded now
    configurations.committed((at(7),))
    disk.free.set()
    await settled(configurations)
    assert disk.recorded == [5, 7] and feed.held == [5, 5, 7, 0]


async def test_a_disk_that_refuses_ends_the_group_and_frees_nothing() -> None:
    """Entries behind an unrecorded configuration are never applied."""
    disk, feed, failures = Disk(), Feed(), list[StorageError]()
    disk.broken = True
    disk.free.set()
    configurations = make(disk, feed, failures)
    configurations.committed((at(5),))
    await settled(configurations)
    assert len(failures) == 1 and feed.held == [5]


async def test_a_close_waits_for_nothing() -> None:
    """What is under way is given up; the log has it."""
    configurations = make(Disk(), Feed(), [])
    configurations.committed((at(5),))
    await configurations.close()
    assert configurations._task is None


async def test_an_image_stands_for_the_configurations_before_it() -> None:
    """What waited for its turn is not recorded after it."""
    disk, feed = Disk(), Feed()
    configurations = make(disk, feed, [])
    configurations.committed((at(5), at(9)))
    configurations.recorded(at(9))
    assert feed.held == [5, 0]
    disk.free.set()
    await settled(configurations)
    assert disk.recorded == []
