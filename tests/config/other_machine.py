"""A folder and an environment of their own, in which configs are loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
LOADER = """
import dataclasses, json, os, sys, traceback
from hiqlite.config import NodeConfig
from hiqlite.errors import ConfigError

def load(folder, expression, environment):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        return dataclasses.asdict(eval(expression))
    except ConfigError as error:
        return {"error": str(error), "key": error.key, "source": error.source, "hint": error.hint}

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            print(json.dumps(load(*json.loads(line)), default=str), flush=True)
        except BaseException:
            print(json.dumps(traceback.format_exc()), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


class Loader:
    """A process that has loaded no config yet; each is loaded in a fork of it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", LOADER],
            env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate(timeout=60)

    def load(self, folder: Path, expression: str, environment: dict[str, str]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), expression, environment]) + "\n")
        self._process.stdin.flush()
        loaded = json.loads(self._process.stdout.readline())
        assert isinstance(loaded, dict), loaded
        return loaded


class Machine:
    """A folder and an environment in which configs are loaded, in a process of their own."""

    def __init__(self, folder: Path, loader: Loader) -> None:
        self.folder = folder
        self._loader = loader

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def load(self, expression: str, **environment: str) -> dict[str, Any]:
        return self._loader.load(self.folder, expression, {"HOME": str(self.folder), **environment})
