"""TOML files: one table of settings, and the line on which a key stands.

What this is for: reading the table, and saying where in the file something is wrong.
Must not know: which keys mean something.
Invariant: contents of a file never stand in an error, only its path, its line, the names of its tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiqlite.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TomlPlace:
    """A key of a file. The line is looked for when it is asked for: only errors and reports need it."""

    file: TomlFile
    name: str

    def __str__(self) -> str:
        line = self.file.line_of(self.name)
        return str(self.file.path) if line is None else f"{self.file.path}, line {line}"


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A file that was read, and its table of settings."""

    path: Path
    table: str
    text: str = field(repr=False)  # may hold secrets, as may the next
    content: dict[str, Any] = field(repr=False)

    def place(self, name: str) -> TomlPlace:
        return TomlPlace(self, name)

    def line_of(self, name: str) -> int | None:
        """The line on which a key of the table is set.

        It is the first line that names the key and begins a statement after which the table holds it: whatever way of
        writing TOML allows (dotted, quoted, inline, over several lines) is seen the same way.
        """
        lines = self.text.split("\n")
        for start, line in enumerate(lines):
            if name not in line or _parsed(lines[:start]) is None:
                continue
            ends = (_parsed(lines[:end]) for end in range(start + 1, len(lines) + 1))
            statement = next((content for content in ends if content is not None), {})
            table = _table_of(statement, self.table)
            if table is not None and name in table:
                return start + 1
        return None


def read_toml(path: Path, table: str) -> TomlFile:
    """One table of a TOML file; `table` may be dotted, and empty for the whole file.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has no such table.
    """
    import tomllib  # 5 ms that an application without a TOML file does not pay

    text = read_text(path)
    try:
        found: Any = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and depth, are no TOMLDecodeError
        said = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a value is too long or too deep"
        line = re.search(r" \(at line ([0-9]+), column [0-9]+\)$", said)
        raise ConfigError(
            f"no valid TOML: {said[: line.start()] if line else said}",
            hint="text stands in quotes, NAME=value lines belong into an env file",
            source=f"{path}, line {line[1]}" if line else str(path),
        ) from None
    content = _table_of(found, table)
    if content is None:
        tables = [name for name, value in found.items() if isinstance(value, dict)]
        raise ConfigError(
            f"there is no table [{table}]", hint=f"tables there: {', '.join(tables) or 'none'}", source=str(path)
        )
    return TomlFile(path, table, text, dict(content))


def _parsed(lines: list[str]) -> dict[str, Any] | None:
    import tomllib

    try:
        return tomllib.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return None


def _table_of(content: dict[str, Any], table: str) -> dict[str, Any] | None:
    found: Any = content
    for part in table.split(".") if table else []:
        found = found.get(part)
        if not isinstance(found, dict):
            return None
    return dict(found)


def read_text(path: Path) -> str:
    """A whole UTF-8 file, its failures as `ConfigError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(f"cannot read {path}: it is not UTF-8 text", hint="save it as UTF-8") from None
        reason = getattr(error, "strerror", None) or error  # ValueError: a NUL in the path
        raise ConfigError(f"cannot read {path}: {reason}", hint="check the path, and who may read it") from None
