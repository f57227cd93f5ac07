"""Closing a writer and its readers: once, completely, and soon, whoever is cancelled while he waits."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from apply_harness import execute, sealed

from hiqlite.errors import ShuttingDown
from hiqlite.statemachine.reader import Reader, ReaderSettings
from hiqlite.statemachine.writer import Writer, WriterSettings
from tests.cluster.traces import Traces


@pytest.mark.parametrize("turns", range(5))
async def test_a_writer_whose_close_is_cancelled_is_closed_all_the_same(tmp_path: Path, turns: int) -> None:
    """No thread, no file, and a second call returns when that is so."""
    await Writer.open(tmp_path / "warm.db").close()
    before = Traces()
    writer = Writer.open(tmp_path / "a.db")
    closing = asyncio.create_task(writer.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    await writer.close()
    assert [trace for trace in before.new() if trace.startswith("file")] == []
    await asyncio.wait([closing])
    await before.gone()


@pytest.mark.parametrize("turns", range(5))
async def test_a_writer_that_is_closed_while_it_switches_stays_closed(tmp_path: Path, turns: int) -> None:
    """It opens nothing any more: neither when the switch is cancelled nor when it goes on."""
    for name in ("a.db", "b.db"):
        await Writer.open(tmp_path / name).close()
    for cancelled in (True, False):
        before = Traces()
        writer = Writer.open(tmp_path / "a.db")
        switching = asyncio.create_task(writer.switch(tmp_path / "b.db"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if cancelled:
            switching.cancel()
        await writer.close()
        (end,) = await asyncio.gather(switching, return_exceptions=True)
        assert end is None or isinstance(end, asyncio.CancelledError | ShuttingDown), end
        await before.gone()


async def test_readers_whose_close_is_cancelled_are_closed_all_the_same(tmp_path: Path) -> None:
    """While one of them is inside an endless statement."""
    await Writer.open(tmp_path / "a.db").close()
    before = Traces()
    reader = Reader.open(tmp_path / "a.db", ReaderSettings(), asyncio.get_running_loop())
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    read = asyncio.create_task(reader.query(endless))
    while reader.metrics().busy == 0:
        await asyncio.sleep(0)
    begun = time.monotonic()
    closing = [asyncio.create_task(reader.close()) for _ in range(2)]
    await asyncio.sleep(0)
    for one in closing:
        one.cancel()
    await reader.close()
    assert time.monotonic() - begun < 2.0
    assert [type(end) for end in await asyncio.gather(read, return_exceptions=True)] == [ShuttingDown]
    await asyncio.wait(closing)
    del read  # its error knows the read, and that its threads
    await before.gone()


async def test_a_writer_that_is_asked_for_runs_while_it_ends_closes_all_the_same(tmp_path: Path) -> None:
    """Whoever makes the descriptor quiet has to look at everything that it stood for, the end of the thread too."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
    long = sealed([execute(f"CREATE TABLE t AS {numbers} SELECT count(*) FROM n")])
    writer = Writer.open(tmp_path / "a.db", WriterSettings(apply_thread="always"))
    writer.submit(1, 1, 1, [long], True)
    closing = asyncio.create_task(writer.close())
    while not hasattr(writer, "_late"):
        await asyncio.sleep(0)
    while not writer._applier.stopped:
        pass  # the loop must not hear of it first
    assert [run.last for run in writer.take()] == [1]
    await asyncio.wait([closing], timeout=10)
    assert closing.done()
