"""What a start cannot trust is moved out of the way, not deleted: until the node is whole again somebody may want it.

Must not know what anything means. Invariant: once `put` has returned, nothing lies in the old place, also after a
crash.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from hiqlite import durable, observe
from hiqlite.errors import StorageError

CLUSTERS: Final = "clusters"
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
        return self.folder.is_dir() and any(one.name != CLUSTERS for one in self.folder.iterdir())

    @property
    def clusters(self) -> frozenset[str]:
        """What was said of what lies here: names of the clusters that it is of."""
        file = self.folder / CLUSTERS
        return frozenset(file.read_text("utf-8", "replace").split()) if file.is_file() else frozenset()

    def say_whose(self, cluster: str) -> None:
        """Durable when this returns: what is put here from now on is of that cluster, too. Raises StorageError."""
        try:
            self._make()
            names = sorted(self.clusters | {cluster})
            durable.write_file(self.folder / CLUSTERS, "".join(f"{name}\n" for name in names).encode())
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be used: {error.strerror}", hint="check the disk and the permissions"
            ) from error

    def _make(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            self.folder.unlink()
        durable.make_folder(self.folder)

    def put(self, path: Path) -> None:
        """Moves `path`, of whatever kind, here; nothing happens where there is nothing. Raises StorageError."""
        if not os.path.lexists(path):
            return
        try:
            self._make()
            name = "-".join(path.relative_to(self._data_folder).parts)
            numbers = [int(one.name.partition("-")[0]) for one in self.folder.iterdir() if one.name[:1].isdigit()]
            os.rename(path, self.folder / f"{max(numbers, default=0) + 1}-{name}")
            for folder in (self.folder, path.parent):
                durable.sync_folder(folder)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be moved to {self.folder}: {error.strerror}", hint="check the disk and the permissions"
            ) from error

    def clear(self) -> None:
        """Removes what lies here; what cannot be removed stays for the next time."""
        if os.path.lexists(self.folder):
            if self.folder.is_dir():
                self._keep_evidence()
            shutil.rmtree(self.folder, ignore_errors=True)
            log.info("what could not be trusted at a start is not needed any more: %s is removed", self.folder)

    def _keep_evidence(self) -> None:
        """What people are to look at goes to a folder of its own, the newest few of it."""
        kept = Aside(self._data_folder, "evidence")
        try:
            for path in sorted(self.folder.rglob(EVIDENCE)):
                log.warning("the database in %s was another one than that of the other nodes", kept.folder)
                kept.put(path.parent)
            found = kept.folder.iterdir() if kept.folder.is_dir() else ()
            there = sorted(found, key=lambda one: int(one.name.partition("-")[0]))
            for one in there[:-EVIDENCE_KEPT]:
                shutil.rmtree(one, ignore_errors=True)
        except (OSError, ValueError, StorageError) as error:
            log.warning("evidence is not kept: %s", error)
