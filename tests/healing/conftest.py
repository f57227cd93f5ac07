"""For all tests of damaged folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """Not pytest's own folder: nobody but root may look into that."""
    with TemporaryDirectory(prefix="hiqlite-healing-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
