"""Where a start puts what it cannot trust: whose it is stands beside it, whatever comes in between."""

from __future__ import annotations

from pathlib import Path

from hiqlite.logstore.aside import CLUSTERS, NOBODY_KNOWS, Aside

OWN = "ab" * 32


def filled(folder: Path) -> Aside:
    """Something of this cluster was put aside."""
    aside = Aside(folder)
    aside.say_whose(OWN)
    for name in ("log", "db"):
        (folder / name).mkdir()
        (folder / name / "file").write_text(name)
        aside.put(folder / name)
    return aside


def test_what_a_crash_left_of_saying_whose_it_is_is_no_data(tmp_path: Path) -> None:
    """Half of that file, and nothing beside it: the next one who puts something here says it from the beginning."""
    aside = Aside(tmp_path)
    aside.folder.mkdir()
    (aside.folder / f"{CLUSTERS}.tmp").write_text("ab")
    assert not aside.holds_anything and aside.clusters == frozenset()
    aside = filled(tmp_path)
    assert aside.clusters == {OWN}


def test_what_is_said_already_is_not_written_again(tmp_path: Path) -> None:
    """So a start puts more here though its disk is full."""
    aside = filled(tmp_path)
    inode = (aside.folder / CLUSTERS).stat().st_ino
    for cluster in (OWN, OWN):
        aside.say_whose(cluster)
    aside.say_whose()
    assert (aside.folder / CLUSTERS).stat().st_ino == inode
    aside.say_whose("cd" * 32)
    assert aside.clusters == {OWN, "cd" * 32}


def test_clearing_that_was_cut_short_is_done_by_the_next_one(tmp_path: Path) -> None:
    """It knows whose the rest is: that goes last. Without the word of an end nobody knows, and the data stay."""
    aside = filled(tmp_path)
    first, *_ = sorted(path for path in aside.folder.iterdir() if path.name != CLUSTERS)
    for path in first.iterdir():
        path.unlink()
    first.rmdir()
    assert aside.clusters == {OWN} and aside.holds_anything
    aside.clear()
    assert not aside.folder.exists()
    aside = filled(tmp_path)
    (aside.folder / CLUSTERS).unlink()
    assert aside.clusters == {NOBODY_KNOWS}
