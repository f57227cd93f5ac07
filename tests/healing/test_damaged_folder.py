"""Every file and folder of the data folder, damaged in every way that there is: as docs/operations.md says."""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import hiqlite
from hiqlite.node import Node
from tests.healing.damages import CASES, DAMAGES, KINDS, NEEDLE, Others
from tests.healing.patients import DEADLINE_S, Prototypes, as_somebody, majority, take_back, until

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
}
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
async def test_a_node_that_is_alone(prototypes: Prototypes, place: Path, what: str, damage: str) -> None:
    """It has all that it acknowledged, or says in one sentence what is wrong and what to do, and changes nothing."""
    shutil.copytree(prototypes.folder / "alone", place / "data")
    others = Others(prototypes.folder / "members-1", prototypes.folder / "stranger")
    DAMAGES[damage](KINDS[what], place / "data", others)
    expected = EXPECTED[what, damage][1]
    config = prototypes.alone(place / "data")
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
        assert not (place / "data" / "aside").exists()
    finally:
        await node.shutdown()


@pytest.mark.parametrize(("what", "damage"), PARAMETERS)
async def test_a_member(prototypes: Prototypes, place: Path, what: str, damage: str) -> None:
    """It is a voter with all data in the end, by itself, or says in one sentence what is wrong and what to do."""
    shutil.copytree(prototypes.folder / "members-3", place / "3")
    others = Others(prototypes.folder / "members-1", prototypes.folder / "others-3")
    DAMAGES[damage](KINDS[what], place / "3", others)
    expected = EXPECTED[what, damage][0]
    config = prototypes.member(3, place / "3")
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
            finally:
                await patient.shutdown()


@pytest.mark.parametrize("name", ["alone", "members-3"])
async def test_a_database_of_another_name_than_the_config_gives_is_no_lost_one(
    prototypes: Prototypes, place: Path, name: str
) -> None:
    """Whoever changes filename_db on all nodes loses nothing: no node starts, and each says what to do."""
    shutil.copytree(prototypes.folder / name, place / "data")
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
    assert bool(patient.storage.db.recovered.faulty) == (expected == "fetches")
    if is_new:
        await take_back(nodes, patient)
    async with asyncio.timeout(DEADLINE_S):
        await patient.groups[0].until_leader()
        await patient.client.execute("INSERT INTO t (text) VALUES ('afterwards')")
        check_rows(await patient.client.query(ROWS, consistency="linearizable"), "members")
    await until(lambda: not patient.group.engine.faulty)
    await until(lambda: not (Path(patient.config.data_path) / "aside").exists())
    index = patient.group.engine.commit_index
    for node in (*nodes.values(), patient):
        await node.group.until_applied(index)
    assert len({await node.client.content_hash() for node in (*nodes.values(), patient)}) == 1


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
