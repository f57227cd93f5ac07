"""A node that cannot take writes for a while, and what ends with a group: callers are told, nothing waits for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from hiqlite._accel.batch import Op
from hiqlite._accel.records import encode_record
from hiqlite.config import RaftSettings
from hiqlite.engine.ports import Run
from hiqlite.errors import AnswerNotKept, DiskFull, HiqliteError, RequestTimeout, ShuttingDown, StorageError
from hiqlite.logstore.memory import MemoryLog
from hiqlite.runtime.applier import UNHURRIED_ENTRIES, UNHURRIED_S, Applier
from hiqlite.runtime.forwarding import (
    FRAME_BYTES_MAX,
    REFUSED,
    Forwarder,
    refusal,
    split_forward,
    split_replies,
)
from hiqlite.runtime.proposals import Proposals
from hiqlite.runtime.replies import Replies
from hiqlite.runtime.troubles import Troubles
from hiqlite.runtime.waiting import AppliedWaiters, ReadRound
from hiqlite.runtime.window import Window

DEADLINE_S = 20.0


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0)


def make_proposals() -> Proposals:
    return Proposals(
        RaftSettings(),
        asyncio.get_running_loop(),
        send_forward=lambda leader_id, body: True,
        when_applied=lambda index, callback: None,
        wake=lambda: None,
    )


class TightLog(MemoryLog):
    """A log that says what the test wants of its space."""

    disk_full = False


class Machine:
    """A state machine that stops by itself when told to; it applies at once otherwise."""

    def __init__(self) -> None:
        self.applied_index = self.applied_term = self.applied_group_time_ns = 0
        self.queued_bytes = 0
        self.sick: Exception | None = None
        self.failure: Exception | None = None
        self.broken = False
        self.resumed = 0
        self.submitted: list[tuple[int, int]] = []

    def submit(self, first: int, last: int, last_term: int, records: Sequence[bytes], answers: bool) -> bool:
        self.submitted.append((first, last))
        self.failure = self.sick
        return False

    def on_progress(self, callback: Callable[[], None]) -> None: ...

    def take(self) -> Sequence[Run]:
        return []

    def set_synced_index(self, index: int) -> None: ...

    def resume(self) -> None:
        self.resumed += 1
        self.failure = self.sick

    async def close(self) -> None: ...


async def test_a_state_machine_that_stopped_is_asked_to_go_on_until_it_does() -> None:
    """The reason refuses writes meanwhile, and the refusal ends with its cause."""
    loop = asyncio.get_running_loop()
    machine, proposals, window = Machine(), make_proposals(), Window(1 << 20)
    failures: list[StorageError] = []
    applier = Applier(
        machine, MemoryLog(), window, 1 << 20, loop,
        fail=failures.append, stopped=Troubles(proposals).machine_stopped,
    )  # fmt: skip
    window.add(1, 1, encode_record(1, 1, bytes(8), term=1, index=1))
    machine.sick = DiskFull("applying stopped at entry 1")
    applier.commit(1, answers=True)
    applier.feed(urgent=True)
    applier.take()
    with pytest.raises(DiskFull, match="applying stopped") as refused:
        proposals.put(b"", Op(loop))
    assert refused.value.outcome == "not_applied"
    await until(lambda: machine.resumed >= 1)
    assert isinstance(proposals.refusal, DiskFull)
    machine.sick = None
    await until(lambda: proposals.refusal is None)
    assert machine.submitted == [(1, 1)] and not failures
    await applier.close()


async def test_a_state_machine_whose_sync_failed_is_never_asked_to_go_on() -> None:
    """The next sync would succeed, and say nothing of what is on the disk: the group stops."""
    loop = asyncio.get_running_loop()
    machine, window = Machine(), Window(1 << 20)
    failures: list[StorageError] = []
    stops: list[StorageError | None] = []
    applier = Applier(machine, MemoryLog(), window, 1 << 20, loop, fail=failures.append, stopped=stops.append)
    window.add(1, 1, encode_record(1, 1, bytes(8), term=1, index=1))
    machine.sick, machine.broken = StorageError("a sync failed"), True
    applier.commit(1, answers=True)
    applier.feed(urgent=True)
    applier.take()
    assert failures == [machine.sick] and not stops and applier._retry is None
    await applier.close()


async def test_a_closed_feed_hands_nothing_over() -> None:
    """What commits while a node stops is applied by its next start."""
    machine, window = Machine(), Window(1 << 20)
    applier = Applier(
        machine, MemoryLog(), window, 1 << 20, asyncio.get_running_loop(),
        fail=lambda error: None, stopped=lambda error: None,
    )  # fmt: skip
    await applier.close()
    window.add(1, 1, encode_record(1, 1, bytes(8), term=1, index=1))
    applier.commit(1, answers=True)
    applier.feed(urgent=True)
    applier.commit(2, answers=True)  # not in memory: it would be read from the log
    applier.feed(urgent=True)
    assert machine.submitted == []


async def test_writes_are_refused_while_any_trouble_lasts() -> None:
    """A full log and a stopped state machine come and go on their own."""
    proposals = make_proposals()
    troubles = Troubles(proposals)
    log = TightLog()
    log.disk_full = True
    assert troubles.of_log(log) is None
    troubles.machine_stopped(StorageError("no memory"))
    assert isinstance(proposals.refusal, StorageError)
    troubles.machine_stopped(None)
    assert isinstance(proposals.refusal, DiskFull)
    log.disk_full = False
    assert troubles.of_log(log) is None
    assert proposals.refusal is None


async def test_a_write_that_is_never_proposed_ends_with_its_deadline() -> None:
    """A leader that cannot propose for long does not keep its callers beyond what they asked for."""
    proposals = make_proposals()
    op, patient = Op(asyncio.get_running_loop(), None, None, 1000), Op(asyncio.get_running_loop(), None, None, 9000)
    for waiting in (op, patient):
        proposals.put(encode_record(1, 1, bytes(8)), waiting)
    proposals.expire(999)
    assert not op.done()
    proposals.expire(1000)
    assert isinstance(op.exception(), RequestTimeout) and op.exception().outcome == "unknown"
    assert not patient.done()
    assert len(proposals.buffer) == 2


async def test_whoever_waits_for_an_index_is_told_when_the_group_ends() -> None:
    """No caller waits for an index that nobody applies any more; later progress does not resolve it twice."""
    waiters = AppliedWaiters()
    loop = asyncio.get_running_loop()
    reached, lost = waiters.future(3, loop), waiters.future(5, loop)
    waiters.reached(4)
    waiters.fail(ShuttingDown("the node is shutting down"))
    waiters.reached(9)
    await reached
    with pytest.raises(ShuttingDown):
        await lost
    assert len(waiters) == 0


async def test_a_read_round_that_breaks_tells_all_who_joined() -> None:
    """An error that nobody foresaw reaches the callers too; the next round starts afresh."""
    results: list[Exception | int] = [RuntimeError("unforeseen"), 7]

    async def ask() -> int:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    reads = ReadRound(ask, asyncio.get_running_loop())
    broken = [asyncio.ensure_future(reads.index()), asyncio.ensure_future(reads.index())]
    for future in broken:
        with pytest.raises(RuntimeError, match="unforeseen"):
            await future
    assert await reads.index() == 7
    await reads.close(HiqliteError("closed"))


async def test_many_writes_travel_in_frames_that_a_link_takes() -> None:
    """In order, none twice; what did not leave stays queued; one that is larger alone travels alone."""
    loop = asyncio.get_running_loop()
    frames: list[bytes] = []
    room = 2

    def send(leader_id: int, body: bytes) -> bool:
        if len(frames) == room:
            return False
        frames.append(body)
        return True

    forwarder = Forwarder(
        loop, send=send, when_applied=lambda index, callback: None, queue_bytes_max=1 << 26, patience_ns=10**9
    )
    sizes = [400_000, 400_000, 400_000, 3 << 20, 8, 8]
    for size in sizes:
        forwarder.put(encode_record(1, 1, bytes(size)), Op(loop))
    forwarder.flush(1, 0, term=1)
    assert [len(split_forward(body)) for body in frames] == [2, 1]
    room = 9
    forwarder.flush(1, 0, term=1)
    assert [len(split_forward(body)) for body in frames] == [2, 1, 1, 2]
    travelled = [one for body in frames for one in split_forward(body)]
    assert [number for number, *_ in travelled] == [1, 2, 3, 4, 5, 6]
    assert [len(record) - 64 for *_, record in travelled] == sizes
    assert all(len(body) <= FRAME_BYTES_MAX for body in (frames[0], frames[1], frames[3]))
    forwarder.fail(ShuttingDown("the end of the test"))


async def test_answers_travel_in_frames_that_a_link_takes() -> None:
    """Each number once; an answer that no frame holds is told as applied instead of closing the link."""
    frames: list[bytes] = []

    def send(peer_id: int, body: bytes) -> bool:
        frames.append(body)
        return True

    replies = Replies(send, asyncio.get_running_loop(), answer_bytes_max=2 << 20)
    for number, size in enumerate([500_000, 500_000, 500_000, 2 << 20, (2 << 20) + 1, 8], 1):
        replies.add(2, number, number, 0, bytes(size))
    replies.flush()
    answers = [one for body in frames for one in split_replies(body)]
    assert [number for number, _, _, _ in answers] == [1, 2, 3, 4, 5, 6]
    assert [len(split_replies(body)) for body in frames] == [2, 1, 1, 2]
    _, _, status, data = answers[4]
    error = refusal(data)
    assert status == REFUSED and isinstance(error, AnswerNotKept) and error.outcome == "applied"


class HandLoop:
    """A loop whose time is moved by hand; knows one timer."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._ring: Callable[[], None] | None = None
        self._at_s = 0.0

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, ring: Callable[[], None]) -> HandLoop:
        assert self._ring is None, "one timer at a time"
        self._ring, self._at_s = ring, self.now_s + delay_s
        return self

    def cancel(self) -> None:
        self._ring = None

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        if self._ring is not None and self._at_s <= self.now_s:
            ring, self._ring = self._ring, None
            ring()


