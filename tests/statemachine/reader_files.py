"""A small database with a writer, and a reader on it: what the reader tests begin with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import apsw

from hiqlite.statemachine.connection import open_writer
from hiqlite.statemachine.reader import Reader, ReaderSettings

ROWS = 5000
FILL = (
    "INSERT INTO item WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 - 1)"
    " SELECT i, i % 10, 'name ' || i, i * 0.5 FROM n"
)
# About a tenth of a second and far more than any budget; ends by itself.
LONG = "SELECT count(*) FROM item a, item b WHERE a.name || b.name = ?"
# Never ends by itself.
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@contextmanager
def written(path: Path, rows: int = ROWS) -> Iterator[apsw.Connection]:
    """A writer on a filled database."""
    writer = open_writer(path)
    try:
        writer.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, kind INTEGER, name TEXT, price REAL)")
        writer.execute("CREATE INDEX item_kind ON item(kind)")
        writer.execute(FILL, (rows,))
        yield writer
    finally:
        writer.close()


@asynccontextmanager
async def opened(
    folder: Path, *, rows: int = ROWS, **limits: Any
) -> AsyncIterator[tuple[Reader, apsw.Connection]]:
    """A reader, and the writer whose file it reads."""
    path = folder / "reader.db"
    with written(path, rows) as writer:
        reader = Reader.open(path, ReaderSettings(**limits), asyncio.get_running_loop())
        try:
            yield reader, writer
        finally:
            await reader.close()


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Waits for a condition, with a deadline."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0)
