"""For all tests that load configs: one process imports what they need, and is forked for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.config.other_machine import Loader


@pytest.fixture(scope="session")
def loader() -> Iterator[Loader]:
    with Loader() as loader:
        yield loader
