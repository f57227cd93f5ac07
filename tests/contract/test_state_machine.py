"""The contract of ports.StateMachine, over every implementation: the writer in each of its ways to run, and the cache's
machine with its state on disk or in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from hiqlite._accel.records import Operation, encode_command, encode_record, seal_records
from hiqlite.cache import state_file
from hiqlite.cache.machine import CacheMachine
from hiqlite.cache.state import CacheState
from hiqlite.engine.model import Identity
from hiqlite.engine.ports import Run, StateMachine
from hiqlite.errors import StorageError
from hiqlite.statemachine.connection import ConnectionSettings
from hiqlite.statemachine.writer import Writer, WriterSettings

DEADLINE_S = 20.0
Open = Callable[[Path], StateMachine]


def writer(path: Path, apply_thread: str) -> StateMachine:
    """One that does not wait long for whoever has locked its database."""
    return Writer.open(path, WriterSettings(ConnectionSettings(busy_timeout_ms=1), apply_thread))


def on_a_thread(path: Path) -> StateMachine:
    return writer(path, "always")


def on_the_loop(path: Path) -> StateMachine:
    return writer(path, "inline")


def on_either(path: Path) -> StateMachine:
    return writer(path, "auto")


def cache_on_disk(path: Path) -> StateMachine:
    owner = Identity(1, 1)

    async def keep(state: CacheState) -> None:
        await asyncio.to_thread(state_file.write, path, state, owner)

    return CacheMachine(asyncio.get_running_loop(), state_file.read(path, owner), keep=keep)


def cache_in_memory(_path: Path) -> StateMachine:
    return CacheMachine(asyncio.get_running_loop())


WRITERS = [on_a_thread, on_the_loop, on_either]
KEPT = [*WRITERS, cache_on_disk]  # what outlives the process


class Owner:
    """Hands runs to a machine and collects what comes back."""

    def __init__(self, machine: StateMachine) -> None:
        self.machine = machine
        self.runs: list[Run] = []
        self.calls = 0
        self._event = asyncio.Event()
        machine.on_progress(self._progress)

    def _progress(self) -> None:
        self.calls += 1
        self.runs += self.machine.take()
        self._event.set()

    def submit(self, first: int, last: int, term: int = 1, answers: bool = True) -> None:
        self.give([entry(index, term) for index in range(first, last + 1)], first, term, answers)

    def give(self, records: list[bytes], first: int, term: int = 1, answers: bool = True) -> None:
        self.machine.submit(first, first + len(records) - 1, term, records, answers)

    async def until(self, index: int) -> None:
        async def wait() -> None:
            while not self.runs or self.runs[-1].last < index:
                self._event.clear()
                await self._event.wait()

        await asyncio.wait_for(wait(), DEADLINE_S)


def entry(index: int, term: int, group_time_ns: int = 0) -> bytes:
    """The first one makes a table, each tenth is of the cluster's own, the rest insert their index."""
    if index == 1:
        record = encode_command(Operation.EXECUTE, [("CREATE TABLE t (id INTEGER)", ())])
    elif index % 10 == 0:
        record = encode_record(1, 8, b"")
    else:
        record = encode_command(Operation.EXECUTE, [("INSERT INTO t VALUES (?)", (index,))])
    sealed = bytearray(record)
    seal_records(sealed, term, index, group_time_ns, 0, 1)
    return bytes(sealed)


@contextmanager
def trouble(opening: Open, path: Path) -> Iterator[None]:
    """What this machine needs of the disk is refused until the block ends."""
    if opening in WRITERS:
        other = apsw.Connection(str(path), vfs="hiqlite")
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
        other.close()
    else:
        path.mkdir()  # a folder has the name of its file
        yield
        path.rmdir()


@pytest.fixture(params=[*KEPT, cache_in_memory])
def opening(request: pytest.FixtureRequest) -> Open:
    chosen: Open = request.param
    return chosen


@pytest.fixture
async def owner(opening: Open, tmp_path: Path) -> AsyncIterator[Owner]:
    made = Owner(opening(tmp_path / "hiqlite.db"))
    yield made
    await made.machine.close()


