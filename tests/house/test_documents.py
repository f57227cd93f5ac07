"""What the documents show runs, and where they point there is something."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from house_tree import ROOT, shown

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# Exactly "python": a block that is a piece of a program says so in its first line ("python fragment").
SNIPPET = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)

# Top-level `await` is allowed, as in `python -m asyncio`.
RUNNER = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, names))
else:
    exec(code, names)
"""


def snippets() -> list[tuple[str, str]]:
    """(where, text) of every python block of every document."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for match in SNIPPET.finditer(text):
            found.append((f"{shown(path)}:{text.count(chr(10), 0, match.start()) + 1}", match[1]))
    return found


def test_python_snippets_of_the_documents_run(tmp_path: Path) -> None:
    """Each in a folder and a process of its own, with top-level await."""
    failures = {}
    for number, (where, text) in enumerate(snippets()):
        folder = tmp_path / str(number)
        folder.mkdir()
        child = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUNNER],
            cwd=folder, input=text, capture_output=True, text=True, timeout=60, check=False,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        if child.returncode != 0:
            failures[where] = child.stderr
    assert not failures, "\n".join(f"{where}: {problem}" for where, problem in failures.items())


def test_the_runner_of_snippets_fails_when_a_snippet_fails() -> None:
    """A snippet that raises behind an await is noticed."""
    text = "import asyncio\nawait asyncio.sleep(0)\nassert 1 == 2\n"
    child = subprocess.run(
        [sys.executable, "-c", RUNNER], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert "AssertionError" in child.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    """Relative links name files that exist."""
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    targets = [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_decisions_are_numbered_notes_of_three_parts() -> None:
    """docs/decisions/NNNN-name.md without gaps; each says context, choice and price."""
    notes = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in notes] == list(range(1, len(notes) + 1))
    for path in notes:
        headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Choice", "Price"], shown(path)
