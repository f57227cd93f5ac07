"""Env files: `NAME=value`, line by line.

What this is for: the syntax alone, and whether a text is written in it.
Must not know: which variables mean something.
Invariant: nothing is substituted, so `$SECRETS` stays itself; an error names the place, never what stands there.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from hiqlite.errors import ConfigError

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=[ \t]*")
_FIRST_LINE = re.compile(r"\s*(?:export\s+)?[A-Z][A-Z0-9_]*\s*=")
_ESCAPES = MappingProxyType({"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"})


class Assignment(NamedTuple):
    """A variable of an env file, and the line on which it begins."""

    name: str
    value: str
    line: int

    def __repr__(self) -> str:
        return f"Assignment({self.name} in line {self.line})"  # the value may be a secret


def looks_like_env(text: str) -> bool:
    """Whether a config file is in env syntax: its first line that says something reads NAME=value, NAME in capitals."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return _FIRST_LINE.match(line) is not None
    return False


def parse_env(text: str, path: Path | str) -> list[Assignment]:
    """The variables of a text in env syntax, in their order.

    `NAME=value`, optionally behind `export`; `#` begins a comment at the start of a line or behind a space; values in
    double quotes may span lines and know the escapes n t r " $ and backslash; those in single quotes are taken as they
    are.

    Raises:
        ConfigError: a line that is no assignment, or a quote that does not end.
    """
    found: list[Assignment] = []
    position = 0
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end].strip()
        if not line or line.startswith("#"):
            position = end + 1
            continue
        number = text.count("\n", 0, position) + 1
        source = f"{path}, line {number}"
        match = _LINE.match(text, position, end)
        if match is None:
            raise ConfigError("this line cannot be read", hint="expected NAME=value, or # and a comment", source=source)
        value, position = _value(text, match.end(), match[1], source)
        found.append(Assignment(match[1], value, number))
    return found


def _value(text: str, start: int, name: str, source: str) -> tuple[str, int]:
    """The value that begins at `start`, and where the next line begins."""
    quote = text[start : start + 1]
    if quote not in ('"', "'"):
        line, _, _ = text[start:].partition("\n")
        value = re.split(r"(?:^|\s)#", line, maxsplit=1)[0]
        return value.strip(), start + len(line) + 1
    parts: list[str] = []
    position = start + 1
    while position < len(text) and text[position] != quote:
        if quote == '"' and text[position] == "\\" and text[position + 1 : position + 2] in _ESCAPES:
            parts.append(_ESCAPES[text[position + 1]])
            position += 2
        else:
            parts.append(text[position])
            position += 1
    if position >= len(text):
        raise ConfigError(f"the quote of {name} does not end", hint=f"close it with {quote}", source=source)
    rest, _, _ = text[position + 1 :].partition("\n")
    if rest.strip() and not rest.lstrip().startswith("#"):
        raise ConfigError(
            f"text behind the closing quote of {name}", hint='a " within "..." is written \\"', source=source
        )
    return "".join(parts), position + 1 + len(rest) + 1