async def test_where_nobody_waits_runs_are_apart_and_gather_what_comes_between() -> None:
    """A write that comes alone is applied at once; the next ones together, a little later, when somebody waits for one
    of them, or when they are many."""
    machine, window, loop = Machine(), Window(1 << 22), HandLoop()
    applier = Applier(
        machine, MemoryLog(), window, 1 << 22, cast(asyncio.AbstractEventLoop, loop),
        fail=lambda error: None, stopped=lambda error: None,
    )  # fmt: skip
    for index in range(1, UNHURRIED_ENTRIES + 10):
        window.add(index, index, encode_record(1, 1, bytes(8), term=1, index=index))

    def commit(index: int, *, urgent: bool = False) -> list[tuple[int, int]]:
        applier.commit(index, answers=False)
        applier.feed(urgent=urgent)
        return machine.submitted[-1:]

    assert commit(1) == [(1, 1)]
    assert commit(2) == commit(3) == [(1, 1)]
    loop.pass_time(UNHURRIED_S / 2)
    assert machine.submitted == [(1, 1)]
    loop.pass_time(UNHURRIED_S)
    assert machine.submitted == [(1, 1), (2, 3)]
    assert commit(4) == [(2, 3)]
    assert commit(5, urgent=True) == [(4, 5)]
    assert commit(6) == [(4, 5)]
    last = 5 + UNHURRIED_ENTRIES + 1
    assert commit(last) == [(6, last)]
    loop.pass_time(UNHURRIED_S)
    assert commit(last + 1) == [(last + 1, last + 1)]
    await applier.close()
