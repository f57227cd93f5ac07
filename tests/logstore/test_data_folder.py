"""The data folder belongs to one process at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hiqlite.errors import DataFolderInUse, StorageError
from hiqlite.logstore.folder import DataFolder

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from hiqlite.logstore.folder import DataFolder
held = DataFolder(sys.argv[1])
print(1, flush=True)
sys.stdin.read()
"""


def test_a_folder_is_made_private_and_names_its_parts(tmp_path: Path) -> None:
    """Mode 0700, missing parents made; the places of metadata, logs and databases."""
    with DataFolder(tmp_path / "a" / "b") as folder:
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        assert folder.meta == folder.path / "meta"
        assert folder.log(0) == folder.path / "log" / "db" and folder.log(1) == folder.path / "log" / "cache"
        assert folder.databases == folder.path / "db"


def test_a_second_owner_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    """In this process and in another one; when the owner is gone the folder is free, however it went."""
    with DataFolder(tmp_path), pytest.raises(DataFolderInUse, match=f"process {os.getpid()}"):
        DataFolder(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"1\n"
        with pytest.raises(DataFolderInUse, match=f"process {child.pid}"):
            DataFolder(tmp_path)
        child.kill()
    DataFolder(tmp_path).close()


def test_a_path_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    """One clear sentence instead of an OSError."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot use data folder"):
        DataFolder(tmp_path / "file")
