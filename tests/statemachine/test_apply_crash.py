"""kill -9 while applying, memory and file size running out: nothing is lost, repeated, or taken for a result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from random import Random

import pytest
from apply_child import log
from apply_harness import healthy, machine

CHILD = Path(__file__).with_name("apply_child.py")
ROUNDS = 8


def child(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(CHILD), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def reference(path: Path, last: int) -> tuple[str, int]:
    """Content and running hash of a machine that applied [1, last] without any accident."""
    with machine(path) as made:
        assert made.applier.apply_inline(1, last, 1, [log(1, last)], False)
        made.applier.take()
        assert made.applier.applied_index == last
        return made.content(), made.applier.equality_hash


def test_a_killed_process_goes_on_exactly_where_its_database_stands(tmp_path: Path) -> None:
    """The applied index is written with the data: after each kill -9 it is the one reported last, or a later one, and
    the content is that of a machine that never died."""
    path = tmp_path / "a.db"
    applied = 0
    for seed in range(ROUNDS):
        process = child("kill", path, seed)
        assert process.stdout is not None
        for _ in range(Random(seed).randint(1, 25)):
            applied = int(process.stdout.readline())
        process.kill()
        applied = max([applied, *map(int, process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        with machine(path) as made:
            assert made.applier.applied_index >= applied
            applied = made.applier.applied_index
            assert healthy(made)
    with machine(path) as made:
        assert (made.content(), made.applier.equality_hash) == reference(tmp_path / "b.db", applied)


def test_an_end_before_any_write_leaves_data_and_applied_index_in_step(tmp_path: Path) -> None:
    """A process ends right before its first write, its second, ...: the content is always that of its applied index."""
    library = tmp_path / "kill_at.so"
    source = Path(__file__).with_name("kill_at.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    expected: dict[int, tuple[str, int]] = {}
    seen = set()
    for number in count(1, 2):  # every second write of a run of runs that differ
        folder = tmp_path / str(number)
        folder.mkdir()
        process = subprocess.run(
            [sys.executable, "-W", "error", str(CHILD), "runs", str(folder / "a.db")],
            env={**os.environ, "LD_PRELOAD": str(library), "KILL_AT_FOLDER": str(folder), "KILL_AT": str(number)},
            check=False,
        )
        assert process.returncode in (0, -signal.SIGKILL)
        with machine(folder / "a.db") as made:
            applied = made.applier.applied_index
            seen.add(applied)
            if applied and applied not in expected:
                expected[applied] = reference(folder / "b.db", applied)
            assert applied == 0 or (made.content(), made.applier.equality_hash) == expected[applied]
        if process.returncode == 0:
            break
    assert len(seen) > 3, "the process ended at few different moments"


@pytest.mark.parametrize("kind", ("memory", "filesize"))
def test_running_out_is_never_a_result(kind: str, tmp_path: Path) -> None:
    """NOMEM and IOERR in every place where they can be met: the applier stops, resumes, and ends where one ends that
    never met them: same answers (by the running hash), same content."""
    path = tmp_path / "a.db"
    process = child(kind, path)
    output, _ = process.communicate()
    assert process.returncode == 0
    stops, last, equality = map(int, output.split())
    assert stops > 3
    with machine(path) as made:
        content = made.content()
    assert (content, equality) == reference(tmp_path / "b.db", last)
