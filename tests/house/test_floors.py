"""Rooms import downwards only, and some things are done in one room only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house_tree import FLOORS, Import, imports_of, module_name, room_of, shown, sources

ENGINE_STDLIB = {"__future__", "dataclasses", "enum", "typing", "collections", "collections.abc"}
PYTHON_FILES = sources(".py")
ALL_FILES = sources(".py", ".pyx", ".pxd")
ENVIRONMENT = re.compile(r"\bos\s*\.\s*environb?\b|\b(?:secure_)?getenv\s*\(")


def breaks_floors(found: Import) -> bool:
    if found.module.split(".")[0] != "hiqlite":
        return False
    own, other = room_of(module_name(found.path)), room_of(found.module)
    return own != other and FLOORS[other] >= FLOORS[own]


def foreign(path: Path, *packages: str) -> list[str]:
    return [str(found) for found in imports_of(path) if found.module.split(".")[0] in packages]


def test_every_room_has_a_floor() -> None:
    """A new file or folder of the package belongs to a room that the table of floors names."""
    homeless = [shown(path) for path in ALL_FILES if room_of(module_name(path)) not in FLOORS]
    assert homeless == []


@pytest.mark.parametrize("path", ALL_FILES, ids=shown)
def test_imports_go_to_lower_floors_only(path: Path) -> None:
    """No room imports one above it or beside it, neither in functions nor for types."""
    assert [str(found) for found in imports_of(path) if breaks_floors(found)] == []


def test_the_check_of_floors_sees_what_it_forbids() -> None:
    """An upward and a sideways import are recognised, a downward one and one inside the room pass."""
    engine = next(path for path in PYTHON_FILES if module_name(path) == "hiqlite.engine.model")
    assert breaks_floors(Import(engine, 1, "hiqlite.runtime.group"))
    assert breaks_floors(Import(engine, 1, "hiqlite.backup"))
    assert breaks_floors(Import(engine, 1, "hiqlite"))
    assert not breaks_floors(Import(engine, 1, "hiqlite.config_rules"))
    assert not breaks_floors(Import(engine, 1, "hiqlite.engine.ports"))


def test_imports_of_cython_files_are_read(tmp_path: Path) -> None:
    """cimport, relative and bracketed imports of a .pyx are seen; words in docstrings and C headers are not."""
    folder = Path(__file__).resolve().parents[2] / "hiqlite" / "_accel"
    text = '"""\nimport nothing\n"""\nfrom libc.string cimport memcpy\ncimport cython\nfrom . cimport errors_of\n'
    text += 'from hiqlite.errors import (  # why\n    A,\n    B,\n)\ncdef extern from "x.h":\n    pass\n'
    text += "from hiqlite import errors, clock\n"
    from house_tree import _cython_imports

    found = [(item.line, item.module) for item in _cython_imports(folder / "sample.pyx", text)]
    assert found == [
        (4, "libc.string"), (5, "cython"), (6, "hiqlite._accel"), (7, "hiqlite.errors"), (7, "hiqlite.errors"),
        (13, "hiqlite.errors"), (13, "hiqlite.clock"),
    ]  # fmt: skip


def test_the_engine_knows_only_values() -> None:
    """The core imports errors, config, itself, and the parts of the standard library that hold no effects."""
    engine = [path for path in ALL_FILES if room_of(module_name(path)) == "engine"]
    strange = []
    for found in (found for path in engine for found in imports_of(path)):
        ours = found.module.startswith("hiqlite") and room_of(found.module) in ("errors", "config", "engine")
        c_level = found.path.suffix == ".pxd" and found.module.split(".")[0] in ("libc", "cython", "cpython")
        if not ours and not c_level and found.module not in ENGINE_STDLIB:
            strange.append(str(found))
    assert strange == []


def test_only_observe_logs() -> None:
    """Everybody else asks `observe.logger` for a logger."""
    assert [hit for path in ALL_FILES if path.stem != "observe" for hit in foreign(path, "logging")] == []


def test_only_tls_touches_tls_libraries() -> None:
    """ssl and OpenSSL are imported by transport/tls.py alone."""
    others = [path for path in ALL_FILES if module_name(path) != "hiqlite.transport.tls"]
    assert [hit for path in others for hit in foreign(path, "ssl", "_ssl", "OpenSSL")] == []


def test_the_runtime_sees_ports_not_libraries() -> None:
    """apsw and lmdb stay behind the state machine and the log store."""
    runtime = [path for path in ALL_FILES if room_of(module_name(path)) in ("runtime", "transport", "client")]
    assert [hit for path in runtime for hit in foreign(path, "apsw", "lmdb", "sqlite3")] == []


def test_only_config_reads_the_environment() -> None:
    """Neither Python, Cython nor C code elsewhere looks into the environment."""
    readers = []
    for path in sources(".py", ".pyx", ".pxd", ".c", ".h"):
        if room_of(module_name(path)) == "config":
            continue
        text = path.read_text(encoding="utf-8")
        names = [] if path.suffix != ".py" else _names_from_os(ast.parse(text))
        if ENVIRONMENT.search(text) or {"environ", "environb", "getenv"} & set(names):
            readers.append(shown(path))
    assert readers == []


def _names_from_os(tree: ast.Module) -> list[str]:
    wanted = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "os")
    return [alias.name for node in wanted for alias in node.names]


def test_only_accel_asks_what_is_compiled() -> None:
    """Code runs the same compiled or not; the question is answered in one place."""
    asking = re.compile(r"EXTENSION_SUFFIXES|cython\.compiled")
    others = [path for path in PYTHON_FILES if module_name(path) != "hiqlite._accel"]
    assert [shown(path) for path in others if asking.search(path.read_text(encoding="utf-8"))] == []