async def test_runs_come_back_once_and_in_order(owner: Owner) -> None:
    """Together they are exactly what was handed over, however it was cut, and each carries its answers."""
    assert (owner.machine.applied_index, owner.machine.applied_term) == (0, 0)
    for first, last, term in ((1, 1, 1), (2, 9, 1), (10, 30, 2), (31, 31, 3)):
        owner.submit(first, last, term)
    await owner.until(31)
    covered = [index for run in owner.runs for index in range(run.first, run.last + 1)]
    assert covered == list(range(1, 32))
    assert (owner.machine.applied_index, owner.machine.applied_term) == (31, 3)
    answered = b"" if isinstance(owner.machine, CacheMachine) else b"\1\0"
    for run in owner.runs:
        for index in range(run.first, run.last + 1):
            assert index % 10 == 0 or run.answer(index)[:2] == answered
    assert owner.machine.take() == [] and owner.machine.queued_bytes == 0 and owner.machine.failure is None


async def test_nothing_is_told_inside_the_call(owner: Owner) -> None:
    """The callback comes with a turn of the loop, also when the work was done at once."""
    calls = owner.calls
    owner.submit(1, 5)
    assert owner.calls == calls
    await owner.until(5)
    assert owner.calls > calls


async def test_what_was_applied_within_the_call_may_be_taken_at_once(owner: Owner, opening: Open) -> None:
    """Then it is not told again; what takes longer is told."""
    owner.submit(1, 5)
    await owner.until(5)
    calls = owner.calls
    here = owner.machine.submit(6, 9, 1, [entry(index, 1) for index in range(6, 10)], True)
    assert here or opening is not on_the_loop
    if here:
        assert [(run.first, run.last) for run in owner.machine.take()] == [(6, 9)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert owner.calls == calls
    else:
        await owner.until(9)
        assert owner.calls > calls


async def test_progress_is_told_to_who_asks_late(opening: Open, tmp_path: Path) -> None:
    """What was applied before anybody listened is there when somebody does."""
    machine = opening(tmp_path / "hiqlite.db")
    machine.submit(1, 3, 1, [entry(1, 1), entry(2, 1), entry(3, 1)], True)
    owner = Owner(machine)
    await owner.until(3)
    await machine.close()


async def test_entries_that_nobody_waits_for_are_applied_alike(owner: Owner) -> None:
    """Without answers the runs come back too, and the indexes move."""
    owner.submit(1, 20, answers=False)
    owner.submit(21, 25)
    await owner.until(25)
    assert [index for run in owner.runs for index in range(run.first, run.last + 1)] == list(range(1, 26))
    assert owner.machine.applied_index == 25


@pytest.mark.parametrize("opening", KEPT, indirect=True)
async def test_a_machine_goes_on_behind_what_is_durable(opening: Open, tmp_path: Path) -> None:
    """Whoever opens it next is told up to where, with the term."""
    owner = Owner(opening(tmp_path / "hiqlite.db"))
    owner.submit(1, 40, 7)
    await owner.until(40)
    owner.machine.set_synced_index(40)
    owner.machine.make_durable()
    await reached(lambda: owner.machine.durable_index == 40)
    await owner.machine.close()
    again = Owner(opening(tmp_path / "hiqlite.db"))
    assert (again.machine.applied_index, again.machine.applied_term) == (40, 7)
    assert again.machine.durable_index == 40
    again.submit(41, 45, 8)
    await again.until(45)
    assert again.machine.applied_term == 8
    await again.machine.close()


@pytest.mark.parametrize("opening", WRITERS, indirect=True)
async def test_a_writer_goes_on_where_it_was_closed(opening: Open, tmp_path: Path) -> None:
    """Close applies what is queued; whoever opens it next is told up to where, with the term."""
    owner = Owner(opening(tmp_path / "hiqlite.db"))
    owner.submit(1, 40, 7)
    owner.machine.set_synced_index(40)
    await owner.machine.close()
    await owner.machine.close()
    assert owner.machine.applied_index == 40
    again = Owner(opening(tmp_path / "hiqlite.db"))
    assert (again.machine.applied_index, again.machine.applied_term) == (40, 7)
    again.submit(41, 45, 8)
    await again.until(45)
    assert again.machine.applied_term == 8
    await again.machine.close()


async def test_resuming_a_healthy_machine_changes_nothing(owner: Owner) -> None:
    """`resume` is for after a failure; it may come too often."""
    owner.submit(1, 5)
    owner.machine.resume()
    owner.submit(6, 12)
    await owner.until(12)
    assert owner.machine.failure is None and owner.machine.applied_index == 12


@pytest.mark.parametrize("opening", KEPT, indirect=True)
async def test_a_machine_that_failed_goes_on_when_it_is_told_to(owner: Owner, opening: Open, tmp_path: Path) -> None:
    """The failure is told by the callback and stays until `resume`; nothing is lost, and a try may be believed."""
    machine = owner.machine
    if opening in WRITERS:
        owner.submit(1, 5)
        await owner.until(5)
    failures: list[Exception | None] = []

    def told() -> None:
        failures.append(machine.failure)
        owner.runs += machine.take()

    machine.on_progress(told)
    with trouble(opening, tmp_path / "hiqlite.db"):
        first = machine.applied_index + 1
        owner.submit(first, 9)
        machine.set_synced_index(9)
        machine.make_durable()
        await reached(lambda: machine.failure is not None)
        owner.submit(10, 12)
        await reached(lambda: any(failures))
        assert isinstance(machine.failure, StorageError) and not machine.broken
        assert machine.applied_index == (5 if opening in WRITERS else 12)
        assert machine.durable_index <= (5 if opening in WRITERS else 0)
    assert machine.failure is not None, "nobody has told it yet that its cause is gone"
    machine.set_synced_index(12)
    machine.resume()
    await reached(lambda: machine.applied_index == 12)
    machine.make_durable()
    await reached(lambda: machine.durable_index == 12)
    assert machine.failure is None and not machine.broken and machine.queued_bytes == 0
    covered = [index for run in owner.runs for index in range(run.first, run.last + 1)]
    assert covered == list(range(1, 13))


async def test_the_newest_group_time_is_that_of_what_is_applied(owner: Owner) -> None:
    """It comes with the entries, of whatever kind, and never goes back, though one should."""
    times = [5, 7, 7, 3, 0, 9, 9, 11, 10, 20]  # the last entry is of the cluster's own
    assert owner.machine.applied_group_time_ns == 0
    for index, time_ns in enumerate(times, start=1):
        owner.give([entry(index, 1, time_ns)], index)
        await owner.until(index)
        assert owner.machine.applied_group_time_ns == max(times[:index])


@pytest.mark.parametrize("opening", KEPT, indirect=True)
async def test_the_group_time_is_kept_with_the_entries(opening: Open, tmp_path: Path) -> None:
    """Whoever opens it next begins with the time of what is applied, not with none."""
    owner = Owner(opening(tmp_path / "hiqlite.db"))
    owner.give([entry(1, 1, 40), entry(2, 1, 50)], 1)
    await owner.until(2)
    owner.machine.set_synced_index(2)
    owner.machine.make_durable()
    await reached(lambda: owner.machine.durable_index == 2)
    await owner.machine.close()
    assert owner.machine.applied_group_time_ns == 50
    again = opening(tmp_path / "hiqlite.db")
    assert (again.applied_index, again.applied_group_time_ns) == (2, 50)
    await again.close()


async def test_what_is_in_memory_only_counts_as_durable_at_once(tmp_path: Path) -> None:
    """Nothing of it outlives the process: a log before it would be kept for nobody."""
    owner = Owner(cache_in_memory(tmp_path))
    owner.submit(1, 20)
    await owner.until(20)
    assert owner.machine.durable_index == 20
    await owner.machine.close()


@pytest.mark.parametrize("opening", KEPT, indirect=True)
async def test_what_is_durable_follows_on_demand_and_not_beyond_the_log(owner: Owner) -> None:
    """`make_durable` moves it to what is applied, once the own log is synced that far."""
    machine = owner.machine
    assert machine.durable_index == 0
    owner.submit(1, 40)
    await owner.until(40)
    machine.make_durable()
    machine.set_synced_index(39)
    owner.submit(41, 42)
    await owner.until(42)
    assert machine.durable_index == 0
    machine.set_synced_index(42)
    await reached(lambda: machine.durable_index == 42)
    machine.make_durable()  # nothing is left to do
    owner.submit(43, 50)
    await owner.until(50)
    machine.set_synced_index(50)
    assert machine.durable_index == 42
    machine.make_durable()
    await reached(lambda: machine.durable_index == 50)


async def reached(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), DEADLINE_S)
