"""Room that is kept free on the disk, on a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hiqlite.logstore.space import Space


def free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def test_little_room_is_noticed_before_there_is_none(tmp_path: Path) -> None:
    """What is kept is enough for SQLite's own log at its longest, and a next segment of each log."""
    space = Space(tmp_path, 64 << 20)
    assert space.kept_bytes == 160 << 20
    assert Space(tmp_path, 1 << 40).kept_bytes == 288 << 20
    space.kept_bytes = free_bytes(tmp_path) // 2
    assert not space.look()
    space.kept_bytes = free_bytes(tmp_path) * 2
    assert space.look()


def test_it_does_not_flutter(tmp_path: Path) -> None:
    """A little more than what is kept is enough to go on, and not enough to begin again."""
    space = Space(tmp_path, 1 << 20)
    space.kept_bytes = free_bytes(tmp_path) * 9 // 10
    assert not space.look()
    space.kept_bytes = free_bytes(tmp_path) * 2
    assert space.look()
    space.kept_bytes = free_bytes(tmp_path) * 9 // 10
    assert space.look()
    space.kept_bytes = free_bytes(tmp_path) // 2
    assert not space.look()


def test_a_folder_that_is_gone_says_nothing(tmp_path: Path) -> None:
    """Whoever asks is told, and what was known stays known."""
    space = Space(tmp_path / "gone", 1 << 20)
    with pytest.raises(OSError):
        space.look()
    assert not space.is_low
