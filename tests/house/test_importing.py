"""Importing is quick, independent of order, and without effects."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from house_tree import PACKAGE, ROOT, module_name, sources

IMPORT_MS_MAX = 150

# A child per module, forked from an interpreter that has imported nothing of ours but `hiqlite` itself, which Python
# imports before any module of it: as fresh as a new one, and quick. What others wrote is loaded before the fork, too:
# each child pays for what its module adds.
EACH_ALONE = """
import asyncio, dataclasses, importlib, importlib.util, json, os, sys, traceback, typing
for name in ("apsw", "lmdb", "msgpack", "uvloop", "OpenSSL.SSL"):
    if importlib.util.find_spec(name.partition(".")[0]) is not None:
        importlib.import_module(name)

def threads():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1

import hiqlite
failures = {} if threads() == 1 else {"hiqlite": "it starts a thread"}
for name in json.loads(sys.argv[1]):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            importlib.import_module(name)
            problem = "" if threads() == 1 else "it starts a thread"
        except BaseException:
            problem = traceback.format_exc(limit=-3)
        with os.fdopen(write_end, "w") as pipe:
            pipe.write(problem)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        problem = pipe.read()
    _, status = os.waitpid(child, 0)
    if problem or status:
        failures[name] = problem or f"the interpreter died with status {status}"
print(json.dumps(failures))
"""

# Measured inside the child, so that the start of the interpreter does not count. A million additions take less than 100
# ms on a machine that is not throttled; on another one the limit grows with them.
IMPORT_TIME = """
import time
before = time.process_time_ns()  # of this process: what else the machine does is not the import's fault
total = 0
for number in range(1_000_000):
    total += number
begin = time.process_time_ns()
import hiqlite
end = time.process_time_ns()
print((end - begin) / max(1e6, (begin - before) / 100))
"""


def python(*arguments: str) -> str:
    child = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def is_built(path: Path) -> bool:
    return path.suffix == ".py" or any(path.parent.glob(f"{path.stem}.*.so"))


def test_each_module_can_be_imported_alone() -> None:
    """No module needs another one to have been imported before it, and importing starts no thread."""
    names = sorted({module_name(path) for path in sources(".py", ".pyx") if is_built(path)} - {"hiqlite.__main__"})
    failures = json.loads(python("-c", EACH_ALONE, json.dumps(names)))
    assert not failures, "\n".join(f"{name}: {problem}" for name, problem in failures.items())


def test_importing_hiqlite_takes_less_than_150_ms() -> None:
    """Of CPU, best of five processes: who only wants a client does not wait for S3, HTTP or the command line."""
    assert PACKAGE.is_dir()
    assert min(float(python("-c", IMPORT_TIME)) for _ in range(5)) < IMPORT_MS_MAX


def test_importing_hiqlite_leaves_heavy_libraries_alone() -> None:
    """Optional and rarely needed libraries are imported where they are used."""
    heavy = ["aiobotocore", "botocore", "OpenSSL", "croniter", "starlette", "uvicorn", "tomllib", "pytest"]
    code = f"import hiqlite, json, sys; print(json.dumps([n for n in {heavy!r} if n in sys.modules]))"
    assert json.loads(python("-c", code)) == []
