"""A turn of a group in which a run is applied: who waited for it runs within that turn, and the loop stays free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import copy_context
from pathlib import Path

import pytest

import hiqlite
from hiqlite.client.local import LocalClient

INSERT = "INSERT INTO t DEFAULT VALUES"
WRITES = 300


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LocalClient]:
    """A single node whose log never makes a write wait: all of it could happen in one turn."""
    config = {"data_dir": str(tmp_path / "data"), "log_sync": "interval_200", "apply_thread": "inline"}
    async with hiqlite.open(config) as client:
        await client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        yield client


async def test_a_task_that_writes_without_pause_leaves_the_loop_to_others(db: LocalClient) -> None:
    """What a turn applies lets others write in it, but only once: the next is told by the next event of the loop."""
    turns = 0

    async def write() -> None:
        for _ in range(WRITES):
            await db.execute(INSERT)

    writing = asyncio.create_task(write())
    while not writing.done():
        turns += 1
        await asyncio.sleep(0)
    await writing
    # One turn of the loop has a few events, each of which may tell one write: the log's wake-up, the state machine's,
    # the scheduled turn, the alarm. Without a bound the loop would turn a handful of times.
    assert turns >= WRITES // 6


async def test_a_turn_within_a_turn_keeps_the_order(db: LocalClient) -> None:
    """Who is told of a write may ask for a turn, as changes of members do: others are told of earlier writes first."""
    told: list[int] = []

    async def write() -> None:
        for _ in range(WRITES // 10):
            told.append((await db.execute(INSERT)).log_index)
            later = db.execute(INSERT)
            db._group.pump()
            told.append((await later).log_index)

    await asyncio.gather(*(write() for _ in range(10)))
    assert len(told) == WRITES // 10 * 20
    assert told == sorted(told)


async def test_who_waits_is_told_within_the_turn_that_applied(db: LocalClient) -> None:
    """No callback of the loop comes between a commit and its answer."""
    events: list[str] = []

    async def write() -> None:
        await db.execute(INSERT)
        events.append("told")

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)  # it has written, and waits; nothing was turned yet
    asyncio.get_running_loop().call_soon(events.append, "next turn")
    await writing
    assert events == ["told", "next turn"]


async def test_a_turn_within_a_task_lets_nobody_overtake(db: LocalClient) -> None:
    """Inside a task no other can be stepped: who waits there is told in a turn of the loop, before later ones are."""
    told: list[str] = []

    async def write(name: str) -> None:
        await db.execute(INSERT)
        told.append(name)

    async def turn() -> None:
        db._group.pump()

    await asyncio.gather(write("first"), turn(), write("second"))
    assert told == ["first", "second"]


@pytest.mark.parametrize(
    ("way", "end"),
    [("write", SystemExit), ("write", KeyboardInterrupt), ("callback", SystemExit), ("failure", SystemExit)],
)
def test_who_ends_the_program_leaves_nobody_untold(tmp_path: Path, way: str, end: type[BaseException]) -> None:
    """All others of the run have their answers, or all of a node that fails their errors, before the loop ends."""
    told: list[int] = []

    def leave(_: object) -> None:
        told.append(1)
        raise end

    async def write(db: LocalClient, number: int) -> None:
        op = asyncio.ensure_future(db.execute(INSERT))
        if number == 1 and way == "callback":
            op.add_done_callback(leave, context=copy_context())
            return
        try:
            await op
        except hiqlite.StorageError:
            assert way == "failure"
        leave(op) if number == 1 else told.append(number)

    async def work() -> None:
        async with hiqlite.open({"data_dir": str(tmp_path / "data"), "cache": False}) as db:
            assert isinstance(db, LocalClient)
            await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
            writes = [asyncio.create_task(write(db, number)) for number in range(6)]
            if way == "failure":
                asyncio.get_running_loop().call_soon(db._group.fail, hiqlite.StorageError("the disk broke"))
            await asyncio.gather(*writes)

    with pytest.raises(end):
        asyncio.run(work())
    assert told == list(range(6))
