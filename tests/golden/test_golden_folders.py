"""Data folders of every release that there was are opened by this one: nothing is missing, nothing is made anew."""

from __future__ import annotations

import json
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import hiqlite
from hiqlite.testing import Cluster
from hiqlite.transport.loopback import loopback_cluster
from tests.chaos.two_groups import View, disagreements
from tests.cluster.agreement import check_equal
from tests.golden.make_folders import FOLDER, SETTINGS, contents

ARCHIVES = sorted(FOLDER.glob("folders-*.tar.xz"))
assert ARCHIVES
OF_A_FOLDER = {
    "cache", "cache/state", "db", "db/images", "hiqlite.db", "hiqlite.db-mark", "hiqlite.db-wal", "lock", "log",
    "log/cache", "log/db", "meta", "meta/data.mdb", "meta/lock.mdb",
}  # fmt: skip


@pytest.fixture(params=[pytest.param(path, id=path.name) for path in ARCHIVES])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return found


def generations(folder: Path) -> list[str]:
    """The databases of all nodes there; one that is made anew has another name."""
    return sorted(str(path) for path in folder.glob("*/db/*/hiqlite.db"))


async def test_the_cluster_of_an_earlier_release_goes_on(folders: Path) -> None:
    """Every row on every node, who lacked entries too; all vote as who they were, take writes, and start once more."""
    folder = folders / "cluster"
    before = generations(folder)
    assert len(before) == 3
    configs = loopback_cluster(folder, 3, SETTINGS)
    nodes = Cluster({number: hiqlite.NodeConfig.from_mapping(config) for number, config in configs.items()})
    try:
        for _ in range(2):
            for number in configs:
                await nodes.start(number)
            await nodes.wait_until(nodes.settled)
            for db in nodes.nodes.values():
                assert await contents(db) == expected(folder)
            for number in configs:
                await nodes.stop(number)
        for number in configs:
            await nodes.start(number)
        await check_equal(nodes)
        await nodes.wait_until(lambda: not disagreements(
            [View.of(node, group) for node in nodes._running.values() for group in node.groups]
        ))  # fmt: skip
        assert generations(folder) == before
        assert not list(folder.glob("*/aside"))
    finally:
        await nodes.close()


async def test_the_single_node_of_an_earlier_release_goes_on(folders: Path) -> None:
    """Killed, as the application had it: every row is there, and it takes writes."""
    folder = folders / "single"
    before = generations(folder)
    for _ in range(2):
        async with hiqlite.open(folder / "node", **SETTINGS) as db:
            assert await contents(db) == expected(folder)
    async with hiqlite.open(folder / "node", **SETTINGS) as db:
        await db.execute("INSERT INTO author (name) VALUES ('of this release')")
    assert generations(folder) == before and len(before) == 1


def test_each_release_has_an_archive_with_every_kind_of_file(folders: Path) -> None:
    """A folder that lacks one would prove nothing about it. This release has one, too."""
    assert version("hiqlite") == hiqlite.__version__
    assert FOLDER / f"folders-{hiqlite.__version__}.tar.xz" in ARCHIVES
    for node in (folders / "cluster").glob("node*"):
        there = {str(path.relative_to(node)) for path in node.rglob("*")} | {path.name for path in node.rglob("db/*/*")}
        assert there >= OF_A_FOLDER
        assert len(list((node / "log" / "db").glob("*.wal"))) == len(list((node / "log" / "cache").glob("*.wal"))) == 1
