"""Each error that is promised is met by a test: as the class that is expected, not only as one of its bases."""

from __future__ import annotations

import re
from pathlib import Path

from house_tree import PACKAGE

from hiqlite.errors import BY_CODE

TESTS = Path(__file__).parents[1]
# Nothing raises them yet: caches, locks, events, backups and rate limits are not built.
NOT_YET = {"BackupError", "CacheFull", "ListenGap", "LockLost", "LockTimeout", "RateLimited"}
# Only what hangs below them is raised.
BASES = {"HiqliteError", "ClusterError", "TransportError"}
EXPECTED = re.compile(r"(?:raises\(|refused\(|writes\(|reads\(|Case\(|isinstance\()[^\n]*")


def expected() -> set[str]:
    """Names of errors in places where a test says what it expects."""
    places = [place for file in TESTS.rglob("test_*.py") for place in EXPECTED.findall(file.read_text())]
    return {name for place in places for name in re.findall(r"\b[A-Z]\w+", place)}


def test_every_error_is_raised_by_a_test() -> None:
    """And what is not built yet raises nothing."""
    kinds = {kind.__name__ for kind in BY_CODE.values()}
    assert kinds - BASES - NOT_YET - expected() == set()
    sources = [file for file in PACKAGE.rglob("*.py") if file.name != "errors.py"]
    product = "\n".join(file.read_text() for file in sources)
    assert [name for name in NOT_YET if re.search(rf"\b{name}\(", product)] == []
