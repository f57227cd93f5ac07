"""Which database file is the current one: each image lives in a folder of its own, and LMDB names the folder.

Part of the composition root: it knows the metadata and the folder, and no SQL. A database is never renamed over a live
one, since a stale write-ahead log beside it would be replayed into it (semantics.md section 3). Invariant: the folder
that the metadata name holds a complete, durable database, at every moment; what no name leads to is garbage.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Final

from hiqlite import observe
from hiqlite.engine.model import Membership
from hiqlite.errors import SnapshotCorruption, StorageError
from hiqlite.logstore.folder import make_durable_folder, sync_folder
from hiqlite.logstore.meta import Meta

NAME: Final = re.compile(r"[0-9a-f]{16}")
log = observe.logger("node")


class Generations:
    """The folders of one group's database.

    Args:
        folder: holds one folder per generation.
        filename: of the database in each of them.
    """

    def __init__(self, folder: Path, meta: Meta, group: int, filename: str) -> None:
        self.folder = folder
        self._meta = meta
        self._group = group
        self._filename = filename

    def open(self) -> Path:
        """The current database file's path; its folder is made where it is missing. Leftovers of a crash go."""
        name = self._meta.generation(self._group)
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise SnapshotCorruption(f"{self.folder} is no folder")
        try:
            if name is None:
                name = secrets.token_hex(8)
                make_durable_folder(self.folder / name)
                self._meta.set_generation(self._group, name)
            elif os.path.lexists(self.folder / name) and not (self.folder / name).is_dir():
                raise SnapshotCorruption(f"{self.folder / name} is no folder")
            else:
                # A generation whose folder was lost comes back empty, and whoever knows the log knows what to do.
                make_durable_folder(self.folder / name)
                self.remove_others(name)
        except OSError as error:
            hint = "check the disk and the permissions"
            raise StorageError(f"cannot use {self.folder}: {error.strerror}", hint=hint) from error
        return self.path(name)

    def drop(self) -> Path:
        """Of a database that is not to be used any more: what there is to move away. `open` makes another one."""
        name = self._meta.generation(self._group)
        self._meta.set_generation(self._group, None)
        return self.folder if name is None or not self.folder.is_dir() else self.folder / name

    def path(self, name: str) -> Path:
        return self.folder / name / self._filename

    def place(self, image: Path) -> str:
        """Moves a complete, synced database file into a new folder; durable when this returns. Blocks.

        Returns:
            The name to `switch` to.
        """
        name = secrets.token_hex(8)
        try:
            make_durable_folder(self.folder / name)
            os.rename(image, self.path(name))
            sync_folder(self.folder / name)
        except OSError as error:
            raise StorageError(f"{self.folder}: the image cannot be put in place: {error.strerror}") from error
        return name

    def switch(self, name: str, membership: Membership | None = None) -> None:
        """From now on `name` is the current generation, also after a crash, and `membership` in force. Blocks."""
        assert self.path(name).exists()
        self._meta.set_generation(self._group, name, membership)

    def remove_others(self, current: str) -> None:
        """Removes every generation but the current one. Readers that are still on one of them read on. Blocks.

        What cannot be removed (the disk refuses, or a reader that ends takes its files away meanwhile) is left for the
        next time: garbage stops no node.
        """
        for folder in self.folder.iterdir():
            if not NAME.fullmatch(folder.name) or folder.name == current:
                continue
            try:
                shutil.rmtree(folder)
                log.info("the database of generation %s is removed", folder.name)
            except OSError as error:
                log.warning("what is left of generation %s goes another time: %s", folder.name, error)
