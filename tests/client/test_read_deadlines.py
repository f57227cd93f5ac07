"""The time of a read is one: what waiting for its consistency has used is not given to the reader again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite.client.local import LocalClient

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
CALLS = ["query", "query_one", "query_optional", "query_value"]
DEFAULT_S = 7.0


class Noting:
    """A reader that notes how long each read may take."""

    def __init__(self) -> None:
        self.limits: list[float | None] = []

    def query_now(self, *_: Any, **__: Any) -> None:
        """No read is short enough for it."""

    async def query(self, *_: Any, timeout: float | None, **__: Any) -> list[tuple[int]]:
        self.limits.append(timeout)
        return [(1,)]


class LastMoment:
    """Rounds that are confirmed when the time of who waits for them is just over."""

    async def index(self, end_s: float) -> int:
        while asyncio.get_running_loop().time() < end_s:
            await asyncio.sleep(0)
        return 0


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[LocalClient]:
    async with hiqlite.open(tmp_path / "data", request_timeout=DEFAULT_S) as opened:
        yield opened


@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_the_reader_has_what_waiting_left(db: LocalClient, timeout: float | None) -> None:
    """Of the time that was given, or of the default; all of it where nothing is waited for."""
    reader, whole_s = Noting(), DEFAULT_S if timeout is None else timeout
    client = LocalClient(replace(db._services, reader=reader))
    for call, consistency in product(CALLS, (None, "local", "session", "linearizable")):
        if consistency == "session":  # a write of this client was told as applied before it was applied here
            group = db._services.group
            group.proposals.forwarder.answered_index = group.applier.applied_index + 1
        reading = asyncio.create_task(getattr(client, call)(ENDLESS, consistency=consistency, timeout=timeout))
        await asyncio.sleep(0)
        await db.execute("CREATE TABLE IF NOT EXISTS t (x)")
        await reading
        (limit,) = reader.limits
        assert limit == whole_s if consistency is None else limit is not None and 0 < limit < whole_s, (call, limit)
        reader.limits.clear()


async def test_a_reader_has_no_time_when_waiting_took_it_all(db: LocalClient) -> None:
    """What is read at once is given all the same."""
    reader = Noting()
    await LocalClient(replace(db._services, reader=reader, read_round=LastMoment())).query(
        ENDLESS, consistency="linearizable", timeout=0.02
    )
    assert reader.limits == [0.0]
    client = LocalClient(replace(db._services, read_round=LastMoment()))
    assert await client.query_value("SELECT 1", consistency="linearizable", timeout=0.02) == 1
    with pytest.raises(hiqlite.RequestTimeout) as caught:
        await client.query(ENDLESS, consistency="linearizable", timeout=0.02)
    assert caught.value.outcome is None
