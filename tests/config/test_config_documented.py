"""docs/configuration.md says of every key what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hiqlite.config import environment_keys, settings
from hiqlite.config_compare import BETTER_EQUAL, EQUAL
from hiqlite.config_kinds import convert
from hiqlite.config_original import KEYS_FROM, RENAMED, WITHOUT_EFFECT
from hiqlite.config_rules import is_not_built_yet

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
NO_EFFECT = "†"


def table(*headings: str) -> list[list[str]]:
    """The rows of all tables with these headings, cell by cell."""
    head = f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}\n"
    rows: list[list[str]] = []
    for part in TEXT.split(head)[1:]:
        for line in part.splitlines():
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


KEYS = {row[0].split("`")[1]: row for row in table("key", "variable", "default", "what it does")}


def test_every_key_is_documented_once_in_the_order_of_the_code() -> None:
    """None is missing, none is invented."""
    assert [row[0].split("`")[1] for row in table("key", "variable", "default", "what it does")] == [
        item.name for item in settings()
    ]


@pytest.mark.parametrize("key", environment_keys(), ids=lambda key: key.name)
def test_a_documented_key_has_its_variables_and_is_marked_as_what_it_is(key: Any) -> None:
    """All variables; secrets, what has no effect yet, what must be equal, and what TOML may not say, as such."""
    name, variables, _, text = KEYS[key.name]
    assert variables == ", ".join(key.environment)
    assert ("(secret)" in name) == key.secret
    assert text.endswith(NO_EFFECT) == is_not_built_yet(key.name)
    assert ("environment only" in text) == key.environment_only
    assert ("**Equal on all nodes**" in text) == (key.name in EQUAL)
    assert len(text.removesuffix(NO_EFFECT)) > 10


@pytest.mark.parametrize("item", settings(), ids=lambda item: item.name)
def test_a_documented_default_reads_as_the_default(item: Any) -> None:
    """As a person would write it into a file; `-` where there is none."""
    written = KEYS[item.name][2].strip("`")
    if written == "-":
        assert item.default in (None, ())
    else:
        assert convert(item.metadata["kind"], item.name, written) == item.default


def test_the_originals_other_names_are_documented() -> None:
    """Those that are called otherwise here, and those without effect, with the reason."""
    renamed = {row[0].strip("`"): row[1].strip("`") for row in table("name", "key", "how")}
    assert renamed == {**{name: key for name, (key, _) in RENAMED.items()}, KEYS_FROM: "enc_keys`, `enc_key_active"}
    assert {row[0].strip("`"): row[1] for row in table("name", "why")} == dict(WITHOUT_EFFECT)


def test_what_must_be_equal_is_documented() -> None:
    """The list of keys that `config check` compares."""
    paragraph = TEXT.split("- **must be equal**: ")[1].split("and whether")[0]
    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == {*EQUAL, "nodes"}
    assert {"log_sync", "cache_storage_disk"} <= set(BETTER_EQUAL)
