"""The last entry of a log, damaged, of a node that is alone: told once the log says that it was synced.

Before that it cannot be told from what a crash cut short (docs/durability.md): for the first 20 ms after the log fell
idle. A damaged entry further up is the matter of test_damaged_folder.py.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import hiqlite
from hiqlite.node import Node
from hiqlite.runtime.mirror_record import Mirrored
from tests.healing.damages import CACHE_NEEDLE, KINDS, NEEDLE, Kind, segment
from tests.healing.patients import MANY, SETTINGS, mirror, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
LAST = {name: KINDS[f"log/{name}/*.wal, an entry"] for name in ("db", "cache")}
MARK_BYTES_MIN = 48  # of a header, which the mark that the entry was synced has of its own


def place_of(kind: Kind, data: bytes) -> int:
    """Of a byte in the payload of the last entry."""
    assert kind.flip_at is not None
    return kind.flip_at(data)


def marked(folder: Path, name: str) -> bool:
    """Whether something stands behind the last entry, and the zeros that it is filled up with."""
    data = segment(-1, name)(folder).read_bytes()
    return len(data.rstrip(b"\0")) > place_of(LAST[name], data) + len(NEEDLE) + MARK_BYTES_MIN


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def folders(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """Of a node in whose logs each last entry is known: as a crash left it when it was idle, and after a shutdown."""
    base = tmp_path_factory.mktemp("last")
    node = await Node.start(hiqlite.NodeConfig.from_mapping({"data_dir": str(base / "stopped"), **SETTINGS}))
    await until(lambda: node.groups[1].group.started and node.groups[1].group.leads)
    await node.client.execute("CREATE TABLE t (text)")
    for change in (Mirrored(0, MANY, ()), Mirrored(0, (*MANY, CACHE_NEEDLE), ())):
        await mirror(node.groups[1].group, change)
    await node.client.execute("INSERT INTO t VALUES (?)", [NEEDLE])
    await until(lambda: all(marked(base / "stopped", name) for name in LAST))
    shutil.copytree(base / "stopped", base / "idle")
    await node.shutdown()
    yield base


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("left", ["idle", "stopped"])
async def test_it_is_told_once_the_log_says_that_it_was_synced(
    folders: Path, tmp_path: Path, name: str, left: str
) -> None:
    """The mark came with the idle moment, or with the shutdown. Nothing is changed, so the next start tells it too."""
    shutil.copytree(folders / left, tmp_path / "data")
    path = segment(-1, name)(tmp_path / "data")
    data = bytearray(path.read_bytes())
    data[place_of(LAST[name], data)] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(hiqlite.LogCorruption, match="are damaged") as caught:
            await Node.start(hiqlite.NodeConfig.from_mapping({"data_dir": str(tmp_path / "data"), **SETTINGS}))
        assert str(path.parent) in caught.value.message and "recover --repair" in (caught.value.hint or "")


@pytest.mark.parametrize("name", LAST)
async def test_without_the_mark_it_is_what_a_crash_cut_short(folders: Path, tmp_path: Path, name: str) -> None:
    """The log ends before it and goes on; a database that holds it already keeps it."""
    shutil.copytree(folders / "idle", tmp_path / "data")
    path = segment(-1, name)(tmp_path / "data")
    data = path.read_bytes()
    at = place_of(LAST[name], data)
    path.write_bytes(data[:at] + bytes(len(data) - at))
    for starts in range(2):
        node = await Node.start(hiqlite.NodeConfig.from_mapping({"data_dir": str(tmp_path / "data"), **SETTINGS}))
        try:
            assert all(one.recovered.whole and not one.recovered.faulty for one in node.storage.groups)
            rows = await node.client.query("SELECT text FROM t", consistency="linearizable")
            assert [text for (text,) in rows] == [NEEDLE, *["afterwards"] * starts]
            await node.client.execute("INSERT INTO t VALUES ('afterwards')")
        finally:
            await node.shutdown()
