"""kill -9 of a process that writes: whatever it had acknowledged is there, and what is there was written."""

from __future__ import annotations

import os
import random
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path

from hiqlite.logstore.meta import Meta
from tests.logstore.log_checks import check_entries
from tests.logstore.log_twin import plan_of, terms_of

ROOT = Path(__file__).parents[2]
NOTES_BYTES = 1 << 20
ROUNDS = 6


def noted(path: Path) -> tuple[int, list[int]]:
    notes = path.read_bytes()
    at = 8 + notes[0] * (NOTES_BYTES // 2 - 8)
    term, count = struct.unpack_from("<II", notes, at)
    return term, list(struct.unpack_from(f"<{count}I", notes, at + 8))


def killed_after(folder: Path, seconds: float) -> None:
    """Starts the writer, waits for its first word, then for `seconds` without a word, and kills it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.logstore.kill_child", str(folder)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None
    with child, child.stdout:
        try:
            assert child.stdout.readline() == b"ready\n"
            select.select([child.stdout], [], [], seconds)
            assert child.poll() is None
        finally:
            child.send_signal(signal.SIGKILL)


def test_nothing_acknowledged_is_lost_by_kill_nine(tmp_path: Path) -> None:
    """Several lives of one log, each ended at a random moment: entries and terms survive, io sequences ascend."""
    chance = random.Random(os.getpid())
    (tmp_path / "notes").write_bytes(bytes(NOTES_BYTES))
    io_before = 0
    for _ in range(ROUNDS):
        killed_after(tmp_path, chance.uniform(0.0, 0.25))
        term, terms = noted(tmp_path / "notes")
        meta = Meta.open(tmp_path / "meta")
        plan = plan_of(tmp_path / "log", newest_named=meta.newest_segment(0))
        recovered = plan.recovered
        found = terms_of(recovered.runs)
        assert recovered.whole and not recovered.faulty
        cut = max((at for at in range(len(terms) + 1) if found[:at] == tuple(terms[:at])), default=0)
        written_again = recovered.term > term  # entries may only have been cut by a later term's truncation
        assert cut == len(terms) or written_again
        assert cut >= len(terms) - 3
        assert max(recovered.term, meta.hard_state(0).term) >= term
        assert recovered.io_sequence >= io_before
        io_before = recovered.io_sequence
        check_entries(tmp_path / "log", plan)
        meta.close()
