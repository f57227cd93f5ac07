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
from hiqlite.node import Node
from hiqlite.node_repair import Repaired, repair
from hiqlite.transport.loopback import loopback_cluster
from tests.healing.damages import DAMAGES, KINDS, NEEDLE, Others
from tests.healing.patients import Prototypes

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
        shutil.copytree(prototypes.folder / "alone", self.folder)

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


@pytest.mark.parametrize("damage", ["missing", "truncated", "a flipped bit", "of another cluster"])
async def test_a_damaged_database_is_not_repaired(patient: Patient, damage: str) -> None:
    """Half of it would be wrong data: a backup is needed, and nothing is touched."""
    patient.damage("db/*/hiqlite.db", damage)
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
