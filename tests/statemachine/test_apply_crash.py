"""kill -9 while applying, memory and file size running out: nothing is lost, repeated, or taken for a result."""

from __future__ import annotations

import subprocess
import sys
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
