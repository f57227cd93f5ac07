"""For all tests: no property fails because a machine was slow, and what was collected costs no test anything."""

from __future__ import annotations

import gc

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """What is imported and collected stays to the end: a collection of garbage need not look through it each time."""
    gc.collect()
    gc.freeze()
