"""An image under a running group: the feed goes on behind it, and whoever waited is told the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from hiqlite._accel.batch import Op
from hiqlite._accel.records import encode_record
from hiqlite.config import RaftSettings
from hiqlite.engine.ports import Run
from hiqlite.errors import LeadershipLost, StorageError
from hiqlite.logstore.memory import MemoryLog
from hiqlite.runtime.applier import Applier
from hiqlite.runtime.installing import install
from hiqlite.runtime.proposals import Proposals
from hiqlite.runtime.troubles import Troubles
from hiqlite.runtime.waiting import AppliedWaiters
from hiqlite.runtime.window import Window


class Applied:
    """A run that came back from the state machine."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def answer(self, index: int) -> bytes:
        raise LookupError(index)


class Machine:
    """Holds what it is handed until it is told to apply it."""

    def __init__(self) -> None:
        self.applied_index = self.applied_term = 0
        self.queued_bytes = 0
        self.failure: Exception | None = None
        self.submitted: list[tuple[int, int]] = []
        self.runs: list[Run] = []

    def submit(self, first: int, last: int, last_term: int, records: Sequence[bytes], answers: bool) -> None:
        self.submitted.append((first, last))

    def on_progress(self, callback: Callable[[], None]) -> None: ...

    def take(self) -> Sequence[Run]:
        runs, self.runs = self.runs, []
        return runs

    def set_synced_index(self, index: int) -> None: ...

    def resume(self) -> None: ...

    async def close(self) -> None: ...


class Group:
    """The parts of a group that an install touches, entries 1 to 20 in memory."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.machine, self.window = Machine(), Window(1 << 20)
        self.waiters = AppliedWaiters()
        self.proposals = Proposals(
            RaftSettings(), loop, send_forward=lambda leader_id, body: True,
            when_applied=lambda index, callback: None, wake=lambda: None,
        )  # fmt: skip
        self.failures: list[StorageError] = []
        self.log = MemoryLog()
        self.applier = Applier(
            self.machine, self.log, self.window, 1 << 20, loop,
            fail=self.failures.append, stopped=Troubles(self.proposals).machine_stopped,
        )  # fmt: skip
        for index in range(1, 21):
            self.window.add(index, index, encode_record(1, 1, bytes(8), term=1, index=index))

    def feed(self, index: int) -> None:
        self.applier.commit(index, answers=True)
        self.applier.feed(urgent=True)

    def switch_to(self, index: int) -> Callable[[], asyncio.Future[None]]:
        def switch() -> asyncio.Future[None]:
            self.machine.applied_index = index
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

        return switch


async def test_the_feed_goes_on_behind_the_image() -> None:
    """What was handed over and what waited below its index is not handed over again."""
    group = Group()
    group.feed(5)
    assert await install(group, group.switch_to(12)) == 12
    assert group.applier.applied_index == group.applier.submitted == 12
    group.feed(14)
    assert group.machine.submitted == [(1, 5), (13, 14)]
    await group.applier.close()


async def test_nothing_is_handed_over_while_the_database_changes() -> None:
    """What commits meanwhile is fed afterwards, by itself."""
    group = Group()

    async def switch() -> None:
        group.feed(18)
        assert group.machine.submitted == []
        group.machine.applied_index = 12

    await install(group, switch)
    assert group.machine.submitted == [(13, 18)]
    await group.applier.close()


async def test_runs_of_the_old_database_that_come_late_do_not_take_the_index_back() -> None:
    group = Group()
    group.feed(5)
    await install(group, group.switch_to(12))
    group.machine.runs.append(Applied(1, 5))
    assert [run.last for run in group.applier.take()] == [5]
    assert group.applier.applied_index == 12
    await group.applier.close()


async def test_a_read_of_the_log_that_is_under_way_feeds_nothing_any_more() -> None:
    """Entries that are not in memory: the read is ended before the database changes."""
    group = Group()
    group.log.append(1, 1, 20, group.window.records(1, 20))
    group.window.clear()
    group.feed(5)  # a read begins
    await install(group, group.switch_to(12))
    assert group.machine.submitted == [] and group.failures == []
    await group.applier.close()


async def test_who_waits_for_an_index_below_the_image_goes_on_and_an_answer_is_never_made_up() -> None:
    """Local readers of an applied index are woken; a write whose answer is gone is told unknown."""
    group = Group()
    loop = asyncio.get_running_loop()
    waiting = group.waiters.future(7, loop)
    beyond = group.waiters.future(13, loop)
    op = Op(loop)
    group.proposals.pending.add(6, [op])
    await install(group, group.switch_to(12))
    await asyncio.wait_for(waiting, 5)
    assert not beyond.done()
    with pytest.raises(LeadershipLost) as told:
        await op
    assert told.value.outcome == "unknown"
    beyond.cancel()
    await group.applier.close()


async def test_a_database_that_had_stopped_is_healed_by_an_image() -> None:
    """Writes are taken again: why the old one stopped is no trouble of the new one."""
    group = Group()
    group.machine.failure = StorageError("the database file is damaged")
    group.applier.take()
    assert group.proposals.refusal is not None

    async def switch() -> None:
        group.machine.failure = None
        group.machine.applied_index = 12

    await install(group, switch)
    assert group.proposals.refusal is None
    await group.applier.close()


async def test_a_switch_that_fails_leaves_the_feed_paused() -> None:
    """Nobody knows where the state machine stands: it is handed nothing."""
    group = Group()

    async def switch() -> None:
        raise StorageError("the disk failed")

    with pytest.raises(StorageError):
        await install(group, switch)
    group.feed(5)
    assert group.machine.submitted == []
    await group.applier.close()
