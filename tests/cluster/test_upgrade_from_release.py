"""Clusters of real processes that go from a release to this tree, node by node, and back, while they are written to.

The release is built from the commit that the changelog names, and installed where nothing else is.
"""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.crash.harness import Member, Members
from tests.waiting import moment

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"^## (\S+) \(commit ([0-9a-f]{40})\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
RELEASES = NAMED if (ROOT / ".git").exists() else []  # a copy without history has nothing to build them from
SETTINGS = {"cache": True, "wal_size": "256 KiB", "logs_until_snapshot": 200}
BUILD_S = 600
AWAY_ROWS = 400  # more than the log keeps: whoever was away needs an image


@pytest.fixture(scope="module", params=[commit for _, commit in RELEASES], ids=[version for version, _ in RELEASES])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that release is installed."""
    archive = subprocess.run(["git", "archive", request.param], cwd=ROOT, capture_output=True, check=True)
    source, installed = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("release")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(source, filter="data")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(installed), str(source)], check=True, timeout=BUILD_S)
    return installed


async def load(member: Member, life: int) -> Path:
    """It writes from now on; the file of what was acknowledged."""
    number = member.config["node_id"]
    acknowledged = member.folder.with_name(f"acknowledged-{number}-{life}")
    await member.do(do="load", acks=str(acknowledged), tasks=2, start=(10 * life + number) * 1_000_000, node=number)
    return acknowledged


async def more(files: list[Path], rows: int) -> None:
    """Each of these has so many acknowledged writes more."""
    wanted = {file: file.stat().st_size + 8 * rows for file in files}
    while not all(file.stat().st_size >= size for file, size in wanted.items()):
        await moment()


@pytest.mark.long
@pytest.mark.timeout(2 * BUILD_S)
async def test_a_cluster_goes_from_a_release_to_this_tree_and_back_under_load(tmp_path: Path, release: Path) -> None:
    """No acknowledged write is lost, and all nodes hold the same in the end; images pass between the releases too."""
    members = Members(tmp_path, **SETTINGS)
    old = {"PYTHONPATH": str(release)}
    async with members:
        for member in members.all.values():
            await member.start(environment=old)
        await asyncio.gather(*(member.answer() for member in members.all.values()))
        await (await members.leader()).do(do="execute", sql="CREATE TABLE load (id INTEGER PRIMARY KEY, node, text)")
        files = {number: await load(member, 0) for number, member in members.all.items()}
        every = list(files.values())
        generations = {number: generations_of(member) for number, member in members.all.items()}
        for life, environment in ((1, {}), (2, old), (3, {})):
            for number, member in members.all.items():
                await member.do(do="stop_load")
                await member.stop()
                await more([files[other] for other in files if other != number], AWAY_ROWS)
                await member.start(environment=environment)
                await member.answer()
                package = Path((await member.do(do="status"))["package"])
                assert package.is_relative_to(release) == (environment is old)
                files[number] = await load(member, life)
                every.append(files[number])
                await more(list(files.values()), 100)
        for member in members.all.values():
            await member.do(do="stop_load")
        await members.check_acknowledged(*every)
        await members.check_equal()
        assert all(generations[number] != generations_of(member) for number, member in members.all.items())


def generations_of(member: Member) -> list[str]:
    """A database that came as an image stands in another folder."""
    return sorted(path.parent.name for path in member.folder.glob("db/*/hiqlite.db"))
