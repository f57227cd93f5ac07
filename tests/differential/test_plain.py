"""What plain SQLite is asked beside its answers: what a leader tells before anything runs, what became of a write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .plain import Plain
from .programs import Program
from .steps import Step

NEW = "CREATE TABLE new (x)"
WRONG = "INSERT INTO one VALUE (1)"
ABSENT = "DELETE FROM absent"


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Plain]:
    made = Plain(tmp_path / "plain.db")
    made.run(alone("CREATE TABLE one (x UNIQUE)"))
    try:
        yield made
    finally:
        made.close()


def alone(sql: str) -> Step:
    return Step("execute", ((sql, ()),))


@pytest.mark.parametrize(
    ("statements", "number"),
    [
        ((NEW, "INSERT INTO new VALUES (1)"), None),
        (("INSERT INTO one VALUES (1), (1)", ABSENT), 1),
        ((NEW, ABSENT), None),  # it may be there by then
        ((NEW, ABSENT, WRONG), 2),
        ((ABSENT, NEW, WRONG), 0),
        (("DROP TABLE one", ABSENT), None),
        (("DROP TABLE IF EXISTS new", ABSENT), 1),  # which changes nothing
        (("ALTER TABLE one RENAME TO two", ABSENT), None),
        (("CREATE VIRTUAL TABLE new USING fts5 (x)", ABSENT), None),
        (("INSERT INTO new VALUES (1)", NEW), 0),
        (("CREATE TABLE IF NOT EXISTS one (x)", ABSENT), None),  # which counts as a change all the same
        (("CREATE VIRTUAL TABLE IF NOT EXISTS one USING fts5 (x)", ABSENT), 1),
    ],
)
def test_behind_a_change_of_the_schema_only_what_no_schema_makes_right_is_told(
    plain: Plain, statements: tuple[str, ...], number: int | None
) -> None:
    """By its number in the transaction; None: the statements run, and the first that fails then is told."""
    told = plain.told_before(Step("txn", tuple((sql, ()) for sql in statements)))
    assert (told and told[3]) == number


@pytest.mark.parametrize(
    ("sql", "became"),
    [
        ("INSERT INTO one VALUES (1), (1)", "not_applied"),
        ("INSERT OR FAIL INTO one VALUES (1), (1)", "applied"),
        ("INSERT OR ROLLBACK INTO one VALUES (1), (1)", "not_applied"),
        (ABSENT, "not_applied"),
    ],
)
def test_an_error_says_what_became_of_the_write(plain: Plain, sql: str, became: str) -> None:
    """Alone and in a batch; whatever wrote before."""
    plain.run(alone("INSERT INTO one VALUES (0)"))
    assert [one[-1] for one in plain.run(alone(sql))] == [became]
    plain.run(alone("DELETE FROM one"))
    assert [one[-1] for one in plain.run(Step("batch", ((sql, ()),)))] == [became]


def test_a_program_is_made_of_its_seed_alone() -> None:
    """And what a program made is dropped, whatever refers to what."""
    programs = [Program.of_seed(seed) for seed in range(6)]
    assert [str(one) for one in programs] == [str(Program.of_seed(seed)) for seed in range(6)]
    plain = Plain()
    for program in programs:
        for step in program.steps:
            plain.run(step)
        last, drop = None, plain.drop(program.prefix)
        while drop is not None and drop != last:
            plain.run(drop)
            last, drop = drop, plain.drop(program.prefix)
        assert drop is None
    plain.close()
