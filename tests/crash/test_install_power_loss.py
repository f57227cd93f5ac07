"""Power loss while an image is installed, at every moment at which something became durable: the old database or the
new one is there, complete; and what was reported as installed is."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import HERE, build_library

import hiqlite
from hiqlite.config import NodeConfig
from hiqlite.node_storage import Storage

MOMENTS_MAX = 500  # far more than an install has
DEADLINE_S = 60.0

pytestmark = pytest.mark.timeout(180)


async def make_images(folder: Path) -> dict[int, tuple[Path, str]]:
    """(file, content hash) by applied index: two, the second further on."""
    made: dict[int, tuple[Path, str]] = {}
    async with hiqlite.open(folder / "leader", wal_size="1 MiB") as db:
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        node = db._services.node
        for number in range(2):
            rows = [(number * 1000 + row, random.Random(row).randbytes(500).hex()) for row in range(300)]
            await db.execute_many("INSERT INTO t VALUES (?, ?)", rows)
            outgoing = node.storage.db.images.make(node.storage.db.database, threading.Event())
            path = folder / f"image{number}.db"
            shutil.move(outgoing.path, path)
            path.with_suffix(".manifest").write_bytes(outgoing.offer())
            made[outgoing.applied_index] = (path, await db.content_hash())
    return made


def live_until(moment: int, library: Path, folder: Path, images: list[Path]) -> tuple[bool, list[int]]:
    """A process that installs the images and loses power at the given moment, 0: when it is done.

    Returns:
        Whether it got to its end, and the indexes that it said are installed.
    """
    shadow = folder.with_name("shadow")
    folder.mkdir(exist_ok=True)
    shutil.copytree(folder, shadow)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LD_PRELOAD": str(library),
        "HQ_POWERLOSS_ROOT": str(folder),
        "HQ_POWERLOSS_SHADOW": str(shadow),
        "HQ_POWERLOSS_AT": str(moment),
    }
    with subprocess.Popen(
        [sys.executable, str(HERE / "install_child.py"), str(folder), *map(str, images)],
        env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said: list[int] = []
        ended = False
        for line in process.stdout:  # until it is killed: then its end of the pipe is closed
            words = line.split()
            said += [int(words[-1])] if words[-1].isdigit() else []
            if words == ["end"]:
                ended = True
                process.kill()
        process.wait(DEADLINE_S)
    shutil.rmtree(folder)
    shadow.rename(folder)
    return ended, said


async def state_of(folder: Path) -> tuple[int, str, str]:
    """(applied index, content hash, quick_check) of what a start finds."""
    config = NodeConfig.from_mapping({"data_dir": str(folder), "wal_size": "1 MiB"})
    storage = await Storage.open(config, asyncio.get_running_loop())
    try:
        check = await storage.db.reader.query("PRAGMA quick_check")
        return storage.db.writer.applied_index, await storage.db.content_hash(), str(check[0][0])
    finally:
        await storage.close()


async def test_a_loss_of_power_leaves_the_old_database_or_the_new_one(tmp_path: Path) -> None:
    """Whatever was durable when the power went, a node starts on it and has one of the two."""
    library = build_library(HERE / "powerloss.c", tmp_path)
    images = await make_images(tmp_path)
    (older, (first, older_content)), (newer, (second, newer_content)) = images.items()
    assert live_until(0, library, tmp_path / "before", [first]) == (True, [0, older])
    found: list[int] = []
    for moment in range(1, MOMENTS_MAX):
        folder = tmp_path / "data"
        shutil.copytree(tmp_path / "before", folder)
        ended, said = live_until(moment, library, folder, [second])
        index, content, check = await state_of(folder)
        assert (index, content) in ((older, older_content), (newer, newer_content)), moment
        assert check == "ok" and index >= max(said, default=0), f"moment {moment}: what was installed is gone"
        found.append(index)
        shutil.rmtree(folder)
        if ended:
            break
    # Near the switch not sorted: threads of a life take part in how many of its syncs come before a given one.
    assert (found[0], found[-1]) == (older, newer) and set(found) == {older, newer} and len(found) > 5
