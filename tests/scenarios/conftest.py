"""`pytest tests/scenarios --rewrite` writes down what the scenarios tell now."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what the scenarios tell now into their files")


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether files are written instead of compared; False too where the option came too late to be known."""
    return bool(request.config.getoption("--rewrite", default=False))
