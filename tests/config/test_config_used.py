"""Each setting does something, or says that it does nothing yet; what is accepted can be started with."""

from __future__ import annotations

import ast
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite.config import NodeConfig, RaftSettings, settings
from hiqlite.config_raft import DEFAULT_RAFT_SETTINGS
from hiqlite.config_rules import is_not_built_yet
from hiqlite.errors import ConfigError

PACKAGE = Path(hiqlite.__file__).parent
# What configs and their parts are called where they are read.
HOLDERS = {"config", "settings"}
# Read by the configuration itself: they decide where other settings come from.
SOURCES = {"node_id_from", "secrets_file"}
READ_AS = {"data_dir": "data_path"}  # with the id filled in


def read_by_rooms() -> set[str]:
    """Names of settings that the package reads outside its configuration."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name.startswith("config"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1].lstrip("_") in HOLDERS:
                found.add(node.attr)
    return found


def given_to_the_core() -> set[str]:
    """Keys that change what the consensus core is told."""
    changes: dict[str, Any] = {
        "heartbeat_interval_ms": 90, "election_timeout_ms": "600-900", "max_entry_size": "1 MiB",
        "logs_until_snapshot": 5, "link_loss_grace_ms": 7, "raft_stall_ms": 777, "raft_commit_delay_ms": 3,
        "raft_frame_bytes_max": 4096, "raft_window_frames": 9, "raft_window_bytes": "3 MiB",
        "raft_memory_window_bytes": "65 MiB", "raft_proposal_queue_bytes": "66 MiB", "raft_apply_queue_bytes": "7 MiB",
    }  # fmt: skip
    changed = {key: NodeConfig(**{key: value}).raft_settings() for key, value in changes.items()}
    return {key for key, told in changed.items() if told != DEFAULT_RAFT_SETTINGS}


def test_every_setting_is_read_by_a_room_or_named_as_not_built_yet() -> None:
    """None is accepted in silence and then ignored, and none is called unbuilt that works."""
    rooms, core = read_by_rooms(), given_to_the_core()
    for item in settings():
        used = READ_AS.get(item.name, item.name) in rooms | core | SOURCES
        assert used != is_not_built_yet(item.name), item.name


def test_everything_that_the_core_is_told_is_read_there() -> None:
    """A limit without effect would be a promise that nobody keeps."""
    rooms = read_by_rooms()
    assert [item.name for item in dataclasses.fields(RaftSettings) if item.name not in rooms] == []


@pytest.mark.parametrize(
    "settings_",
    [
        {"wal_size": "8 KiB"}, {"wal_size": "1 GiB"}, {"read_pool_size": 1}, {"read_pool_size": 64},
        {"prepared_statement_cache_capacity": 1}, {"max_entry_size": "1 KiB"}, {"log_sync": "interval_1"},
        {"logs_until_snapshot": 1}, {"apply_thread": "always", "cpu_affinity": "none"}, {"db_shared_access": True},
    ],
    ids=str,
)  # fmt: skip
async def test_a_node_starts_with_the_extremes_that_the_config_accepts(
    tmp_path: Path, settings_: dict[str, Any]
) -> None:
    """What the config takes no room refuses: the original's smallest wal_size among them."""
    async with hiqlite.open(tmp_path / "data", cache=False, **settings_) as db:
        await db.execute("CREATE TABLE t (x)")
        assert (await db.execute("INSERT INTO t VALUES (1)")).rows_affected == 1
        assert await db.query_value("SELECT count(*) FROM t") == 1


async def test_a_cpu_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    """Nothing is left running, and the folder can be opened at once; a CPU that is there is used."""
    if not hasattr(os, "sched_getaffinity"):
        return
    with pytest.raises(ConfigError, match="cpu_affinity names CPU 4000") as caught:
        await hiqlite.open(tmp_path / "data", cache=False, cpu_affinity=[4000], apply_thread="always")
    assert caught.value.key == "cpu_affinity" and caught.value.hint
    here = min(os.sched_getaffinity(0))
    async with hiqlite.open(tmp_path / "data", cache=False, cpu_affinity=[here], apply_thread="always") as db:
        await db.execute("CREATE TABLE t (x)")
