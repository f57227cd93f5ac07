"""A folder and an environment of their own, in which configs are loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import dataclasses, json
from hiqlite.config import NodeConfig
from hiqlite.errors import ConfigError
try:
    config = eval({expression!r})
    print(json.dumps(dataclasses.asdict(config), default=str))
except ConfigError as error:
    print(json.dumps({{"error": str(error), "key": error.key, "source": error.source, "hint": error.hint}}))
"""


class Machine:
    """A folder and an environment in which configs are loaded, in a process of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def load(self, expression: str, **environment: str) -> dict[str, Any]:
        child = subprocess.run(
            [sys.executable, "-W", "error", "-c", CHILD.format(expression=expression)],
            cwd=self.folder, capture_output=True, text=True, timeout=60, check=True,
            env={"PYTHONPATH": str(ROOT), "HOME": str(self.folder), **environment},
        )  # fmt: skip
        loaded = json.loads(child.stdout)
        assert isinstance(loaded, dict)
        return loaded
