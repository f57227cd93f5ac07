"""Every file and folder of the data folder, damaged in every way that there is: as docs/operations.md says."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import hiqlite
from hiqlite import durable
from hiqlite.logstore.aside import EVIDENCE
from hiqlite.node import Node
from tests.healing.damages import CASES, DAMAGES, KINDS, NEEDLE, Others
from tests.healing.patients import (
    DEADLINE_S,
    Prototypes,
    as_owner,
    as_somebody,
    copy_for,
    fill_cache,
    majority,
    more_for,
    take_back,
    until,
)

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
ROWS = "SELECT id, text FROM t ORDER BY id"
ERRORS = {name for name in dir(hiqlite) if name.endswith(("Error", "Corruption", "InUse"))}


def table() -> dict[tuple[str, str], tuple[str, str]]:
    """(what, damage) -> (what a member does, what a node that is alone does), as the document says."""
    text = OPERATIONS.read_text(encoding="utf-8")
    section = text[text.index("## Damaged files") :]
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or cells[0] in ("what", "---"):
            continue
        for what in cells[0].split("; "):
            for damage in cells[1].split(", "):
                key = (what.replace("`", ""), damage)
                assert key not in found, f"{key} stands twice"
                found[key] = (cells[2], cells[3])
    return found


def test_the_document_tells_of_every_case() -> None:
    """One line for each thing and each damage, and no line for what cannot be."""
    assert set(table()) == set(CASES)


EXPECTED = table()
SLICE = {
    ("meta/data.mdb", "missing"),
    ("meta/data.mdb", "a flipped bit"),
    ("log/db/*.wal, newest", "missing"),
    ("log/db/*.wal, an entry", "a flipped bit"),
    ("db/*/hiqlite.db", "a flipped bit"),
    ("db/*/hiqlite.db-wal", "missing"),
    ("cache/state", "truncated"),
    ("log/cache", "missing"),
    ("lock", "unreadable"),
    ("log/db/prepared.tmp", "something else in its place"),
    ("aside/clusters", "missing"),
}
NOTHING_ASIDE = {
    ("aside", "missing"), ("aside", "empty"), ("aside", "something else in its place"),
    ("aside/*/diverged.txt", "missing"),
}  # fmt: skip
PARAMETERS = [
    pytest.param(*case, marks=() if case in SLICE else pytest.mark.long, id=": ".join(case)) for case in CASES
]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def prototypes():
    with TemporaryDirectory(prefix="hiqlite-healing-") as folder:
        Path(folder).chmod(0o755)
        made = Prototypes(Path(folder))
        asyncio.run(made.make())
        yield made


@pytest.mark.parametrize(("what", "damage"), PARAMETERS)
async def test_a_node_that_is_alone(
    prototypes: Prototypes, place: Path, caplog: pytest.LogCaptureFixture, what: str, damage: str
) -> None:
    """It has all that it acknowledged, or says in one sentence what is wrong and what to do, and changes nothing."""
    copy_for(prototypes.folder / "alone", place / "data", what)
    others = Others(prototypes.folder / "members-1", prototypes.folder / "stranger")
    DAMAGES[damage](KINDS[what], place / "data", others)
    expected = EXPECTED[what, damage][1]
    config = prototypes.alone(place / "data", **more_for(what))
    with as_somebody(place):
        if expected in ERRORS:
            for _ in range(2):
                await check_refusal(config, expected)
            return
        async with asyncio.timeout(DEADLINE_S):
            node = await Node.start(config)
        try:
            if expected == "starts empty":
                await node.client.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
                return
            await node.client.execute("INSERT INTO t (text) VALUES ('afterwards')")
            check_rows(await node.client.query(ROWS, consistency="linearizable"), "alone")
            await check_leftovers(node, what, damage, expected, caplog)
            await use(node, what)
        finally:
            await node.shutdown()


@pytest.mark.parametrize(("what", "damage"), PARAMETERS)
async def test_a_member(
    prototypes: Prototypes, place: Path, caplog: pytest.LogCaptureFixture, what: str, damage: str
) -> None:
    """It is a voter with all data in the end, by itself, or says in one sentence what is wrong and what to do."""
    copy_for(prototypes.folder / "members-3", place / "3", what)
    others = Others(prototypes.folder / "members-1", prototypes.folder / "others-3")
    DAMAGES[damage](KINDS[what], place / "3", others)
    expected = EXPECTED[what, damage][0]
    config = prototypes.member(3, place / "3", **more_for(what))
    if expected in ERRORS:
        with as_somebody(place):
            for _ in range(2):
                await check_refusal(config, expected)
        return
    async with majority(prototypes, place) as nodes:
        with as_somebody(place):
            patient = await Node.start(config, wait=False)
            try:
                await check_healed(nodes, patient, expected)
                await check_leftovers(patient, what, damage, expected, caplog)
                await use(patient, what)
            finally:
                await patient.shutdown()


@pytest.mark.parametrize("name", ["alone", "members-3"])
async def test_a_database_of_another_name_than_the_config_gives_is_no_lost_one(
    prototypes: Prototypes, place: Path, name: str
) -> None:
    """Whoever changes filename_db on all nodes loses nothing: no node starts, and each says what to do."""
    copy_for(prototypes.folder / name, place / "data", "")
    made = prototypes.alone if name == "alone" else partial(prototypes.member, 3)
    config = made(place / "data", filename_db="app.db")
    before = written(place / "data")
    with pytest.raises(hiqlite.ConfigError, match=r"is hiqlite\.db, the config names app\.db") as caught:
        await Node.start(config)
    assert caught.value.key == "filename_db" and "filename_db = hiqlite.db" in (caught.value.hint or "")
    assert written(place / "data") == before
    for file in (place / "data" / "db").glob("*/hiqlite.db*"):
        file.rename(file.with_name(file.name.replace("hiqlite.db", "app.db")))
    node = await Node.start(config, wait=False)
    try:
        assert len(await node.client.query(ROWS)) > 3000
    finally:
        await node.shutdown()


def written(folder: Path) -> dict[Path, int]:
    """Every file and folder, and when it was written to; 0 for LMDB's own, which are written by looking into them."""
    found = (path for path in folder.rglob("*") if path.name != "lock")
    return {path: 0 if "meta" in path.parts else path.stat().st_mtime_ns for path in found}


