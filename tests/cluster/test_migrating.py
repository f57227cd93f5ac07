"""Migrations of a cluster: three sources, three nodes, one run of each file; and what a wrong set is told."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import hiqlite
from hiqlite.testing import Cluster, cluster
from tests.cluster.agreement import check_equal, everywhere, same_content, same_index

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODES = [1, 2, 3]
PACKAGE = "shop_of_a_cluster_for_test"
FILES = {
    "1_users.sql": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);",
    "2_posts.sql": "CREATE TABLE posts (id INTEGER PRIMARY KEY); INSERT INTO posts VALUES (1);",
    "3_view.sql": "CREATE VIEW names AS SELECT name FROM users; INSERT INTO posts VALUES (2);",
}
MORE = {**FILES, "4_more.sql": "INSERT INTO posts VALUES (3); INSERT INTO users VALUES (1, 'eve');"}
EDITED = "CREATE TABLE users (id);"
UNCHANGED = "an applied migration must not change: put changes into a new file"


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


# What is given, and the message and hint that it gets.
WRONG: dict[str, tuple[dict[str, str], str, str]] = {
    "edited": (
        {**FILES, "1_users.sql": EDITED},
        "1_users.sql: its text is not the one that was applied as 1_users.sql: the database has hash"
        f" {digest(FILES['1_users.sql'])}, the file has {digest(EDITED)}",
        UNCHANGED,
    ),
    "renamed": (
        {"1_people.sql" if name == "1_users.sql" else name: text for name, text in FILES.items()},
        "1_people.sql: its name is not the one that was applied as 1_users.sql: the database has hash"
        f" {digest(FILES['1_users.sql'])}, the file has {digest(FILES['1_users.sql'])};"
        " only in the database: 1_users.sql; only in the source: 1_people.sql",
        UNCHANGED,
    ),
    "a gap": ({**FILES, "5_gap.sql": "SELECT 1;"}, "5_gap.sql: ids count from 1 without gaps, 4 is missing", ""),
    "a wrong statement": (
        {**FILES, "4_wrong.sql": "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1);"},
        "migration 4_wrong.sql, statement 2: no such table: nowhere",
        "",
    ),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a package that can be imported and holds the files."""
    path = tmp_path_factory.mktemp("migrations")
    folder = path / PACKAGE / "migrations"
    folder.mkdir(parents=True)
    (path / PACKAGE / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    sys.path.insert(0, str(path))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(path))
    for name in (PACKAGE, f"{PACKAGE}.migrations"):
        sys.modules.pop(name, None)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def three(package: Path) -> AsyncIterator[Cluster]:
    """Migrated through all nodes at once: from a package's resources, from a folder, from a mapping."""
    async with cluster(3, cache=False, wal_size="8 MiB") as running:
        sources: list[Any] = [f"{PACKAGE}.migrations", package, FILES]
        reports = await asyncio.gather(*(running.nodes[number].migrate(sources[number - 1]) for number in NODES))
        assert sorted(number for report in reports for number in report.applied) == [1, 2, 3]
        assert all(sorted(report.applied + report.already_applied) == [1, 2, 3] for report in reports)
        yield running
        await check_equal(running)


async def test_migrations_are_applied_once_whoever_asks(three: Cluster, package: Path) -> None:
    """From each node and source, again: nothing is left to do; the bookkeeping is equal on all nodes."""
    for number in NODES:
        for source in (f"{PACKAGE}.migrations", package, FILES):
            report = await three.nodes[number].migrate(source)
            assert (report.applied, report.already_applied) == ([], [1, 2, 3])
    rows = await everywhere(three, "SELECT id, name, hash, ts FROM _migrations ORDER BY id")
    assert rows[0] == rows[1] == rows[2]
    assert [row[:3] for row in rows[0]] == [(n, name, digest(FILES[name])) for n, name in enumerate(FILES, 1)]
    assert await everywhere(three, "SELECT id FROM posts") == [[(1,), (2,)]] * 3


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_set_is_told_what_is_wrong_with_it(three: Cluster, wrong: str) -> None:
    """The same words on each node, with `dry_run` too; nothing of it is anywhere."""
    files, message, hint = WRONG[wrong]
    before = await three.client.content_hash()
    for number in NODES:
        for dry_run in (True, False):
            with pytest.raises(hiqlite.MigrationError) as caught:
                await three.nodes[number].migrate(files, dry_run=dry_run)
            assert (caught.value.message, caught.value.hint, caught.value.outcome) == (message, hint, "not_applied")
    await same_content(list(three.nodes.values()))
    assert await three.client.content_hash() == before


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_dry_run_tells_what_a_node_would_do_and_does_nothing(three: Cluster, role: str) -> None:
    """Also on a follower: no entry, and no row on any node."""
    db = three.client if role == "leader" else three.nodes[three.followers[0]]
    await same_index(list(three.nodes.values()))
    before = (await three.client.metrics()).db.last_log_index
    report = await db.migrate(MORE, dry_run=True)
    assert (report.applied, report.already_applied) == ([4], [1, 2, 3])
    assert (await three.client.metrics()).db.last_log_index == before
    assert await everywhere(three, "SELECT max(id) FROM posts") == [[(2,)]] * 3
