"""The lives of one node that the crash sweep cuts short, and what must be true afterwards.

Runs in a forked process: see sweep_server.py. What was asked for and what was acknowledged stand in files beside the
data folder, written at once, so that they outlive the process. Must not know when it will die.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import uvloop

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.engine.model import Identity
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.recovered import Recovered
from hiqlite.logstore.recovery import recover
from hiqlite.logstore.segments import SegmentFolder
from hiqlite.logstore.wal import WalLog

WAL_BYTES = 16 << 10
# `id` is no key, so that an entry that was applied twice is seen.
CREATE = "CREATE TABLE load (id INTEGER NOT NULL, text TEXT NOT NULL)"
INSERT = "INSERT INTO load VALUES (?, ?)"
GIANT_BYTES = 40_000  # longer than a segment
LIVES = ((1, 14), (15, 28), (29, 40))  # ids of each, both included
TOGETHER = 4
PURGE_EVERY = 4  # entries, and as many stay


class Place:
    """One point of the sweep on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.durable = folder / "durable"  # what a loss of power leaves of it
        self.asked = folder / "asked"
        self.acknowledged = folder / "acknowledged"
        self.generation = folder / "generation"
        self.shown = folder / "shown"
        self.log = self.data / "log" / "db"

    def ids(self, file: Path) -> list[int]:
        data = file.read_bytes() if file.exists() else b""
        return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) // 8 * 8, 8)]

    @property
    def config(self) -> dict[str, Any]:
        settings = {"wal_size": WAL_BYTES, "logs_until_snapshot": PURGE_EVERY, "heartbeat_interval_ms": 20}
        return {"data_dir": str(self.data), "cache": False, **settings}

    @property
    def generations(self) -> list[str]:
        return sorted(path.name for path in (self.data / "db").glob("*"))

    def note_generation(self) -> None:
        """In one step: the process may die in the middle of anything."""
        written = self.generation.with_suffix(".new")
        written.write_text(" ".join(self.generations))
        written.rename(self.generation)


def text_of(number: int) -> str:
    return f"{number}:" * (GIANT_BYTES // 4 if number % 13 == 0 else 200)


def note(file: Path, number: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, number.to_bytes(8, "little"))
    os.close(descriptor)


async def insert(db: LocalClient, place: Place, number: int) -> None:
    note(place.asked, number)
    await db.execute(INSERT, (number, text_of(number)))
    note(place.acknowledged, number)


async def insert_all(db: LocalClient, place: Place, first: int, last: int) -> None:
    """A few at a time, so that batches hold several entries."""
    for start in range(first, last + 1, TOGETHER):
        await asyncio.gather(*(insert(db, place, n) for n in range(start, min(start + TOGETHER, last + 1))))


async def live(place: Place) -> None:
    """Forms a node, writes, lets it purge its log, stops, comes back, and so on."""
    for life, (first, last) in enumerate(LIVES):
        async with hiqlite.open(place.config) as db:
            place.note_generation()
            if life == 0:
                await db.execute(CREATE)
            await insert_all(db, place, first, last)
            await purged(db._services.group)
        assert not (place.data / "db" / place.generations[0] / "hiqlite.db-wal").stat().st_size


async def purged(group: Any) -> None:
    """The log holds no more than it has to: the rest is in the database, durably."""
    log, deadline = group.log_store, time.monotonic() + 60
    while group.applier.applied_index - log.base_index >= 2 * PURGE_EVERY:
        seen = f"applied {group.applier.applied_index}, durable {group.machine.durable_index}, base {log.base_index}"
        assert time.monotonic() < deadline, f"not purged: {seen}, failure {group.failure}, log {log.failure}"
        await asyncio.sleep(0.001)


async def come_back(place: Place) -> None:
    """A start, a look, and a stop: itself something that may be cut short. What was seen once has to stay."""
    async with hiqlite.open(place.config) as db:
        if await has_table(db):
            for (number,) in await db.query("SELECT id FROM load"):
                note(place.acknowledged, number)


async def look(place: Place) -> None:
    """Opens the log alone, notes what it shows, and dies: a follower may acknowledge that without writing anything."""
    meta = Meta.open(place.data / "meta")
    incarnation = meta.incarnation(0)
    if incarnation is not None:
        _, recovered = WalLog.open(
            place.log, meta, group=0, identity=Identity(1, incarnation), segment_bytes=WAL_BYTES, log_sync="immediate"
        )
        place.shown.write_text(str(recovered.last_index))
    os.kill(os.getpid(), signal.SIGKILL)


def left_of(place: Place, purge_point: tuple[int, int] = (0, 0)) -> Recovered:
    return recover(SegmentFolder(place.log), group=0, node_id=1, newest_named=0, purge_point=purge_point).recovered


async def check(place: Place) -> list[str]:
    """Opens what is left and says what is wrong with it."""
    if place.shown.exists() and left_of(place).last_index < int(place.shown.read_text()):
        return [f"the log ended with entry {place.shown.read_text()}, now with {left_of(place).last_index}"]
    async with hiqlite.open(place.config) as db:
        wrong = await check_content(db, place)
        if place.generation.exists() and place.generation.read_text() != " ".join(place.generations):
            wrong.append(f"the database was rebuilt: {place.generations}")
        if wrong or not await has_table(db):
            return wrong
        await insert_all(db, place, 1001, 1010)
        await purged(db._services.group)
    async with hiqlite.open(place.config) as db:
        before = db._services.group.log_store.base_index
        await insert_all(db, place, 1011, 1020)
        await purged(db._services.group)
    async with hiqlite.open(place.config) as db:
        wrong = await check_content(db, place)
        storage = db._services.group.log_store
        if before and storage.base_index < before:
            wrong.append(f"the log begins behind {storage.base_index}, it was purged up to {before}")
    found = left_of(place, (before, 1))
    if not found.whole or found.faulty:
        wrong.append(f"the log is damaged after a start: {found.corrupt} {found.faulty}")
    return wrong


async def has_table(db: LocalClient) -> bool:
    return bool(await db.query("SELECT 1 FROM sqlite_schema WHERE name = 'load'"))


async def check_content(db: LocalClient, place: Place) -> list[str]:
    """Acknowledged is there, once; what is there was asked for; SQLite finds its file in order."""
    asked, acknowledged = place.ids(place.asked), place.ids(place.acknowledged)
    if not await has_table(db):
        return [f"{len(acknowledged)} acknowledged writes are lost with their table"] if acknowledged else []
    rows = [tuple(row) for row in await db.query("SELECT id, text FROM load")]
    there = [row[0] for row in rows]
    (verdict,) = await db.query("PRAGMA integrity_check")
    wrong = [] if verdict[0] == "ok" else [f"integrity_check: {verdict[0]}"]
    if missing := set(acknowledged) - set(there):
        wrong.append(f"acknowledged writes are lost: {sorted(missing)}")
    if len(set(there)) != len(there):
        wrong.append(f"applied twice: {sorted({one for one in there if there.count(one) > 1})}")
    if strange := set(there) - set(asked):
        wrong.append(f"never asked for: {sorted(strange)}")
    if any(row[1] != text_of(row[0]) for row in rows):
        wrong.append("a row holds another text")
    return wrong


def run(work: Any) -> Any:
    return uvloop.run(work)
