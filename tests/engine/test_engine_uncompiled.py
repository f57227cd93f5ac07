"""The engine means the same whether it is compiled or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys
sys.path.insert(0, {root!r})
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
plain = FileFinder.path_hook((SourceFileLoader, SOURCE_SUFFIXES))
def hook(path):
    if path.endswith("engine") and {plain}:
        return plain(path)
    raise ImportError
sys.path_hooks.insert(0, hook)
import hiqlite.engine.raft as raft
assert raft.__file__.endswith(".py" if {plain} else ".so"), raft.__file__
from tests.sim.schedule import run_schedule
for seed in range(40, 52):
    outcome = run_schedule(seed)
    print(seed, outcome.events, outcome.committed, outcome.terms, outcome.violation)
"""


def run(plain: bool) -> str:
    code = CHILD.format(root=str(ROOT), plain=plain)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100).stdout


def test_plain_and_installed_engine_make_the_same_schedules() -> None:
    """Twelve schedules of the simulator, event for event: the sources uncompiled, and as they are installed."""
    plain = run(plain=True)
    assert plain.count("\n") == 12
    assert plain == run(plain=False)
