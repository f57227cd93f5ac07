"""Programs of SQL give on a cluster what they give on one SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from .comparing import compare

FIRST = 1_000_000
SLICE = 20


@pytest.mark.timeout(300)
async def test_a_cluster_is_one_sqlite(tmp_path: Path) -> None:
    """The same answers, errors and rows on every node, while nodes are stopped, killed and started between any two."""
    result = await compare(tmp_path, range(FIRST, FIRST + SLICE))
    assert result.difference is None, str(result.difference)
    assert result.ended == result.begun == SLICE
    assert result.restarts > 0
