"""What a start cannot trust is moved out of the way, not deleted: until the node is whole again somebody may want it.

Must not know what anything means. Invariant: once `put` has returned, nothing lies in the old place, also after a
crash.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hiqlite import observe
from hiqlite.errors import StorageError

from .folder import make_durable_folder, sync_folder

log = observe.logger("logstore")


class Aside:
    """A folder of a data folder for this; made when something is put there."""

    def __init__(self, data_folder: Path, name: str = "aside") -> None:
        self._data_folder = data_folder
        self.folder = data_folder / name

    @property
    def holds_anything(self) -> bool:
        return self.folder.is_dir() and any(self.folder.iterdir())

    def put(self, path: Path) -> None:
        """Moves `path`, of whatever kind, here; nothing happens where there is nothing. Raises StorageError."""
        if not os.path.lexists(path):
            return
        try:
            if self.folder.exists() and not self.folder.is_dir():
                self.folder.unlink()
            make_durable_folder(self.folder)
            name = "-".join(path.relative_to(self._data_folder).parts)
            numbers = [int(one.name.partition("-")[0]) for one in self.folder.iterdir() if one.name[:1].isdigit()]
            os.rename(path, self.folder / f"{max(numbers, default=0) + 1}-{name}")
            for folder in (self.folder, path.parent):
                sync_folder(folder)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be moved to {self.folder}: {error.strerror}", hint="check the disk and the permissions"
            ) from error

    def clear(self) -> None:
        """Removes what lies here; what cannot be removed stays for the next time."""
        if os.path.lexists(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            log.info("what could not be trusted at a start is not needed any more: %s is removed", self.folder)
