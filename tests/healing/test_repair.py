"""`hiqlite recover --repair`: a node that is alone starts again with what can be read, and it is said what is lost."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import hiqlite
from hiqlite.logstore.meta import Meta
from hiqlite.node import Node
from hiqlite.node_repair import Repaired, repair
from hiqlite.statemachine import trust
from hiqlite.statemachine.connection import ConnectionSettings
from hiqlite.testing import cluster
from hiqlite.transport.loopback import loopback_cluster
from tests.healing.damages import DAMAGES, KINDS, NEEDLE, Others, generation
from tests.healing.patients import Prototypes, copy_for

pytestmark = pytest.mark.timeout(60)
ROWS = "SELECT text FROM t ORDER BY id"


@pytest.fixture(scope="module")
def prototypes():
    with TemporaryDirectory(prefix="hiqlite-healing-") as folder:
        made = Prototypes(Path(folder))
        asyncio.run(made.make_alone())
        yield made


class Patient:
    """A copy of a node that is alone."""

    def __init__(self, prototypes: Prototypes, folder: Path) -> None:
        self.folder = folder / "data"
        self.config = prototypes.alone(self.folder)
        self._others = Others(prototypes.folder / "stranger", prototypes.folder / "stranger")
        copy_for(prototypes.folder / "alone", self.folder, "")
        shutil.rmtree(self.folder / "kept")

    def damage(self, what: str, damage: str) -> None:
        DAMAGES[damage](KINDS[what], self.folder, self._others)

    async def repaired(self) -> tuple[Repaired, list[str]]:
        """It does not start before, and does afterwards: what was done, and the newest rows."""
        with pytest.raises(hiqlite.StorageError, match="recover --repair"):
            await Node.start(self.config)
        done = await repair(self.config)
        for _ in range(2):
            node = await Node.start(self.config)
            try:
                rows = [text for (text,) in await node.client.query(ROWS, consistency="linearizable")]
                assert rows[:3000] == [f"{n} alone " + "x" * 60 for n in range(60) for _ in range(50)]
                await node.client.execute("DELETE FROM t WHERE text = 'afterwards'")
                await node.client.execute("INSERT INTO t (text) VALUES ('afterwards')")
            finally:
                await node.shutdown()
        return done, rows[3000:-1]


@pytest.fixture
def patient(prototypes: Prototypes, tmp_path: Path) -> Patient:
    return Patient(prototypes, tmp_path)


@pytest.mark.parametrize(
    ("what", "damage", "lost"),
    [
        ("log/db/*.wal, newest", "a flipped bit", "header of segment"),
        ("log/db/*.wal, newest", "missing", "newest segment is missing"),
        ("log/db/*.wal, older", "missing", "are missing"),
        ("log/db", "missing", "the log is gone"),
        ("log", "something else in its place", "the log is gone"),
        ("meta/data.mdb", "missing", "the metadata"),
        ("meta", "of another cluster", "the metadata"),
        ("cache/state", "a flipped bit", "what the cache group held"),
    ],
)
async def test_what_the_database_holds_stays(patient: Patient, what: str, damage: str, lost: str) -> None:
    """All rows are there, for they were applied; what may be missing is named, and what was damaged is kept."""
    patient.damage(what, damage)
    done, rows = await patient.repaired()
    assert rows == [NEEDLE, "the last one"]
    assert any(lost in one for one in done.lost), done.lost
    assert any((patient.folder / "kept").iterdir())


@pytest.mark.parametrize("what", ["log/db", "meta"])
async def test_terms_go_on_behind_those_of_the_database(patient: Patient, what: str) -> None:
    """Each start was another term; the log that begins anew must not begin in an older one than it ended in."""
    for number in range(3):
        node = await Node.start(patient.config)
        await node.client.execute("INSERT INTO t (text) VALUES (?)", [f"start {number}"])
        await node.shutdown()
    patient.damage(what, "missing")
    _, rows = await patient.repaired()
    assert rows == [NEEDLE, "the last one", "start 0", "start 1", "start 2"]


async def test_entries_that_only_the_log_has_are_applied_up_to_the_damaged_one(patient: Patient) -> None:
    """The database went back to its last checkpoint; the log has more, and one entry of it cannot be read."""
    patient.damage("db/*/hiqlite.db-wal", "missing")
    patient.damage("log/db/*.wal, an entry", "a flipped bit")
    done, rows = await patient.repaired()
    assert rows == []
    assert any("damaged" in one for one in done.lost), done.lost


async def test_entries_that_only_the_log_has_are_all_applied_where_they_can_be_read(patient: Patient) -> None:
    """Nothing is lost with the metadata alone."""
    patient.damage("db/*/hiqlite.db-wal", "missing")
    patient.damage("meta", "missing")
    done, rows = await patient.repaired()
    assert rows == [NEEDLE, "the last one"] and done.from_log >= 2


@pytest.mark.parametrize("written", [[], ["node_id"], ["node_id", "generation"]])
@pytest.mark.parametrize("started", [False, True])
async def test_a_repair_that_was_killed_is_done_again(patient: Patient, written: list[str], started: bool) -> None:
    """Wherever it was with the new metadata, and whether a start was tried in between: no empty database takes the
    place of the real one, and no cluster that nobody remembers keeps the node from starting."""
    name = generation(patient.folder).name
    patient.damage("db/*/hiqlite.db-wal", "missing")
    patient.damage("meta", "missing")
    meta = Meta.open(patient.folder / "meta")
    meta.put({key: value for key, value in (("node_id", 1), ("db/generation", name)) if key.split("/")[-1] in written})
    meta.close()
    if started:
        done, rows = await patient.repaired()
    else:
        done = await repair(patient.config)
        node = await Node.start(patient.config)
        rows = [text for (text,) in await node.client.query(ROWS, consistency="linearizable")][3000:]
        await node.shutdown()
    assert rows == [NEEDLE, "the last one"] and done.from_log >= 2
    assert generation(patient.folder).name == name


async def test_a_database_whose_metadata_are_gone_is_of_no_cluster_until_it_forms_one(patient: Patient) -> None:
    """A start that is killed where it has recorded its cluster, and the database does not say so yet, is done again."""
    patient.damage("meta", "missing")
    database = generation(patient.folder) / "hiqlite.db"
    assert trust.stand_of(database, ConnectionSettings()).cluster
    await repair(patient.config)
    assert not trust.stand_of(database, ConnectionSettings()).cluster


async def test_of_two_databases_that_nothing_names_none_is_chosen(patient: Patient) -> None:
    """Nor is an empty one made: whoever has the data folder decides."""
    other = patient.folder / "db" / "0123456789abcdef"
    shutil.copytree(generation(patient.folder), other)
    meta = Meta.open(patient.folder / "meta")
    meta.set_generation(0, None)
    meta.close()
    for _ in range(2):
        with pytest.raises(hiqlite.StorageError, match="holds 2 databases"):
            await repair(patient.config)
        with pytest.raises(hiqlite.StorageError, match="holds 2 databases"):
            await Node.start(patient.config)
    assert (other / "hiqlite.db").exists()


async def test_a_database_that_nothing_names_is_the_current_one(patient: Patient) -> None:
    """If it is the only one: an empty database in its place would be all that is left at the next start."""
    name = generation(patient.folder).name
    meta = Meta.open(patient.folder / "meta")
    meta.set_generation(0, None)
    meta.close()
    for _ in range(2):
        node = await Node.start(patient.config)
        assert await node.client.query_value("SELECT count(*) FROM t") == 3002
        await node.shutdown()
    assert generation(patient.folder).name == name


@pytest.mark.parametrize(
    ("damage", "cut"),
    [("missing", ""), ("truncated", ""), ("a flipped bit", ""), ("of another cluster", ""),
     ("a flipped bit", "meta/data.mdb")],
)  # fmt: skip
async def test_a_damaged_database_is_not_repaired(patient: Patient, damage: str, cut: str) -> None:
    """Half of it would be wrong data: a backup is needed, and nothing is touched."""
    patient.damage("db/*/hiqlite.db", damage)
    if cut:
        patient.damage(cut, "truncated")
    for _ in range(2):
        with pytest.raises(hiqlite.SnapshotCorruption, match="restore a backup") as caught:
            await repair(patient.config)
        assert "recover" not in str(caught.value)
    assert not (patient.folder / "kept").exists()


async def test_only_a_node_that_is_alone_and_down_is_repaired(patient: Patient, tmp_path: Path) -> None:
    """A member heals by itself; a folder in use is left alone; and there must be one."""
    member = hiqlite.NodeConfig.from_mapping({**loopback_cluster(tmp_path, 3, {})[1], "data_dir": str(patient.folder)})
    with pytest.raises(hiqlite.UsageError, match="heals by itself"):
        await repair(member)
    with pytest.raises(hiqlite.UsageError, match="no data folder"):
        await repair(patient.config.with_overrides(data_dir=str(tmp_path / "nowhere")))
    node = await Node.start(patient.config)
    try:
        with pytest.raises(hiqlite.DataFolderInUse):
            await repair(patient.config)
    finally:
        await node.shutdown()


async def test_a_member_is_not_repaired_whatever_the_config_says(tmp_path: Path) -> None:
    """Opened by its path alone it looks like a node that is: it would be a second cluster, with the id of the first."""
    async with cluster(3, base_dir=tmp_path) as three:
        await three.client.execute("CREATE TABLE t (x)")
        folder = three._running[1].config.data_path
        await three.stop(1)
        for number, reason in ((1, "heals by itself"), (2, "that of node 1")):
            alone = hiqlite.NodeConfig.from_mapping({"data_dir": str(folder), "node_id": number})
            with pytest.raises(hiqlite.UsageError, match=reason):
                await repair(alone)
        assert not (folder / "kept").exists()
        await three.start(1)
        await three.wait_until(three.settled)


async def test_the_command_says_what_was_done(patient: Patient, tmp_path: Path) -> None:
    """One line for each thing that may be missing."""
    patient.damage("log/db", "missing")
    file = tmp_path / "hiqlite.toml"
    file.write_text(f'[hiqlite]\ndata_dir = "{patient.folder}"\nwal_size = "64 KiB"\n')
    command = [sys.executable, "-m", "hiqlite.server.main", "recover", "--repair", "-c", str(file)]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "the database holds everything up to entry" in ended.stdout
    assert "lost: the log is gone" in ended.stdout and "`kept`" in ended.stdout


async def test_a_database_of_another_name_is_not_made_anew(prototypes: Prototypes, tmp_path: Path) -> None:
    """A repair with a config that gives the database another name says so, and leaves everything where it is."""
    patient = Patient(prototypes, tmp_path)
    patient.damage("log/db/*.wal, an entry", "a flipped bit")
    with pytest.raises(hiqlite.ConfigError, match=r"is hiqlite\.db, the config names app\.db"):
        await repair(prototypes.alone(patient.folder, filename_db="app.db"))
    assert not (patient.folder / "kept").exists() and not list(patient.folder.glob("db/*/app.db*"))
