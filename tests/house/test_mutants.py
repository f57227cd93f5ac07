"""The catalogue of mutants and the sources that it changes fit each other."""

from __future__ import annotations

from house_tree import PACKAGE

from tests.mutants.run import ENGINE, FOUNDING, LOG, SQL


def test_each_mutant_has_its_place() -> None:
    """What a mutant replaces stands there exactly once; no two share a name."""
    every = [*ENGINE, *LOG, *FOUNDING, *SQL]
    lost = [one.name for one in every if (PACKAGE / one.file).read_text(encoding="utf-8").count(one.old) != 1]
    assert lost == []
    assert len({one.name for one in every}) == len(every)
