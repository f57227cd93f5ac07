"""Files and functions stay short enough to be read at once."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house_tree import shown, sources

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
CYTHON_FUNCTION = re.compile(r"^(\s*)(?:async\s+def|def|cpdef|cdef)\b[^=#]*\(")


def python_functions(text: str) -> list[tuple[str, int]]:
    """(name, lines) of each function, nested ones too."""
    return [
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def cython_functions(text: str) -> list[tuple[str, int]]:
    """(first line, lines) of each function, told by indentation: it ends before the next line that is not deeper."""
    lines = text.splitlines()
    found = []
    for start, line in enumerate(lines):
        match = CYTHON_FUNCTION.match(line)
        if match is None:
            continue
        indent, last, depth = len(match[1]), start, line.count("(") - line.count(")")
        for number in range(start + 1, len(lines)):
            body = lines[number]
            if not body.strip():
                continue
            if depth <= 0 and len(body) - len(body.lstrip()) <= indent:
                break
            depth += (body.count("(") - body.count(")")) if depth > 0 else 0
            last = number
        found.append((line.strip(), last - start + 1))
    return found


def c_functions(text: str) -> list[tuple[str, int]]:
    """(first line, lines) of each block that a line at column 0 opens and a brace at column 0 closes."""
    found = []
    opened: tuple[str, int] | None = None
    previous = ""
    for number, line in enumerate(text.splitlines()):
        if opened is None and line.rstrip().endswith("{") and line[:1] not in (" ", "\t", "#", "/", "}"):
            head = previous if line.strip() == "{" else line
            opened = (head.strip(), number) if not re.match(r"(?:typedef|struct|enum|union|extern)\b", head) else None
        elif opened is not None and line.startswith("}"):
            found.append((opened[0], number - opened[1] + 1))
            opened = None
        if line.strip():
            previous = line
    return found


FUNCTIONS = {".py": python_functions, ".pyx": cython_functions, ".c": c_functions, ".h": c_functions}


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxd", ".c", ".h"), ids=shown)
def test_files_have_at_most_400_lines(path: Path) -> None:
    """Past that, somebody has to move out."""
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= FILE_LINES_MAX


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".c", ".h"), ids=shown)
def test_functions_have_at_most_70_lines(path: Path) -> None:
    """Of Python, Cython and C alike."""
    functions = FUNCTIONS[path.suffix](path.read_text(encoding="utf-8"))
    assert [(name, lines) for name, lines in functions if lines > FUNCTION_LINES_MAX] == []


def test_the_length_of_functions_is_measured() -> None:
    """Signatures over several lines count, blank lines behind the end do not."""
    text = "cdef int f(int a,\n           int b) nogil:\n    return 1\n\n\ncdef int x = 0\n\ndef g():\n    pass\n"
    assert cython_functions(text) == [("cdef int f(int a,", 3), ("def g():", 2)]
    assert c_functions("static int f(int a)\n{\n  if (a) {\n  }\n}\n") == [("static int f(int a)", 4)]
    assert c_functions("struct s {\n  int a;\n};\nint f(void) {\n}\n") == [("int f(void) {", 2)]
