"""Makes the golden data folders of this release: `python -m tests.golden.make_folders`.

`folders-<version>.tar.xz` holds the data folders of a cluster of three nodes, of a single node, and `expected.json`:
what is in them. Every kind of file of a data folder is there: logs that were purged and have a tail, metadata,
databases with SQLite's own log beside them, the cache group's files. Node 1 was shut down, node 2 killed, node 3
stopped earlier, so it lacks entries; the single node was killed. Made once for each release and never changed
afterwards: an archive is what somebody has on disk who upgrades.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hiqlite
from hiqlite.client.local import LocalClient
from hiqlite.logstore.folder import GROUP_NAMES
from hiqlite.testing import cluster

FOLDER = Path(__file__).parent
SETTINGS: dict[str, Any] = {"wal_size": "128 KiB", "logs_until_snapshot": 10}
AUTHORS = 600  # more than a segment of the log holds
MIGRATIONS = {
    "1_author.sql": "CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);",
    "2_book.sql": "CREATE TABLE book (id INTEGER PRIMARY KEY, author INTEGER NOT NULL REFERENCES author, title TEXT);"
    "CREATE INDEX book_author ON book (author);",
}
VALUES = [None, 0, -1, 2**63 - 1, -(2**63), 0.5, float("inf"), "", "hé\0llo", b"", b"\x00\xff" * 40]
QUERIES = {
    "value": "SELECT id, typeof(v), hex(v) FROM value ORDER BY id",
    "author": "SELECT count(*), sum(id), sum(length(name)), min(name), max(name) FROM author",
    "book": "SELECT id, author, title FROM book ORDER BY id",
    "chance": "SELECT id, n, at FROM chance ORDER BY id",
    "_migrations": "SELECT id, name, hash FROM _migrations ORDER BY id",
    "schema": "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '\\_hiqlite%' ESCAPE '\\' ORDER BY name",
}


async def fill(db: LocalClient) -> None:
    """Entries of every kind, and enough of them to purge the logs."""
    await db.migrate(MIGRATIONS)
    await db.execute("CREATE TABLE value (id INTEGER PRIMARY KEY, v)")
    await db.execute_many("INSERT INTO value (v) VALUES (?)", [(value,) for value in VALUES])
    await db.execute("CREATE TABLE chance (id INTEGER PRIMARY KEY, n INTEGER, at TEXT)")
    for _ in range(5):
        await db.execute("INSERT INTO chance (n, at) VALUES (random(), datetime('now'))")
    for number in range(AUTHORS):
        await db.execute("INSERT INTO author (name) VALUES (?)", (f"author {number} " + "x" * number,))


async def go_on(db: LocalClient) -> None:
    """What is in the logs' tails."""
    await db.txn([
        ("INSERT INTO author (name) VALUES (?) RETURNING id", ("last author",)),
        ("INSERT INTO book (author, title) VALUES (?, ?)", (hiqlite.ref(0, "id"), "a title")),
    ])  # fmt: skip
    await db.batch("DELETE FROM value WHERE id = 1; UPDATE author SET name = 'first' WHERE id = 1")


async def contents(db: LocalClient) -> dict[str, Any]:
    found = {}
    for name, sql in QUERIES.items():
        found[name] = [list(row) for row in await db.query(sql, consistency="linearizable")]
    return found


async def make_cluster(folder: Path) -> None:
    async with cluster(3, base_dir=folder, **SETTINGS) as nodes:
        for number in range(2 * SETTINGS["logs_until_snapshot"]):  # each leads with an entry of its own
            await nodes.nodes[1].transfer_leadership(1 + number % 2)
        await fill(nodes.nodes[1])
        await nodes.wait_until(lambda: all(len(list(folder.rglob(f"log/{name}/*.wal"))) == 3 for name in GROUP_NAMES))
        await nodes.stop(3)
        await nodes.wait_for_leader()
        await go_on(nodes.nodes[1])
        write_down(folder, await contents(nodes.nodes[2]))
        await nodes.stop(1)
        os.kill(os.getpid(), signal.SIGKILL)


async def make_single(folder: Path) -> None:
    async with hiqlite.open(folder / "node", **SETTINGS) as db:
        await fill(db)
        await go_on(db)
        write_down(folder, await contents(db))
        os.kill(os.getpid(), signal.SIGKILL)


def write_down(folder: Path, rows: dict[str, Any]) -> None:
    (folder / "expected.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


MAKERS = {"cluster": make_cluster, "single": make_single}


def without_names(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's user name goes into the archive."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def main() -> None:
    if len(sys.argv) > 1:
        asyncio.run(MAKERS[sys.argv[1]](Path(sys.argv[2])))
    with TemporaryDirectory() as temporary:
        for name in MAKERS:
            folder = Path(temporary) / name
            folder.mkdir()
            ended = subprocess.run([sys.executable, "-m", "tests.golden.make_folders", name, str(folder)], check=False)
            assert ended.returncode == -signal.SIGKILL
        with tarfile.open(FOLDER / f"folders-{version('hiqlite')}.tar.xz", "w:xz") as archive:
            archive.add(temporary, ".", filter=without_names)


if __name__ == "__main__":
    main()
