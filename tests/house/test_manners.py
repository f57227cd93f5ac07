"""Ways of writing that the house does not allow, in the package and in its tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house_tree import PACKAGE, ROOT, shown, sources

PYTHON_FILES = sources(".py")
SOURCES = sources(".py", ".pyx", ".pxd", ".c", ".h")
TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile", *(ROOT / "docs").rglob("*.md")])

# Put together from pieces, so that this file does not forbid itself.
NOTES = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImpl" + "ementedError"]
UNFINISHED = re.compile(r"\b(?:" + "|".join(NOTES) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "t" + "mp"]) + r")/\w")
BARE_NOQA = re.compile(r"#\s*noqa(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?\s*$", re.MULTILINE)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_every_module_opens_with_what_it_is_for(path: Path) -> None:
    """A docstring, or a comment in C and .pxd; a module may be empty."""
    text = path.read_text(encoding="utf-8").lstrip()
    if not text or path.suffix == ".pxd":
        return
    if path.suffix == ".py":
        assert ast.get_docstring(tree_of(path))
    else:
        assert text.startswith(("/*", "//", '"""', "#", 'r"""'))


def test_nothing_is_left_unfinished() -> None:
    """What is not built yet is not in the code, and no note says that it should be."""
    marked = [shown(path) for path in SOURCES if UNFINISHED.search(path.read_text(encoding="utf-8"))]
    assert marked == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    """Sources, tests and documents are true on every machine."""
    marked = []
    for path in [*SOURCES, *TEST_FILES, *DOCUMENTS]:
        if path.exists() and MACHINE_PATH.search(path.read_text(encoding="utf-8")):
            marked.append(shown(path))
    assert marked == []


def test_ignored_lint_rules_carry_their_reason() -> None:
    """A suppression without a word behind it is refused."""
    bare = [shown(path) for path in [*PYTHON_FILES, *TEST_FILES] if BARE_NOQA.search(path.read_text(encoding="utf-8"))]
    assert bare == []


def _catches_everything(node: ast.expr | None) -> bool:
    return node is None or (isinstance(node, ast.Name) and node.id in ("Exception", "BaseException"))


def _is_nothing(body: list[ast.stmt]) -> bool:
    return all(isinstance(item, ast.Pass | ast.Continue) or _is_ellipsis(item) for item in body)


def _is_ellipsis(item: ast.stmt) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)


@pytest.mark.parametrize("path", PYTHON_FILES, ids=shown)
def test_no_exception_is_swallowed(path: Path) -> None:
    """Catching everything and doing nothing hides the error that matters."""
    swallowed = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node.type) and _is_nothing(node.body):
            swallowed.append(node.lineno)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            swallowed += [node.lineno for argument in node.args if _catches_everything(argument)]
    assert swallowed == []


@pytest.mark.parametrize("path", PYTHON_FILES, ids=shown)
def test_modules_hold_no_mutable_state(path: Path) -> None:
    """Nothing is rebound through `global`, and no empty container waits at module level to be filled."""
    tree = tree_of(path)
    rebound = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    values = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    waiting = [value.lineno for value in values if value is not None and _is_empty_container(value)]
    assert rebound + waiting == []


def _is_empty_container(value: ast.expr) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set):
        return not (value.keys if isinstance(value, ast.Dict) else value.elts)
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in ("list", "dict", "set", "deque", "defaultdict", "bytearray")
        and not value.args
    )


def test_every_cython_module_has_a_typed_face() -> None:
    """A .pyi beside each .pyx, so that users and mypy see types."""
    faceless = [shown(path) for path in sources(".pyx") if not path.with_suffix(".pyi").exists()]
    assert faceless == []


def test_typed_faces_parse() -> None:
    """Each .pyi is valid Python and belongs to a module."""
    for path in PACKAGE.rglob("*.pyi"):
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        assert any(path.with_suffix(suffix).exists() for suffix in (".pyx", ".py")), shown(path)


def test_no_generated_c_stands_beside_its_source() -> None:
    """Cython writes into build/; what it generates is never part of the tree."""
    generated = []
    for path in PACKAGE.rglob("*.c"):
        with path.open(encoding="utf-8") as file:
            if "Generated by Cython" in file.readline():
                generated.append(shown(path))
    assert generated == []


def test_the_face_only_hands_names_on() -> None:
    """`hiqlite/__init__.py` defines no class and no public function of its own."""
    defined = [
        node.name
        for node in tree_of(PACKAGE / "__init__.py").body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    assert defined == []


def _forbidden_in_tests(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg == "monkeypatch":
            found.append(f"line {node.lineno}: monkeypatch")
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("pytest.mark.skip", "pytest.mark.xfail")):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            pause = name in ("time.sleep", "asyncio.sleep", "sleep")
            yields = bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            if (pause and not yields) or name in ("pytest.skip", "pytest.xfail", "pytest.importorskip"):
                found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", [path for path in TEST_FILES if path.name.startswith("test_")], ids=shown)
def test_tests_do_not_sleep_skip_or_patch(path: Path) -> None:
    """They wait for a condition with a deadline, always run, and replace ports instead of attributes."""
    assert _forbidden_in_tests(tree_of(path)) == []


def test_test_modules_have_names_of_their_own() -> None:
    """Test folders are no packages, so two modules of one name would hide each other."""
    names = [path.name for path in TEST_FILES if path.name not in ("__init__.py", "conftest.py")]
    twice = sorted({name for name in names if names.count(name) > 1 and name.startswith("test_")})
    assert twice == []
