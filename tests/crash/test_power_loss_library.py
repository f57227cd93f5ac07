"""The disk that loses power is no worse than a disk: what it keeps is what was synced, under the name it had then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.crash.harness import build_power_loss

# Each version takes the place of the one before it; file systems soon give its inode to the next one.
REPLACING = """
import os, sys
folder, kept = sys.argv[1:]
for version in range(50):
    half, name = os.path.join(folder, "half"), os.path.join(folder, "name")
    file = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(file, b"%d" % version)
    os.fsync(file)
    os.close(file)
    if version:
        with open(os.path.join(kept, "name"), "rb") as durable:
            assert durable.read() == b"%d" % (version - 1), version
    os.rename(half, name)
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    with open(os.path.join(kept, "name"), "rb") as durable:
        assert durable.read() == b"%d" % version, version
"""


def test_a_file_that_is_replaced_stays_whole_until_its_name_is_durable(tmp_path: Path) -> None:
    """Syncing its successor touches nothing of it, though both may have the same inode."""
    folder, kept = tmp_path / "folder", tmp_path / "kept"
    folder.mkdir()
    kept.mkdir()
    child = subprocess.run(
        [sys.executable, "-c", REPLACING, str(folder), str(kept)],
        env={
            **os.environ, "LD_PRELOAD": str(build_power_loss(tmp_path)),
            "HQ_POWERLOSS_ROOT": str(folder), "HQ_POWERLOSS_SHADOW": str(kept),
        },
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
