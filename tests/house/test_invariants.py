"""The simulator's invariants: one property in each file, which says where that is written."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house_tree import ROOT, shown

from tests.sim.checks import STEPS
from tests.sim.invariants import ALL

FILES = sorted(
    path for path in (ROOT / "tests" / "sim" / "invariants").glob("*.py") if path.stem not in ("__init__", "base")
)
SOURCE = re.compile(
    r"Raft (paper|thesis) (figure )?\d+(\.\d+)*\b"
    r"|\b(consensus|semantics)\.md (rules?|sections?) \d+\b"
)


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_each_invariant_names_the_section_that_it_keeps(path: Path) -> None:
    """Of the paper, the thesis or the design: a reader can look up what is claimed."""
    assert SOURCE.search(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_each_file_holds_one_invariant_that_is_told_of_its_steps(path: Path) -> None:
    """It is among those that every schedule is checked by, under a name of its own, and listens to something."""
    here = [kind for kind in ALL if kind.__module__ == f"tests.sim.invariants.{path.stem}"]
    classes = [one for one in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(one, ast.ClassDef)]
    assert [kind.__name__ for kind in here] == [one.name for one in classes] and len(here) == 1
    assert here[0].name and [kind.name for kind in ALL].count(here[0].name) == 1
    assert any(hasattr(here[0], step) for step in STEPS)
