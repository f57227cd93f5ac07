"""Keeps the standard library's `sqlite3` away from a database that a node of this process has open.

Python's own SQLite is another library in the same process: when it closes the file, POSIX drops the locks that ours
holds on it, and its last close deletes the live WAL. So `sqlite3.connect` on a protected file is refused by an audit
hook. Must not know nodes or connections of ours. Invariant: while a file is protected no name of it (relative, symbolic
or hard link, `file:` URI) opens it; everything else passes untouched.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from hiqlite.errors import UsageError

EVENT: Final = "sqlite3.connect"
SUFFIXES: Final = ("", "-wal", "-shm", "-journal")


class ProtectedFiles:
    """Files that are open here, counted, since two nodes of one process may share a folder tree.

    An audit hook can never be taken out again, so it is installed once, with the first file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: Counter[str] = Counter()
        self._installed = False

    @contextmanager
    def protect(self, path: Path | str) -> Iterator[None]:
        """While the block runs, `sqlite3.connect` on this file, or on its WAL, raises UsageError."""
        real = os.path.realpath(path)
        self.add(real)
        try:
            yield
        finally:
            self.remove(real)

    def add(self, path: Path | str) -> None:
        """Protects a file until `remove` was called as often."""
        with self._lock:
            self._paths[os.path.realpath(path)] += 1
            if not self._installed:
                sys.addaudithook(self._hook)
                self._installed = True

    def remove(self, path: Path | str) -> None:
        with self._lock:
            real = os.path.realpath(path)
            self._paths[real] -= 1
            if self._paths[real] <= 0:
                del self._paths[real]

    def covers(self, database: object) -> bool:
        """Whether what was given to `sqlite3.connect` names a protected file."""
        if not self._paths:
            return False
        return any(self._is_protected(name) for name in _names(database))

    def _is_protected(self, name: str) -> bool:
        real = os.path.realpath(name)
        for path in list(self._paths):
            if any(real == path + suffix for suffix in SUFFIXES) or _same_file(real, path):
                return True
        return False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == EVENT and arguments and self.covers(arguments[0]):
            raise UsageError(
                f"{arguments[0]!s} is the live database of a node in this process:"
                " opening it with sqlite3 would drop its locks and delete its WAL",
                hint="use the client, or a backup",
            )


def _names(database: object) -> Iterator[str]:
    """File names that sqlite3.connect could mean; with and without `uri=True`, which an audit hook is not told."""
    try:
        name = os.fsdecode(database)  # type: ignore[arg-type]  # TypeError is the answer for what is no path
    except TypeError:
        return
    if "\0" in name:
        return
    yield name
    if name.startswith("file:"):
        path = name[5:].split("?", 1)[0].split("#", 1)[0]
        if path.startswith("//"):
            path = "/" + path[2:].partition("/")[2]
        yield unquote(path)


def _same_file(left: str, right: str) -> bool:
    try:
        return os.path.samestat(os.stat(left), os.stat(right))
    except OSError:
        return False


# One per process, because the hook is: the only state of this package that outlives its nodes.
PROTECTED: Final = ProtectedFiles()
