"""A database that is closed while its disk fails, or loses its power: what is called durable is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import HERE, build_library, build_power_loss

from hiqlite.statemachine import trust
from hiqlite.statemachine.connection import ConnectionSettings

ROOT = HERE.parents[1]
MOMENTS_MAX = 20


def close(what: str, database: Path, **environment: str) -> int:
    """How the child ended."""
    command = [sys.executable, "-m", "tests.crash.closing_child", what, str(database)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, timeout=60, check=False).returncode


def test_a_sync_that_fails_while_the_node_stops_is_not_followed_by_one_that_is_believed(tmp_path: Path) -> None:
    """No checkpoint at the end then: SQLite's log keeps what it holds, and the mark says so."""
    database, orders = tmp_path / "db" / "a.db", tmp_path / "orders"
    orders.write_bytes(bytes(64))
    library = build_library(HERE.parent / "logstore" / "faulty_disk.c", tmp_path)
    assert close("fill", database) == 0
    assert trust.open_mark(database).done == 2
    assert close("fail", database, LD_PRELOAD=str(library), FAULTY_DISK=str(orders)) == 0
    assert trust.open_mark(database).done == 2
    assert trust.log_path(database).stat().st_size > 0
    assert trust.examine(database, ConnectionSettings()) == 3


def test_a_life_that_does_nothing_leaves_a_sound_database_at_every_moment(tmp_path: Path) -> None:
    """Nothing is to be moved, so nothing is said to be under way."""
    library = build_power_loss(tmp_path)
    made = tmp_path / "made" / "a.db"
    assert close("fill", made) == 0
    ends = []
    for moment in range(1, MOMENTS_MAX):
        folder, kept = tmp_path / f"{moment}", tmp_path / f"{moment}-kept"
        shutil.copytree(made.parent, folder)
        shutil.copytree(made.parent, kept)
        power = {"HQ_POWERLOSS_ROOT": str(folder), "HQ_POWERLOSS_SHADOW": str(kept), "HQ_POWERLOSS_AT": str(moment)}
        ends.append(close("close", folder / "a.db", LD_PRELOAD=str(library), **power))
        for left in (folder, kept):
            assert trust.examine(left / "a.db", ConnectionSettings()) == 2
        if ends[-1] == 0:
            break
    assert ends[-1] == 0 and set(ends[:-1]) <= {-signal.SIGKILL}
    if len(ends) == 1:
        pytest.fail("nothing became durable: no moment was met")