async def check_healed(nodes: dict[int, Node], patient: Node, expected: str) -> None:
    lives = {number: group.storage.identity for number, group in patient.groups.items()}
    known = nodes[1].storage.meta
    is_new = [number for number in lives if lives[number] not in known.recorded_set(number)]
    if expected != "no harm or comes back":
        assert bool(is_new) == (expected == "comes back")
    assert any(one.recovered.faulty for one in patient.storage.groups) == (expected == "fetches")
    if is_new:
        await take_back(nodes, patient)
    async with asyncio.timeout(DEADLINE_S):
        await patient.groups[0].until_leader()
        await patient.client.execute("INSERT INTO t (text) VALUES ('afterwards')")
        check_rows(await patient.client.query(ROWS, consistency="linearizable"), "members")
    await until(lambda: not any(one.group.engine.faulty for one in patient.groups.values()))
    index = patient.group.engine.commit_index
    for node in (*nodes.values(), patient):
        await node.group.until_applied(index)
    assert len({await node.client.content_hash() for node in (*nodes.values(), patient)}) == 1


async def check_leftovers(node: Node, what: str, damage: str, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    """What lay aside goes, or stays where nobody can tell that it is not needed. What people were to look at stays."""
    folder = Path(node.config.data_path)
    if expected == "no harm, kept":
        await until(lambda: f"{folder / 'aside'} is kept" in caplog.text)
        with as_owner(folder / "aside"):
            assert names(folder / "aside") == ["1-moved-log", "2-moved-db"]
        return
    await until(lambda: not names(folder / "aside"))
    if what not in ("evidence", "the data folder"):
        was_there = what.startswith("aside") and (what, damage) not in NOTHING_ASIDE
        assert names(folder / "evidence") == ["1-db", *["2-aside-2-moved-db"] * was_there]
    if what not in ("kept", "the data folder"):
        assert names(folder / "kept") == ["1-moved-old"]
    if what == "evidence":
        assert any((folder / "evidence").glob(f"*/{EVIDENCE}"))


def names(folder: Path) -> list[str]:
    """Of what was put there."""
    return [one for one in durable.names(folder) if one[0].isdigit()]


async def use(node: Node, what: str) -> None:
    """What was damaged is in the way of nothing: the log goes on in new files, states are kept, images are made."""
    if what.endswith(".tmp") and what.startswith("log/db"):
        for _ in range(3):
            await node.client.execute_many("INSERT INTO t (text) VALUES (?)", [("y" * 60,)] * 500)
    elif what.endswith(".tmp") and what.startswith("log/cache"):
        for _ in range(3):
            await fill_cache(node)
    elif what == "cache/state.tmp":
        cache = node.storage.groups[1].machine
        await fill_cache(node)
        await until(lambda: cache.applied_index > 0)
        cache.make_durable()
        await until(lambda: cache.durable_index == cache.applied_index)
    elif what == "db/images/rehearsal-*":
        assert (await node.client.migrate({"1_a.sql": "CREATE TABLE m (x)"}, dry_run=True)).applied == [1]
    elif what.startswith("db/images/"):
        images = node.storage.db.images
        made = await asyncio.to_thread(images.make, node.storage.db.database, threading.Event())
        incoming = await asyncio.to_thread(images.begin, made.offer(), threading.Event())
        incoming.discard()
        made.path.unlink()


def check_rows(rows: list[tuple[int, str]], name: str) -> None:
    """Exactly what was written, and once."""
    texts = [f"{number} {name} " + "x" * 60 for number in range(60) for _ in range(50)]
    assert [text for _, text in rows] == [*texts, NEEDLE, "the last one", "afterwards"]
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1))


async def check_refusal(config: hiqlite.NodeConfig, expected: str) -> None:
    kind = getattr(hiqlite, expected)
    with pytest.raises(kind) as caught:
        async with asyncio.timeout(DEADLINE_S):
            node = await Node.start(config)
            await node.shutdown()
    assert type(caught.value) is kind or kind is hiqlite.StorageError, repr(caught.value)
    assert caught.value.hint and str(config.data_path) in caught.value.message, repr(caught.value)
    assert "internal" not in str(caught.value)
