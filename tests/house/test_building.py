"""A machine that cannot build says why, in one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house_tree import ROOT

PRECONDITIONS = ROOT / ".ci" / "preconditions"
# Stands in for a Python of which one property is missing: the probe that asks for it fails.
LACKING = """#!/bin/sh
case "$2" in *{probe}*) exit 1;; esac
exec {python} "$@"
"""


def run(python: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"])
    return subprocess.run(
        ["sh", str(PRECONDITIONS), python],
        capture_output=True, text=True, timeout=60, check=False, env={"PATH": path, **environment},
    )  # fmt: skip


def lacking(folder: Path, probe: str) -> str:
    path = folder / "python"
    path.write_text(LACKING.format(probe=probe, python=sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_a_machine_that_has_everything_is_silent() -> None:
    """This one, since it runs the tests."""
    found = run(sys.executable)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [("version_info", "older than Python 3.11"), ("ensurepip", "virtual environments"), ("Python.h", "Python.h of")],
)
def test_what_python_lacks_is_said_in_one_sentence(tmp_path: Path, probe: str, sentence: str) -> None:
    """An old version, no venv module, no headers."""
    found = run(lacking(tmp_path, probe))
    assert found.returncode == 1
    assert sentence in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_missing_python_and_a_missing_compiler_are_named() -> None:
    """With the variable that names another one."""
    python, compiler = run("no-such-python"), run(sys.executable, CC="no-such-compiler -O2")
    assert "make PYTHON=" in python.stderr and python.stderr.count("\n") == 1
    assert "no-such-compiler" in compiler.stderr and compiler.stderr.count("\n") == 1
    assert python.returncode == compiler.returncode == 1


def test_make_alone_lists_every_target() -> None:
    """Each target carries one line of help."""
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, timeout=60, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^  make {target} ", listed, re.MULTILINE), target
