"""What one INSERT costs when runs of 64 and 256 are applied on the calling thread (orientation: 1.15 and 0.95 us)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apply_harness import execute, machine, sealed

INSERT = "INSERT INTO t(id, ts, name) VALUES (?, ?, ?)"


@pytest.mark.parametrize("entries", (64, 256))
def test_insert_in_runs(benchmark: Any, entries: int, tmp_path: Path) -> None:
    """A round is one run; divide by the number of entries."""
    with machine(tmp_path / "a.db") as made:
        made.one(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, ts INTEGER, name TEXT)"))
        applier = made.applier

        def prepare() -> tuple[tuple[int, bytes], dict[str, Any]]:
            first = applier.applied_index + 1
            run = [execute(INSERT, [first + i, 1, f"Name {first + i}"]) for i in range(entries)]
            return (first, sealed(run, first)), {}

        def run(first: int, records: bytes) -> None:
            applier.apply_inline(first, first + entries - 1, 1, [records], True)
            applier.take()

        benchmark.pedantic(run, setup=prepare, rounds=200)
        assert applier.failure is None
