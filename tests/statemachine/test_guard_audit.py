"""The audit hook on `sqlite3.connect`: no name of a live database opens it from the standard library."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from hiqlite.errors import UsageError
from hiqlite.statemachine.audit import PROTECTED, ProtectedFiles


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "folder with space" / "live.db"
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t(a)")
    connection.close()
    return path


def names_of(path: Path) -> list[object]:
    """Ways to say the same file."""
    link = path.parent / "symbolic"
    link.symlink_to(path)
    hard = path.parent / "hard"
    os.link(path, hard)
    folder = path.parent.parent / "other"
    folder.symlink_to(path.parent)
    quoted = str(path).replace(" ", "%20")
    return [
        path,
        str(path),
        os.fsencode(path),
        os.path.relpath(path),
        str(path.parent / ".." / path.parent.name / path.name),
        link,
        hard,
        folder / path.name,
        f"file:{quoted}",
        f"file:{quoted}?mode=ro",
        f"file://{quoted}?mode=ro&immutable=1",
        f"file://localhost{quoted}#part",
        f"{path}-wal",
    ]


def test_every_name_of_a_protected_file_is_refused(database: Path) -> None:
    """Relative and absolute paths, bytes, links, folders that are links, URIs, and the WAL beside it."""
    with PROTECTED.protect(database):
        for name in names_of(database):
            with pytest.raises(UsageError, match="live database"):
                sqlite3.connect(name, uri=True)  # type: ignore[arg-type]


def test_other_databases_open_as_ever(database: Path) -> None:
    """In memory, temporary, files beside it, and paths that do not exist."""
    with PROTECTED.protect(database):
        for name in (":memory:", "", "file::memory:?cache=shared", database.parent / "new.db"):
            sqlite3.connect(name, uri=True).close()
        with pytest.raises(sqlite3.OperationalError):
            sqlite3.connect(database / "below" / "a file")
        with pytest.raises(TypeError):
            sqlite3.connect(5)  # type: ignore[arg-type]


def test_protection_ends_with_the_last_of_its_blocks(database: Path) -> None:
    """Counted: two parts of a node may protect the same file."""
    with PROTECTED.protect(database):
        with PROTECTED.protect(database.parent / "." / database.name):
            pass
        with pytest.raises(UsageError):
            sqlite3.connect(database)
    sqlite3.connect(database).close()


def test_a_file_that_was_removed_and_made_anew_stays_protected(database: Path) -> None:
    """The path counts as well as the file."""
    with PROTECTED.protect(database):
        database.unlink()
        with pytest.raises(UsageError):
            sqlite3.connect(database)


def test_what_is_no_path_is_not_covered(database: Path) -> None:
    """The hook gives its answer without raising anything of its own."""
    files = ProtectedFiles()
    assert not files.covers(str(database))
    files.add(database)
    assert files.covers(database)
    assert not files.covers(5)
    assert not files.covers(None)
    assert not files.covers(f"{database}\0")
    files.remove(database)
    assert not files.covers(database)
