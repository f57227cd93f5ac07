"""Names on a disk that does not tell: an error, never a folder in which nothing is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiqlite import durable
from hiqlite.errors import StorageError
from hiqlite.logstore.segments import list_segments, segment_path
from hiqlite.node_generations import names_of
from tests.healing.patients import as_somebody

ASKS: dict[str, tuple[Callable[[Path], Any], Any]] = {
    "names": (durable.names, []),
    "exists": (lambda folder: durable.exists(folder / "a"), False),
    "is_file": (lambda folder: durable.is_file(folder / "a"), False),
    "is_folder": (lambda folder: durable.is_folder(folder / "a"), False),
    "list_segments": (list_segments, []),
    "names_of": (lambda folder: names_of(folder, "a.db"), []),
}


@pytest.mark.parametrize("name", ASKS)
def test_only_what_the_disk_says_is_not_there_is_not_there(name: str, place: Path) -> None:
    """A folder that is missing, a file in its place; and one that may not be looked into."""
    ask, nothing = ASKS[name]
    assert ask(place / "missing") == nothing
    (place / "file").write_bytes(b"")
    assert ask(place / "file") == nothing
    folder = place / "folder"
    folder.mkdir()
    (folder / "a").mkdir()
    segment_path(folder, 7).touch()
    with as_somebody(place):
        folder.chmod(0)
        with pytest.raises((PermissionError, StorageError)):
            ask(folder)
        folder.chmod(0o700)


def test_what_is_there_is_told(tmp_path: Path) -> None:
    """Files, folders, links to either, and links that lead nowhere."""
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "a").mkdir()
    for name, target in (("to b", "b"), ("to a", "a"), ("astray", "nowhere")):
        os.symlink(target, tmp_path / name)
    assert durable.names(tmp_path) == ["a", "astray", "b", "to a", "to b"]
    assert all(durable.exists(tmp_path / name) for name in durable.names(tmp_path))
    assert [name for name in durable.names(tmp_path) if durable.is_file(tmp_path / name)] == ["b", "to b"]
    assert [name for name in durable.names(tmp_path) if durable.is_folder(tmp_path / name)] == ["a", "to a"]
    for number in (3, 0xAB):
        segment_path(tmp_path, number).touch()
    (tmp_path / "0000000000000001.wal.aside").touch()
    assert list_segments(tmp_path) == [3, 0xAB]
