"""Kills and losses of power in turn: what a start says the log holds is there at the next one."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import subprocess
import sys
from pathlib import Path

from tests.crash.harness import build_power_loss, name_all_in_shadow

ROOT = Path(__file__).parents[2]
ROUNDS = 3


def said_by_a_life(
    folder: Path, shadow: Path, library: Path, seconds: float, *, sync_failed: bool = False
) -> tuple[bool, int, list[int]]:
    """Starts a process, takes its word, lets it write for `seconds` from its first write on; 0: kills it at once."""
    if shadow.exists():
        name_all_in_shadow(folder, shadow)
    else:
        shutil.copytree(folder, shadow)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "HQ_POWERLOSS_ROOT": str(folder),
        "HQ_POWERLOSS_SHADOW": str(shadow),
        **({"HQ_POWERLOSS_CLEAN": "1"} if sync_failed else {}),
    }
    command = [sys.executable, "-m", "tests.logstore.power_child", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
    assert child.stdout is not None
    with child, child.stdout:
        try:
            whole, term, terms = json.loads(child.stdout.readline())
            if seconds:
                child.stdout.readline()  # that it writes: on a busy machine this alone may take longer
                select.select([child.stdout], [], [], seconds)
        finally:
            child.kill()
    return whole, term, terms


def lose_power(folder: Path, shadow: Path) -> None:
    """What is durable takes the place of the folder."""
    shutil.rmtree(folder)
    shutil.copytree(shadow, folder)


def test_what_a_start_has_said_survives_a_loss_of_power(tmp_path: Path) -> None:
    """A killed process leaves what the kernel holds; the next start may speak of it only when the disk holds it."""
    library = build_power_loss(tmp_path)
    folder, shadow, chance = tmp_path / "node", tmp_path / "durable", random.Random(7)
    folder.mkdir()
    found = 0
    for _ in range(ROUNDS):
        said_by_a_life(folder, shadow, library, 0.05 + chance.random() / 10)
        whole, term, terms = said_by_a_life(folder, shadow, library, chance.random() / 20)
        found += len(terms)
        assert whole
        lose_power(folder, shadow)
        whole, term_now, terms_now = said_by_a_life(folder, shadow, library, 0.0)
        assert whole and term_now >= term and terms_now[: len(terms)] == terms
    assert found > 0, "nobody wrote anything"


def test_what_a_failed_sync_did_not_write_is_written_by_the_next_start(tmp_path: Path) -> None:
    """Linux takes its pages for written then: a later sync says yes, and only another write brings them to the disk."""
    library = build_power_loss(tmp_path)
    folder, shadow, chance = tmp_path / "node", tmp_path / "durable", random.Random(11)
    folder.mkdir()
    found = 0
    for _ in range(ROUNDS):
        said_by_a_life(folder, shadow, library, 0.05 + chance.random() / 10)
        whole, term, terms = said_by_a_life(folder, shadow, library, 0.0, sync_failed=True)
        found += len(terms)
        assert whole
        lose_power(folder, shadow)
        whole, term_now, terms_now = said_by_a_life(folder, shadow, library, 0.0)
        assert whole and term_now >= term and terms_now[: len(terms)] == terms
        lose_power(folder, shadow)
    assert found > 0, "nobody wrote anything"
