"""The source tree as the house tests see it: rooms, floors, files, imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hiqlite"
FACE = "__init__"

# A room imports only from floors below its own; rooms of one floor do not know each other.
FLOORS = {
    "errors": 1, "clock": 1, "observe": 1, "durable": 1,
    "config": 2, "_accel": 2,
    "engine": 3, "backup": 3, "ending": 3,
    "runtime": 4, "transport": 4, "logstore": 4, "statemachine": 4, "cache": 4,
    "client": 5,
    "http": 6,
    "node": 7,
    FACE: 8, "testing": 8, "bench": 8,
    "server": 9,
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import statement: the dotted module it names, and where it stands."""

    path: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.module}"


def sources(*suffixes: str) -> list[Path]:
    """Our own files of the package with one of these suffixes; neither vendored nor generated ones."""
    found = (path for suffix in suffixes for path in PACKAGE.rglob(f"*{suffix}"))
    return sorted(path for path in found if "vendor" not in path.parts and not is_generated(path))


def is_generated(path: Path) -> bool:
    return path.suffix == ".c" and "native" not in path.parts


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    """`hiqlite.engine.log` for its .py, .pyx, .pxd or .pyi."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room of a dotted module; files beside a one-file room belong to it (`config_rules` to `config`)."""
    parts = module.split(".")
    if len(parts) == 1:
        return FACE
    name = parts[1]
    if name not in FLOORS:
        name = next((room for room in FLOORS if name.startswith(f"{room}_")), name)
    return name


def is_module(dotted: str) -> bool:
    base = ROOT / Path(*dotted.split("."))
    return base.is_dir() or any(base.with_suffix(suffix).exists() for suffix in (".py", ".pyx", ".pxd"))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, wherever it stands (also inside functions and for types only)."""
    text = path.read_text(encoding="utf-8")
    yield from _python_imports(path, text) if path.suffix == ".py" else _cython_imports(path, text)


def _python_imports(path: Path, text: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(text, filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield from _from_import(path, node.lineno, "." * node.level + (node.module or ""), names)


_TRIPLE_QUOTED = re.compile(r'"""[\s\S]*?"""')
_CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<base>[.\w]+)[ \t]+c?import[ \t]+(?P<names>\([^)]*\)|[^#\n]*)"
    r"|c?import[ \t]+(?P<plain>[^#\n]*))",
    re.MULTILINE,
)


def _cython_imports(path: Path, text: str) -> Iterator[Import]:
    # Newlines stay, so that line numbers hold.
    text = _TRIPLE_QUOTED.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in _CYTHON_IMPORT.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        names = re.sub(r"#[^\n]*", "", match["names"] or match["plain"]).strip(" ()\n").split(",")
        bare = [name.split(" as ")[0].strip() for name in names if name.strip()]
        if match["base"]:
            yield from _from_import(path, line, match["base"], bare)
        else:
            for name in bare:
                yield Import(path, line, name)


def _from_import(path: Path, line: int, base: str, names: list[str]) -> Iterator[Import]:
    level = len(base) - len(base.lstrip("."))
    if level:
        package = path.relative_to(ROOT).parts[:-1]
        above = package[: len(package) - level + 1]
        base = ".".join([*above, base[level:]] if base[level:] else above)
    for name in names:
        # `from hiqlite import observe` names the room; `from hiqlite import open` names the face.
        dotted = f"{base}.{name}"
        yield Import(path, line, dotted if dotted.startswith("hiqlite.") and is_module(dotted) else base)
