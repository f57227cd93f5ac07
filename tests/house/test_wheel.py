"""What `make wheel` gives is an installation: built from a copy of what is committed, it stands without the tree."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from house_tree import ROOT

BUILD_S = 1800
USE = """
import asyncio, sys
import hiqlite, hiqlite.engine.raft

async def main():
    async with hiqlite.open("data") as db:
        await db.execute("CREATE TABLE t (x INTEGER)")
        await db.execute("INSERT INTO t VALUES (?)", [42])
        return await db.query_value("SELECT x FROM t", consistency="linearizable")

print(asyncio.run(main()), hiqlite.__file__, hiqlite.engine.raft.__file__, sep="\\n")
"""


def copy_of_head(folder: Path) -> Path:
    """What is committed, and nothing else: no extension that was built in place, no file that was forgotten."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def make_wheel(tree: Path, environment: dict[str, str]) -> Path:
    """By the command of the Makefile, with the tools of the Python that runs here instead of fresh ones."""
    tools = {**environment, "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}  # 0: as the option without a value
    command = ["make", "-C", str(tree), "--old-file=build", "wheel", f"BIN={Path(sys.executable).parent}"]
    made = subprocess.run(command, env=tools, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = (tree / "dist").iterdir()
    return wheel


def install(wheel: Path, folder: Path, environment: dict[str, str]) -> Path:
    """The Python of a new environment that has the wheel, and what it depends on from the one that runs here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], env=environment, check=True, timeout=120)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


@pytest.mark.long
@pytest.mark.timeout(2 * BUILD_S)
def test_the_wheel_is_an_installation(tmp_path: Path) -> None:
    """It opens a database and reads the row that it wrote, with the compiled engine, and brings its command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MAKE", "HIQ"))}
    python = install(make_wheel(copy_of_head(tmp_path / "tree"), environment), tmp_path / "venv", environment)
    (tmp_path / "elsewhere").mkdir()
    ran = subprocess.run(
        [str(python), "-c", USE],
        cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    value, package, engine = ran.stdout.split()
    assert value == "42" and engine.endswith(".so")
    assert Path(package).is_relative_to(tmp_path / "venv") and Path(engine).is_relative_to(tmp_path / "venv")
    helped = subprocess.run(
        [str(python.with_name("hiqlite")), "--help"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert helped.returncode == 0
