"""A disk that fails, fills up, or hangs: what the log says then, and that it never promises too much."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = [
    "fdatasync_fails",
    "pwritev_fails",
    "disk_fills_up",
    "zeros_ahead_fail",
    "close_awaits_the_filler",
    "no_reservation",
    "disk_stalls",
    "recovery_syncs_first",
    "exit_with_a_hanging_disk",
    "slices_are_progress",
    "metadata_on_a_refusing_disk",
]
WEAKER = ["immediate_async", "interval_5"]
CASES = [
    *((scenario, "immediate") for scenario in SCENARIOS),
    ("unsynced_modes", WEAKER[0]),
    *(pytest.param(scenario, mode, marks=pytest.mark.long) for scenario in SCENARIOS[:3] for mode in WEAKER),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faulty_disk.c, built with the compiler that built the extensions."""
    made = tmp_path_factory.mktemp("preload") / "faulty_disk.so"
    compiler = str(sysconfig.get_config_var("CC")).split()
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([*compiler, "-shared", "-fPIC", "-O1", "-o", made, source], check=True)
    return made


@pytest.mark.parametrize(("scenario", "log_sync"), CASES)
def test_a_disk_in_trouble(tmp_path: Path, library: Path, scenario: str, log_sync: str) -> None:
    """The scenarios are told in fault_child.py, each in a process of its own."""
    orders = tmp_path / "orders"
    orders.write_bytes(bytes(64))
    environment = {**os.environ, "LD_PRELOAD": str(library), "FAULTY_DISK": str(orders)}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.logstore.fault_child", scenario, log_sync, str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0 and "passed" in ran.stdout, ran.stderr
