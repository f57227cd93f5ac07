"""What a read costs: on the calling thread, on a reader thread, and per row of a scan."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reader_files import written

from hiqlite.statemachine.reader import Reader, ReaderSettings

POINT = "SELECT * FROM item WHERE id = ?"


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[tuple[Reader, asyncio.AbstractEventLoop]]:
    """A reader on a loop that the benchmark runs by itself."""
    loop = asyncio.new_event_loop()
    with written(tmp_path / "bench.db", rows=100_000):
        reader = Reader.open(tmp_path / "bench.db", ReaderSettings(), loop)
        yield reader, loop
        loop.run_until_complete(reader.close())
    loop.close()


def test_point_select_on_the_calling_thread(benchmark: Any, ready: tuple[Reader, asyncio.AbstractEventLoop]) -> None:
    """One row by key, 1000 times."""
    reader, _ = ready

    def read() -> None:
        for number in range(1000):
            reader.query_now(POINT, (number * 97,))

    benchmark(read)


def test_point_select_awaited(benchmark: Any, ready: tuple[Reader, asyncio.AbstractEventLoop]) -> None:
    """The same as a client awaits it."""
    reader, loop = ready

    async def query(number: int) -> Any:
        rows = reader.query_now(POINT, (number,))
        return rows if rows is not None else await reader.query(POINT, (number,))

    async def read() -> None:
        for number in range(1000):
            await query(number * 97)

    benchmark(lambda: loop.run_until_complete(read()))


def test_range_of_a_hundred_rows(benchmark: Any, ready: tuple[Reader, asyncio.AbstractEventLoop]) -> None:
    """By key, on the calling thread."""
    reader, _ = ready
    rows = benchmark(lambda: reader.query_now("SELECT * FROM item WHERE id BETWEEN ?1 AND ?1 + 99", (500,)))
    assert len(rows) == 100


def test_point_select_on_a_reader_thread(benchmark: Any, ready: tuple[Reader, asyncio.AbstractEventLoop]) -> None:
    """What handing over and waking up costs."""
    reader, loop = ready
    assert benchmark(lambda: loop.run_until_complete(reader.query(POINT, (5,)))) == [(5, 5, "name 5", 2.5)]


def test_scan_on_a_reader_thread(benchmark: Any, ready: tuple[Reader, asyncio.AbstractEventLoop]) -> None:
    """100 000 rows, decoded in slices."""
    reader, loop = ready
    rows = benchmark(lambda: loop.run_until_complete(reader.query("SELECT * FROM item")))
    assert len(rows) == 100_000
