"""How the writer plans a statement depends on the database alone, never on when a node happened to prepare it."""

from __future__ import annotations

import json
from pathlib import Path

from apply_harness import batch, execute, machine

SCHEMA = """
CREATE TABLE seen(at TEXT, k INTEGER); CREATE INDEX seen_at ON seen(at); CREATE INDEX seen_k ON seen(k);
CREATE TABLE chosen(x);
"""
HOUR_S = 3600
FIRST_S = 1_600_000_000
ROWS = 2000
FILL = "INSERT INTO seen SELECT datetime(? + value * ?, 'unixepoch'), value * 7919 % 2000 FROM json_each(?)"
# Which of the two indexes is better depends on how many rows lie behind `now`.
CHOOSE = "INSERT INTO chosen SELECT rowid FROM seen WHERE at > datetime('now') AND k > 1900 LIMIT 1"


def chosen(path: Path, restarted: bool) -> list[tuple[int, ...]]:
    with machine(path) as made:
        made.apply([batch(SCHEMA), execute(FILL, [FIRST_S, HOUR_S, json.dumps(list(range(ROWS)))])])
        made.apply([execute("ANALYZE")])
        made.apply([execute(CHOOSE)], wall_ns=(FIRST_S + (ROWS - 5) * HOUR_S) * 10**9)
        if restarted:
            made.reopen()
        made.apply([execute(CHOOSE)], wall_ns=(FIRST_S - HOUR_S) * 10**9)
        return made.rows("SELECT x FROM chosen")


def test_a_plan_does_not_depend_on_the_clock_when_it_was_made(tmp_path: Path) -> None:
    """A node that kept its prepared statement and one that was restarted before it choose the same row."""
    assert chosen(tmp_path / "kept.db", False) == chosen(tmp_path / "restarted.db", True) != []
