"""The catalogue of mutants and the sources that it changes fit each other."""

from __future__ import annotations

import re

from house_tree import ROOT

from tests.mutants.run import EVERY, source_of


def test_each_mutant_has_its_place() -> None:
    """What a mutant replaces stands there exactly once; no two share a name."""
    lost = [one.name for one in EVERY if source_of(one, ROOT).read_text(encoding="utf-8").count(one.old) != 1]
    assert lost == []
    assert len({one.name for one in EVERY}) == len(EVERY)


def test_the_document_names_each_mutant_and_what_it_changes() -> None:
    """In one row each; what killed it stands there as it was found last."""
    text = (ROOT / "docs" / "mutants.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]\d\w*) \| ([^|]*) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted((one.name, one.what) for one in EVERY)
