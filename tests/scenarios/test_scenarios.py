"""The scenarios beside this file, each played and compared with what it says (CONTRIBUTING.md says how to add one)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.scenario_language import parse, play

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_tells_what_its_file_says(path: Path, rewrite: bool) -> None:
    """Line for line; a broken promise of Raft fails also while files are rewritten."""
    text = path.read_text(encoding="utf-8")
    blocks = parse(text)
    assert blocks and blocks[-1].commands[-1] == "check", "a scenario ends with a check of what always holds"
    played = play(blocks)
    if rewrite:
        path.write_text(played, encoding="utf-8")
    else:
        assert played == text


@pytest.mark.parametrize("path", FILES[:3], ids=lambda path: path.stem)
def test_a_scenario_tells_the_same_each_time(path: Path) -> None:
    """Nothing in it depends on chance, clocks or the order of sets."""
    blocks = parse(path.read_text(encoding="utf-8"))
    assert play(blocks) == play(blocks)


def test_another_text_is_noticed() -> None:
    """The runner compares: one changed line is a difference."""
    text = FILES[0].read_text(encoding="utf-8")
    changed = text.replace("term 1", "term 9", 1)
    assert changed != text and play(parse(changed)) == text


def test_a_broken_promise_fails_the_run() -> None:
    """A disk that was lost without a new incarnation votes twice in a term; no text makes that right."""
    story = """members voters=1,2,3
start all
cut 1-3
campaign 1
isolate 1
crash 2
start 2
campaign 3
----
"""
    with pytest.raises(AssertionError, match="voted twice in term 1"):
        play(parse(story))
