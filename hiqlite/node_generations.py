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

from hiqlite import durable, observe
from hiqlite.engine.model import Membership
from hiqlite.errors import ConfigError, SnapshotCorruption, StorageError
from hiqlite.logstore.meta import Meta
from hiqlite.statemachine import trust

NAME: Final = re.compile(r"[0-9a-f]{16}")
log = observe.logger("node")


def names_in(folder: Path) -> list[str]:
    """Of the generations in `folder`. Raises StorageError."""
    try:
        return [one for one in durable.names(folder) if NAME.fullmatch(one)]
    except OSError as error:
        raise refused(folder, error) from error


def names_of(folder: Path, filename: str) -> list[str]:
    """Of the generations in `folder` that hold a database. Raises StorageError."""
    try:
        return [one for one in names_in(folder) if durable.exists(folder / one / filename)]
    except OSError as error:
        raise refused(folder, error) from error


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

    def check_names(self) -> None:
        """Raises ConfigError where the database has another name than the config's. Changes nothing."""
        name = self._meta.generation(self._group)
        for one in names_in(self.folder) if name is None else [name]:
            check_name(self.path(one))

    def open(self) -> Path:
        """The current database file's path; its folder is made where it is missing. Leftovers of a crash go.

        Raises:
            SnapshotCorruption: something else lies in a folder's place. StorageError: the disk refuses.
        """
        name = self._meta.generation(self._group)
        try:
            if durable.exists(self.folder) and not durable.is_folder(self.folder):
                raise SnapshotCorruption(f"{self.folder} is no folder")
            if name is None:
                name = self._only_one() or secrets.token_hex(8)
                durable.make_folder(self.folder / name)
                self._meta.set_generation(self._group, name)
            elif durable.exists(self.folder / name) and not durable.is_folder(self.folder / name):
                raise SnapshotCorruption(f"{self.folder / name} is no folder")
            else:
                # A generation whose folder was lost comes back empty, and whoever knows the log knows what to do.
                durable.make_folder(self.folder / name)
                self.remove_others(name)
        except OSError as error:
            raise refused(self.folder, error) from error
        return self.path(name)

    def _only_one(self) -> str | None:
        """A database that no name leads to is never left for an empty one, which would make garbage of it. A crash
        while it was taken out of use leaves one too: whoever opens it finds what is wrong with it once more."""
        found = names_of(self.folder, self._filename)
        if len(found) > 1:
            raise SnapshotCorruption(f"{self.folder} holds {len(found)} databases, and nothing says which one counts")
        return found[0] if found else None

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
            durable.make_folder(self.folder / name)
            trust.open_mark(self.path(name))  # without one, nothing would tell of a checkpoint that was cut short
            os.rename(image, self.path(name))
            durable.sync_folder(self.folder / name)
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


def check_name(path: Path) -> None:
    """Raises ConfigError where a database lies beside `path`, and nothing of one at `path`: it is not lost, the config
    gives it another name. To begin anew would take a sound database away, on all nodes when all have that config.
    Raises StorageError where that cannot be told."""
    try:
        if any(durable.exists(path.with_name(path.name + end)) for end in ("", "-wal", "-mark")):
            return
        there = [one for one in durable.names(path.parent) if durable.is_file(path.with_name(one))]
    except OSError as error:
        raise refused(path.parent, error) from error
    found = next((one for one in there if one.endswith(".db") or trust.mark_path(Path(one)).name in there), None)
    if found is not None:
        raise ConfigError(
            f"the database in {path.parent} is {found}, the config names {path.name}",
            hint=f"set filename_db = {found}, or rename {found}, {found}-wal and {found}-mark before the start",
            key="filename_db",
        )


def refused(folder: Path, error: OSError) -> StorageError:
    """The disk does not let anybody use `folder`."""
    return StorageError(f"cannot use {folder}: {error.strerror}", hint="check the disk and the permissions")
