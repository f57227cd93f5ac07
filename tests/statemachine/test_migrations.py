"""Migrations: where they come from, what makes one valid, and how they compare with what was applied."""

from __future__ import annotations

import hashlib
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hiqlite.errors import MigrationError, UsageError
from hiqlite.statemachine.migrations import Migration, load, migration, validate

ONE, TWO = "CREATE TABLE a(x);\n", "CREATE TABLE b(x);\n"


def rows(migrations: list[Migration]) -> list[tuple[int, str, str]]:
    return [(each.id, each.name, each.sha256_hex) for each in migrations]


@pytest.fixture
def import_path(tmp_path: Path) -> Iterator[Path]:
    """A folder whose packages can be imported."""
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    yield tmp_path
    sys.path.remove(str(tmp_path))
    sys.modules.pop("shop_migrations_for_test", None)


def test_folder_package_and_mapping_give_the_same(import_path: Path) -> None:
    """Files that do not end in .sql are passed over; ids sort by number, not by text."""
    folder = import_path / "shop_migrations_for_test"
    folder.mkdir()
    texts = {f"{number}_step.sql": f"SELECT {number};" for number in range(1, 12)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "__init__.py").write_text("")
    (folder / "README.md").write_text("not a migration")
    (folder / "old.sql").mkdir()
    found = load(folder)
    assert [each.id for each in found] == list(range(1, 12))
    assert load(str(folder)) == found == load(texts) == load("shop_migrations_for_test")


def test_the_hash_does_not_depend_on_line_endings() -> None:
    """A checkout on another system is the same migration; the text that is applied is normalised too."""
    expected = hashlib.sha256(b"A;\nB;\n").hexdigest()
    for text in ("A;\nB;\n", "A;\r\nB;\r\n", "A;\rB;\r", "\ufeffA;\r\nB;\n"):
        found = migration("1_x.sql", text)
        assert (found.text, found.sha256_hex) == ("A;\nB;\n", expected)


@pytest.mark.parametrize(
    ("text", "off"),
    [
        ("-- hiqlite: foreign_keys=off\nDROP TABLE a;", True),
        ("--hiqlite:foreign_keys = OFF\r\nDROP TABLE a;", True),
        ("DROP TABLE a;\n-- hiqlite: foreign_keys=off", False),
        ("-- hiqlite: foreign_keys=off DROP TABLE a;", False),
        ("", False),
    ],
)
def test_the_first_line_may_switch_foreign_keys_off(text: str, off: bool) -> None:
    """Only the first line, and only that line."""
    assert migration("1_x.sql", text).foreign_keys_off is off


@pytest.mark.parametrize(
    "name", ["x.sql", "1.sql", "1_.sql", "_x.sql", "0_x.sql", "-1_x.sql", "1-x.sql", "1_x.SQL", "1_x.sql~", "", 5]
)
def test_a_name_that_does_not_fit_is_told(name: Any) -> None:
    """`<n>_<name>.sql`, counted from 1."""
    with pytest.raises(MigrationError, match="<n>_<name>"):
        load({name: ONE})


def test_ids_have_no_gaps_and_do_not_repeat() -> None:
    """The error names the file."""
    with pytest.raises(MigrationError, match=r"3_c\.sql.* 2 is missing"):
        load({"1_a.sql": ONE, "3_c.sql": TWO})
    with pytest.raises(MigrationError, match=r"2_b\.sql.* 1 is missing"):
        load({"2_b.sql": ONE})
    with pytest.raises(MigrationError, match=r"1_b\.sql and 01_a\.sql have the same id|01_a\.sql.*1_b\.sql|same id 1"):
        load({"01_a.sql": ONE, "1_b.sql": TWO})
    assert [each.id for each in load({"0001_a.sql": ONE, "2_b.sql": TWO})] == [1, 2]


def test_bad_texts_are_told_with_the_file(tmp_path: Path) -> None:
    """Not UTF-8, NUL, lone surrogates, not text."""
    (tmp_path / "1_a.sql").write_bytes(b"\xff\xfe")
    with pytest.raises(MigrationError, match=r"1_a\.sql.*UTF-8"):
        load(tmp_path)
    texts: list[Any] = ["SELECT '\0'", "SELECT '\ud800'", b"SELECT 1", None]
    for text in texts:
        with pytest.raises(MigrationError, match=r"1_a\.sql"):
            load({"1_a.sql": text})


@pytest.mark.parametrize("source", ["no/such/folder", "no_such_package_anywhere", "no_such.package", "", {}, 5, None])
def test_a_source_that_is_none_is_a_usage_error(source: Any) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageError):
        load(source)


def test_an_empty_folder_is_a_usage_error(tmp_path: Path) -> None:
    """Most likely the wrong folder."""
    with pytest.raises(UsageError, match="no migrations in"):
        load(tmp_path)


def test_what_is_not_applied_yet_is_returned_in_order() -> None:
    """Idempotent: everything applied gives nothing to do."""
    given = load({"1_a.sql": ONE, "2_b.sql": TWO, "3_c.sql": ONE})
    assert validate(given, []) == given
    assert validate(given, rows(given[:1])) == given[1:]
    assert validate(given, reversed(rows(given))) == []


def test_a_changed_text_names_file_and_both_hashes() -> None:
    """Nothing is applied then."""
    old, new = load({"1_a.sql": ONE, "2_b.sql": TWO}), load({"1_a.sql": ONE, "2_b.sql": TWO + "-- changed"})
    with pytest.raises(MigrationError) as caught:
        validate(new, rows(old))
    for part in ("2_b.sql", old[1].sha256_hex, new[1].sha256_hex, "text"):
        assert part in caught.value.message
    assert caught.value.outcome == "not_applied"


def test_a_changed_name_shows_the_difference_of_names() -> None:
    """Names are compared, because a renumbered file is another migration."""
    old = load({"1_a.sql": ONE, "2_b.sql": TWO})
    new = load({"1_a.sql": ONE, "2_c.sql": TWO, "3_b.sql": TWO})
    with pytest.raises(MigrationError) as caught:
        validate(new, rows(old))
    assert "only in the database: 2_b.sql" in caught.value.message
    assert "only in the source: 2_c.sql" in caught.value.message


def test_a_gap_in_the_database_is_an_error() -> None:
    """Somebody else wrote that table."""
    given = load({"1_a.sql": ONE, "2_b.sql": TWO})
    with pytest.raises(MigrationError, match="but not 1"):
        validate(given, rows(given)[1:])


def test_more_in_the_database_than_given_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """An older release of the application still starts."""
    given = load({"1_a.sql": ONE, "2_b.sql": TWO})
    with caplog.at_level(logging.WARNING, logger="hiqlite"):
        assert validate(given[:1], rows(given)) == []
    assert "2_b.sql" in caplog.text
