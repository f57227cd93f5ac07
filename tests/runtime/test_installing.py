"""An image under a running group: the feed goes on behind it, and whoever waited is told the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from hiqlite._accel.batch import Op
from hiqlite._accel.records import encode_record
from hiqlite.clock import Clock
from hiqlite.config import RaftSettings
from hiqlite.engine.model import Identity, Membership
from hiqlite.engine.ports import Run
from hiqlite.errors import DiskFull, LeadershipLost, NotLeader, Overloaded, SnapshotCorruption, StorageError
from hiqlite.logstore.memory import MemoryLog
from hiqlite.runtime.applier import Applier
from hiqlite.runtime.installing import GroupInstaller, switch
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
        self.applied_index = self.applied_term = self.applied_group_time_ns = 0
        self.queued_bytes = 0
        self.failure: Exception | None = None
        self.broken = False
        self.submitted: list[tuple[int, int]] = []
        self.runs: list[Run] = []

    def submit(self, first: int, last: int, last_term: int, records: Sequence[bytes], answers: bool) -> bool:
        self.submitted.append((first, last))
        return False

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
        self.pumped = 0
        self.log = MemoryLog()
        self.applier = Applier(
            self.machine, self.log, self.window, 1 << 20, loop,
            fail=self.failures.append, stopped=Troubles(self.proposals).machine_stopped,
        )  # fmt: skip
        for index in range(1, 21):
            self.window.add(index, index, encode_record(1, 1, bytes(8), term=1, index=index))

    def fail(self, error: StorageError) -> None:
        self.failures.append(error)

    def pump(self) -> None:
        self.pumped += 1

    def feed(self, index: int) -> None:
        self.applier.commit(index, answers=True)
        self.applier.feed(urgent=True)

    def switch_to(self, index: int) -> Callable[[], asyncio.Future[None]]:
        def opening() -> asyncio.Future[None]:
            self.machine.applied_index = index
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

        return opening


async def test_the_feed_goes_on_behind_the_image() -> None:
    """What was handed over and what waited below its index is not handed over again."""
    group = Group()
    group.feed(5)
    assert await switch(group, group.switch_to(12)) == 12
    assert group.applier.applied_index == group.applier.submitted == 12
    group.feed(14)
    assert group.machine.submitted == [(1, 5), (13, 14)]
    await group.applier.close()


async def test_nothing_is_handed_over_while_the_database_changes() -> None:
    """What commits meanwhile is fed afterwards, by itself."""
    group = Group()

    async def opening() -> None:
        group.feed(18)
        assert group.machine.submitted == []
        group.machine.applied_index = 12

    await switch(group, opening)
    assert group.machine.submitted == [(13, 18)]
    await group.applier.close()


async def test_runs_of_the_old_database_that_come_late_do_not_take_the_index_back() -> None:
    group = Group()
    group.feed(5)
    await switch(group, group.switch_to(12))
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
    await switch(group, group.switch_to(12))
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
    await switch(group, group.switch_to(12))
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

    async def opening() -> None:
        group.machine.failure = None
        group.machine.applied_index = 12

    await switch(group, opening)
    assert group.proposals.refusal is None
    await group.applier.close()


async def test_a_switch_that_fails_leaves_the_feed_paused() -> None:
    """Nobody knows where the state machine stands: it is handed nothing."""
    group = Group()

    async def opening() -> None:
        raise StorageError("the disk failed")

    with pytest.raises(StorageError):
        await switch(group, opening)
    group.feed(5)
    assert group.machine.submitted == []
    await group.applier.close()


# ------------------------------------------------------------------ with the engine


class File:
    """A complete image at index 12 of term 3."""

    offset = size_bytes = 30
    chunk_bytes, applied_index, applied_term, membership = 10, 12, 3, b"1 2"

    def write(self, offset: int, data: bytes) -> None: ...

    def close(self) -> None: ...


class Bench:
    """An installer whose engine and disk do as they are told, and write down what they hear."""

    term = 5
    leader_id = 1

    def __init__(self) -> None:
        self.group = Group()
        self.refuses = False
        self.heard: list[object] = []
        self.agrees = True
        self.place_failure: StorageError | None = None
        self.open_failure: StorageError | None = None
        self.installer = GroupInstaller(
            self.group, self, self, needs=lambda index: index > 10, membership_of=members, clock=Clock()
        )

    def begin_install(self, index: int, now_ns: int) -> bool:
        self.heard.append(("begin", index))
        return self.agrees

    def installed(self, index: int, term: int, membership: Membership, now_ns: int) -> None:
        assert self.group.applier.applied_index == index, "the engine hears of it once it is so"
        assert not self.refuses
        self.heard.append(("installed", index, term, membership))

    def install_failed(self, now_ns: int) -> None:
        self.heard.append("failed")

    async def place(self, image: object, membership: Membership) -> str:
        assert self.group.pumped == 0
        self.heard.append("place")
        if self.place_failure is not None:
            raise self.place_failure
        return "placed"

    async def open_placed(self, placed: str) -> None:
        self.heard.append(placed)
        if self.open_failure is not None:
            raise self.open_failure
        self.group.machine.applied_index = 12


def members(packed: bytes) -> Membership:
    try:
        return Membership(9, tuple(Identity(int(word), 1) for word in packed.split()))
    except ValueError as error:
        raise SnapshotCorruption("the membership is none") from error


async def test_an_install_is_agreed_placed_opened_and_told() -> None:
    """In this order; the group is turned at the end."""
    bench = Bench()
    assert bench.installer.standing(File()) is None
    assert await bench.installer.install(File()) == (12, 3)
    assert bench.heard == [("begin", 12), "place", "placed", ("installed", 12, 3, members(b"1 2"))]
    assert bench.group.pumped == 1 and bench.group.failures == []


async def test_an_image_that_the_engine_refuses_touches_nothing() -> None:
    bench = Bench()
    bench.agrees = False
    with pytest.raises(Overloaded):
        await bench.installer.install(File())
    assert bench.heard == [("begin", 12)]


async def test_a_membership_that_is_none_is_found_before_anything_is_touched() -> None:
    bench, image = Bench(), File()
    image.membership = b"nobody"
    with pytest.raises(SnapshotCorruption):
        await bench.installer.install(image)
    assert bench.heard == []


async def test_an_image_that_cannot_be_placed_leaves_the_group_as_it_was() -> None:
    """The engine is told, and the feed never paused."""
    bench = Bench()
    bench.place_failure = DiskFull("no space left")
    with pytest.raises(DiskFull):
        await bench.installer.install(File())
    assert bench.heard == [("begin", 12), "place", "failed"] and bench.group.failures == []
    bench.group.feed(5)
    assert bench.group.machine.submitted == [(1, 5)]


async def test_a_database_that_cannot_be_opened_fails_the_group() -> None:
    """Its state machine is closed: this node takes no part until it is started again."""
    bench = Bench()
    bench.open_failure = StorageError("the disk failed")
    with pytest.raises(StorageError):
        await bench.installer.install(File())
    assert bench.group.failures == [bench.open_failure]
    assert bench.heard == [("begin", 12), "place", "placed"]


async def test_who_is_further_on_needs_no_image_and_an_old_leader_sends_none() -> None:
    bench, image = Bench(), File()
    image.applied_index = 10
    assert bench.installer.standing(image) == (10, 3)
    bench.installer.check_sender(1, 5)
    with pytest.raises(NotLeader):
        bench.installer.check_sender(1, 4)


async def test_a_read_of_the_log_that_never_began_does_not_stop_the_feed_for_ever() -> None:
    """It was planned in the very turn in which the install paused the feed."""
    group = Group()
    group.window.clear()
    group.feed(5)  # not in memory: the log is to be read
    await switch(group, group.switch_to(20))
    group.window.add(21, 21, encode_record(1, 1, bytes(8), term=1, index=21))
    group.feed(21)
    assert group.machine.submitted == [(21, 21)]


async def test_only_the_leader_of_this_term_may_send() -> None:
    """An older one is refused for good, one that is not known yet for now."""
    bench = Bench()
    bench.installer.check_sender(1, 5)
    with pytest.raises(NotLeader):
        bench.installer.check_sender(1, 4)
    for peer_id, term in ((3, 5), (1, 6), (1, 1 << 62)):
        with pytest.raises(Overloaded):
            bench.installer.check_sender(peer_id, term)


async def test_an_engine_that_cannot_take_what_it_agreed_to_fails_the_group() -> None:
    """It would hand out nothing for ever."""
    bench = Bench()
    bench.refuses = True
    with pytest.raises(AssertionError):
        await bench.installer.install(File())
    assert len(bench.group.failures) == 1
