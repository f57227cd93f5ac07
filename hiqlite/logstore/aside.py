"""What a start cannot trust is moved out of the way, not deleted: until the node is whole again somebody may want it.

Must not know what anything means. Invariant: once `put` has returned, nothing lies in the old place, also after a
crash.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hiqlite import durable, observe
from hiqlite.errors import StorageError

CLUSTERS: Final = "clusters"
OURS: Final = (CLUSTERS, CLUSTERS + ".tmp")  # that file, and what becomes of it; nothing that was put here
END: Final = "end"  # the last word of that file: without it some may be missing
NOBODY_KNOWS: Final = "unknown"  # in place of a cluster's name
NUMBERED: Final = re.compile(r"([0-9]+)-")
EVIDENCE: Final = "diverged.txt"  # beside a database that people are to look at
EVIDENCE_KEPT: Final = 3
log = observe.logger("logstore")


class Aside:
    """A folder of a data folder for this; made when something is put there."""

    def __init__(self, data_folder: Path, name: str = "aside") -> None:
        self._data_folder = data_folder
        self.folder = data_folder / name

    @property
    def holds_anything(self) -> bool:
        """Of what was put here. Raises StorageError."""
        with self._used():
            return any(name not in OURS for name in durable.names(self.folder))

    @property
    def clusters(self) -> frozenset[str]:
        """What was said of what lies here: names of the clusters that it is of; where that can be read in part only,
        or nothing was said, NOBODY_KNOWS is one of them. Raises StorageError."""
        with self._used():
            file = self.folder / CLUSTERS
            *names, end = (file.read_text("utf-8", "replace") if durable.is_file(file) else "").split() or [""]
            whole = end == END or not self.holds_anything
            return frozenset(names if whole else (*names, NOBODY_KNOWS))

    def say_whose(self, *clusters: str) -> None:
        """Durable when this returns: what is put here from now on is of these clusters, too; none: nobody will miss it.
        Comes before the first `put` of what may be cleared. Raises StorageError."""
        with self._used():
            self._make()
            known = self.clusters
            if known and known >= set(clusters):
                return  # it stands there already, and a full disk keeps nobody from putting more here
            names = sorted(known | set(clusters))
            if durable.is_folder(self.folder / CLUSTERS):
                durable.move_aside(self.folder / CLUSTERS)
            durable.write_file(self.folder / CLUSTERS, "".join(f"{name}\n" for name in (*names, END)).encode())

    @contextmanager
    def _used(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be used: {error.strerror}", hint="check the disk and the permissions"
            ) from error

    def _make(self) -> None:
        if durable.exists(self.folder) and not durable.is_folder(self.folder):
            durable.move_aside(self.folder)  # nobody here knows what it is
        durable.make_folder(self.folder)

    def _numbers(self) -> dict[str, int]:
        """Of what was put here; other things may lie beside it."""
        found = ((name, NUMBERED.match(name)) for name in durable.names(self.folder))
        return {name: int(match[1]) for name, match in found if match is not None}

    def put(self, path: Path) -> None:
        """Moves `path`, of whatever kind, here; nothing happens where there is nothing. Raises StorageError."""
        if not os.path.lexists(path):
            return
        try:
            self._make()
            name = "-".join(path.relative_to(self._data_folder).parts)
            os.rename(path, self.folder / f"{max(self._numbers().values(), default=0) + 1}-{name}")
            for folder in (self.folder, path.parent):
                durable.sync_folder(folder)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be moved to {self.folder}: {error.strerror}", hint="check the disk and the permissions"
            ) from error

    def clear(self) -> None:
        """Removes what lies here, and keeps what people are to look at. What cannot be removed stays for the next time.

        Raises StorageError where the evidence cannot be taken away from here: then all of it stays.
        """
        self._keep_evidence()
        with self._used():
            there = [self.folder / name for name in durable.names(self.folder) if name not in OURS]
        for path in there:
            if durable.is_folder(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        if self.holds_anything:  # whose it is stays with it
            log.warning("what is left of %s goes another time: the disk refuses", self.folder)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if durable.exists(self.folder):
            log.warning("%s stays: the disk refuses", self.folder)
        else:
            log.info("what could not be trusted at a start is not needed any more: %s is removed", self.folder)

    def _keep_evidence(self) -> None:
        """It goes to a folder of its own, the newest few of it."""
        kept = Aside(self._data_folder, "evidence")
        with self._used():
            for path in sorted(self.folder.rglob(EVIDENCE)):
                log.warning("the database in %s was another one than that of the other nodes", kept.folder)
                kept.put(path.parent)
        with kept._used():
            numbers = kept._numbers()
        for name in sorted(numbers, key=lambda one: numbers[one])[:-EVIDENCE_KEPT]:
            shutil.rmtree(kept.folder / name, ignore_errors=True)
