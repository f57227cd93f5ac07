"""Opening and stopping a node, cancelled at each await in turn: nothing stays behind, and the data are there."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.transport.loopback import loopback_cluster
from tests.cluster.interrupting import Interrupted, InterruptedTask, awaited, cancel_everything_but, cancel_it
from tests.cluster.traces import Traces

AWAITS_MAX = 400  # more would mean that the interruption is never reached
STOP_LIMIT_S = 2.0


def settings_of(folder: Path, kind: str) -> dict[str, Any]:
    """A single node without ports, or the only node of a cluster with ports and both groups on disk."""
    small = {"wal_size": "1 MiB"}  # each start reads all of it
    if kind == "alone":
        return {"data_dir": str(folder), **small}
    return loopback_cluster(folder, 1, {"cache_storage_disk": True, **small})[1]


@contextmanager
def task_factory(factory: InterruptedTask) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def opened(settings: dict[str, Any]) -> LocalClient:
    db = await hiqlite.open(settings)
    await db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY)")
    return db


@pytest.mark.parametrize("kind", ["alone", "with ports"])
@pytest.mark.parametrize("all_tasks", [False, True], ids=["its own task", "every task"])
async def test_an_opening_that_is_cancelled_leaves_nothing(tmp_path: Path, kind: str, all_tasks: bool) -> None:
    """At each of its awaits: no thread, task, file or lock is left, and the next opening succeeds."""
    settings = settings_of(tmp_path, kind)
    async with await opened(settings):
        pass
    cancel = cancel_everything_but(asyncio.current_task()) if all_tasks else cancel_it
    before = Traces()
    for at in range(1, AWAITS_MAX):
        opening = Interrupted(hiqlite.open(settings)._open(), at, cancel)
        (end,) = await asyncio.gather(asyncio.create_task(awaited(opening)), return_exceptions=True)
        if not opening.reached:
            await end.shutdown()
            break
        assert isinstance(end, asyncio.CancelledError), (at, end)
        await before.gone()
    else:
        raise AssertionError("an opening has no end")
    assert at > 5
    await before.gone()


@pytest.mark.parametrize("kind", ["alone", "with ports"])
@pytest.mark.parametrize("all_tasks", [False, True], ids=["its own task", "every task"])
async def test_a_stop_that_is_cancelled_leaves_nothing(tmp_path: Path, kind: str, all_tasks: bool) -> None:
    """At each of its awaits, under writes: it stops all the same, what was acknowledged is there."""
    settings = settings_of(tmp_path, kind)
    cancel = cancel_everything_but(asyncio.current_task()) if all_tasks else cancel_it
    async with await opened(settings):
        pass
    before = Traces()
    acknowledged: set[int] = set()
    ids = itertools.count(1)
    for at in range(1, AWAITS_MAX):
        db = await opened(settings)
        rows = {row[0] for row in await db.query("SELECT id FROM t")}
        assert acknowledged <= rows, (at, acknowledged - rows)

        async def write(db: LocalClient) -> None:
            number = next(ids)
            await db.execute("INSERT INTO t (id) VALUES (?)", [number])
            acknowledged.add(number)

        writes = [asyncio.create_task(write(db)) for _ in range(20)]
        await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        factory = InterruptedTask("Life._stop", at, cancel)
        begun = time.monotonic()
        with task_factory(factory):
            ends = await asyncio.gather(*(asyncio.create_task(db.shutdown()) for _ in range(3)), return_exceptions=True)
            assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}, ends
            await db.closed()
        assert time.monotonic() - begun < STOP_LIMIT_S, at
        await asyncio.gather(*writes, return_exceptions=True)
        await before.gone()
        assert factory.work is not None
        if not factory.work.reached:
            break
    else:
        raise AssertionError("a stop has no end")
    assert at > 5
