"""The cache group's state machine: what counts of mirrored changes, and when a state may be on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiqlite._accel.records import EntryKind, RecordKind, encode_record, seal_records
from hiqlite.cache.machine import CacheMachine
from hiqlite.cache.state import CacheState
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import ProtocolError, StorageError
from hiqlite.runtime.mirror_record import Mirrored, check

DEADLINE_S = 10.0


class Disk:
    """Keeps states; each waits until it is let through."""

    def __init__(self) -> None:
        self.kept: list[CacheState] = []
        self.begun: list[CacheState] = []
        self.gate = asyncio.Event()
        self.error: StorageError | None = None

    async def keep(self, state: CacheState) -> None:
        self.begun.append(state)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.kept.append(state)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0)


def sealed(record: bytes, index: int, term: int = 1, time_ns: int = 0) -> bytes:
    made = bytearray(record)
    seal_records(made, term, index, time_ns, 0, 1)
    return bytes(made)


def mirror(index: int, payload: bytes) -> bytes:
    return sealed(encode_record(RecordKind.ENTRY, EntryKind.MIRROR, payload), index)


def listed(index: int, *voters: int) -> bytes:
    return Mirrored(index, voters, ()).record()


def submit(machine: CacheMachine, first: int, last: int, time_ns: int = 0) -> None:
    other = encode_record(RecordKind.ENTRY, 8, b"")
    machine.submit(first, last, 1, [sealed(other, index, 1, time_ns) for index in range(first, last + 1)], True)


async def test_the_newest_list_of_members_stays_whatever_comes_late_or_twice() -> None:
    """Newest by its index in the other group, not by when it came; in one run or in several, in one piece or more."""
    machine = CacheMachine(asyncio.get_running_loop())
    two = sealed(listed(10, 1), 2) + sealed(listed(30, 3), 3)
    pieces = [sealed(listed(20, 1, 2), 1), two, sealed(listed(30, 4), 4)]
    machine.submit(1, 4, 1, pieces, False)
    machine.submit(5, 5, 2, [sealed(listed(29, 5), 5, 2)], False)
    await until(lambda: machine.applied_index == 5)
    assert (machine.state.mirrored_index, machine.applied_term) == (30, 2)
    assert Mirrored.decode(30, machine.state.mirrored) == Mirrored(30, (3,), ())


@given(
    indexes=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=12),
    cuts=st.sets(st.integers(1, 11)),
    pieces=st.booleans(),
)
def test_of_any_lists_in_any_order_the_newest_is_kept(indexes: list[int], cuts: set[int], pieces: bool) -> None:
    """However they are cut into runs, and wherever a state is taken over by an image in between."""

    async def apply() -> CacheState:
        machine = CacheMachine(asyncio.get_running_loop())
        records = [sealed(listed(index, place), place) for place, index in enumerate(indexes, 1)]
        starts = sorted({0, *(cut for cut in cuts if cut < len(records))})
        for first, behind in zip(starts, [*starts[1:], len(records)], strict=True):
            part = records[first:behind]
            machine.submit(first + 1, behind, 1, part if pieces else [b"".join(part)], False)
            await until(lambda behind=behind: machine.applied_index == behind)
            await machine.replace(CacheState.decode(machine.state.encode()))
        return machine.state

    state = asyncio.run(apply())
    newest = max(indexes)
    assert (state.applied_index, state.mirrored_index) == (len(indexes), newest)
    if newest:
        assert Mirrored.decode(newest, state.mirrored).voters == (indexes.index(newest) + 1,)


@given(st.lists(st.tuples(st.sampled_from(("apply", "sync", "ask", "kept")), st.integers(1, 9)), max_size=24))
def test_no_state_is_kept_ahead_of_the_log_nor_counts_before_it_is_kept(steps: list[tuple[str, int]]) -> None:
    """Whatever is applied, synced and asked for meanwhile; group time stays the newest, and all is kept in the end."""

    async def play() -> None:
        begun: list[tuple[int, int]] = []  # (index of a state, up to where the log was synced then)
        gates: list[asyncio.Event] = []
        last = synced = kept = time_ns = 0
        ends = False

        async def keep(state: CacheState) -> None:
            nonlocal kept
            begun.append((state.applied_index, synced))
            gates.append(asyncio.Event())
            if not ends:
                await gates[-1].wait()
            kept = state.applied_index

        machine = CacheMachine(asyncio.get_running_loop(), keep=keep)
        for what, number in steps:
            if what == "apply":
                submit(machine, last + 1, last + number, number)
                last, time_ns = last + number, max(time_ns, number)
            elif what == "sync":
                synced = min(last, synced + number)
                machine.set_synced_index(synced)
            elif what == "ask":
                machine.make_durable()
            elif gates:
                gates[-1].set()
            for _ in range(4):
                await asyncio.sleep(0)
            assert (machine.applied_index, machine.applied_group_time_ns) == (last, time_ns)
            assert machine.durable_index == kept
            assert all(index <= then for index, then in begun)
        ends = True
        for gate in gates:
            gate.set()
        machine.set_synced_index(last)
        machine.make_durable()
        await until(lambda: machine.durable_index == last)
        await machine.close()

    asyncio.run(play())


async def test_a_payload_that_is_no_list_leaves_no_trace_or_is_told_when_it_is_read() -> None:
    """What is shorter than its index is passed over; what follows an index is for who understands it."""
    machine = CacheMachine(asyncio.get_running_loop())
    machine.submit(1, 3, 1, [mirror(1, b""), mirror(2, b"\xff" * 7), mirror(3, bytes(8))], False)
    await until(lambda: machine.applied_index == 3)
    assert (machine.state.mirrored_index, machine.state.mirrored) == (0, b"")
    for data in (b"", b"\xc1", b"\x90", b"\x92\x90\x90", b"\x92\x91\x01\x91\x01", b"\x92\x91\x00\x90",
                 b"\x92\x91\xc3\x90", b"\x92\x91\xff\x90", b"\x93\x91\x01\x90\x90", b"\x92\x91\x01\x90\x00",
                 b"\x91" * 5000, b"\x92\xdc\x01\x01" + bytes(range(1, 128)) * 3 + b"\x90"):  # fmt: skip
        with pytest.raises(ProtocolError):
            Mirrored.decode(1, data)


async def test_a_list_names_who_it_was_made_of() -> None:
    """Ids alone, ascending."""
    members = Membership(9, (Identity(3, 30), Identity(1, 10)), (Identity(2, 20),))
    assert Mirrored.of(members) == Mirrored(9, (1, 3), (2,))


async def test_a_node_in_two_incarnations_is_named_once() -> None:
    """The list can be read: a voter that came back empty learns beside its old self, and is wanted as a voter."""
    members = Membership(9, (Identity(3, 30), Identity(1, 10)), (Identity(3, 31), Identity(2, 20)))
    record = Mirrored.of(members).record()
    check(record)
    assert Mirrored.of(members) == Mirrored(9, (1, 3), (2,))


async def test_a_state_is_kept_only_when_the_log_holds_all_of_it() -> None:
    """Asked for earlier, it waits; afterwards nothing is written without being asked for."""
    disk = Disk()
    disk.gate.set()
    machine = CacheMachine(asyncio.get_running_loop(), keep=disk.keep)
    submit(machine, 1, 5)
    await until(lambda: machine.applied_index == 5)
    machine.make_durable()
    machine.set_synced_index(4)
    await asyncio.sleep(0)
    assert disk.begun == [] and machine.durable_index == 0
    machine.set_synced_index(5)
    await until(lambda: machine.durable_index == 5)
    submit(machine, 6, 8)
    machine.set_synced_index(8)
    await until(lambda: machine.applied_index == 8)
    await machine.close()
    assert [state.applied_index for state in disk.kept] == [5]


async def test_what_is_asked_for_while_a_state_is_kept_is_done_afterwards() -> None:
    """Nobody asks a second time."""
    disk = Disk()
    machine = CacheMachine(asyncio.get_running_loop(), keep=disk.keep)
    submit(machine, 1, 5)
    await until(lambda: machine.applied_index == 5)
    machine.set_synced_index(5)
    machine.make_durable()
    await until(lambda: len(disk.begun) == 1)
    submit(machine, 6, 8)
    await until(lambda: machine.applied_index == 8)
    machine.set_synced_index(8)
    machine.make_durable()
    disk.gate.set()
    await until(lambda: machine.durable_index >= 5)
    for _ in range(10):
        await asyncio.sleep(0)
    assert machine.durable_index == 8
    await machine.close()


async def test_a_disk_that_refuses_is_told_and_tried_again_by_command() -> None:
    """Nothing counts as durable meanwhile, and entries are applied on."""
    disk = Disk()
    disk.gate.set()
    disk.error = StorageError("full")
    machine = CacheMachine(asyncio.get_running_loop(), keep=disk.keep)
    submit(machine, 1, 5)
    machine.set_synced_index(5)
    machine.make_durable()
    await until(lambda: machine.failure is not None)
    submit(machine, 6, 6)
    await until(lambda: machine.applied_index == 6)
    assert machine.durable_index == 0
    disk.error = None
    machine.set_synced_index(6)
    machine.resume()
    assert machine.failure is None
    await until(lambda: machine.durable_index == 6)
    await machine.close()


async def test_in_memory_all_counts_as_durable_and_it_begins_anywhere() -> None:
    """The first entry follows where the group begins."""
    machine = CacheMachine(asyncio.get_running_loop())
    told: list[int] = []
    machine.on_applied = told.append
    machine.begin_at(1 << 50)
    assert machine.durable_index == 1 << 50
    submit(machine, (1 << 50) + 1, (1 << 50) + 3)
    await until(lambda: machine.applied_index == (1 << 50) + 3)
    assert told == [(1 << 50) + 3] and machine.durable_index == (1 << 50) + 3
    await machine.close()


async def test_another_state_takes_the_place_of_what_was_submitted() -> None:
    """It goes on behind that state, and a state that was being kept is waited for."""
    disk = Disk()
    machine = CacheMachine(asyncio.get_running_loop(), keep=disk.keep)
    submit(machine, 1, 5)
    machine.set_synced_index(5)
    await until(lambda: machine.applied_index == 5)
    machine.make_durable()
    await until(lambda: len(disk.begun) == 1)
    replacing = asyncio.create_task(machine.replace(CacheState(100, 7, 3, b"list")))
    await asyncio.sleep(0)
    assert machine.applied_index == 5
    disk.gate.set()
    await replacing
    assert (machine.applied_index, machine.applied_term, machine.durable_index) == (100, 7, 100)
    submit(machine, 101, 102)
    await until(lambda: machine.applied_index == 102)
    assert machine.queued_bytes == 0
    await machine.close()
