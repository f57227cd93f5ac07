"""What lies in the data folder of a survivor, as far as it can be read, and what of it is missing.

Part of the composition root. Looks at what a start would open, and writes nothing: the metadata are read in a copy.
Invariant: what cannot be read is named, and never taken for something that was not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hiqlite.config import NodeConfig
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import ConfigError, SnapshotCorruption, StorageError, UsageError
from hiqlite.logstore.aside import Aside
from hiqlite.logstore.folder import CACHE, DB, DataFolder
from hiqlite.logstore.looking import look
from hiqlite.logstore.meta import Meta
from hiqlite.logstore.meta_file import MetaDamaged
from hiqlite.logstore.recovered import Recovered
from hiqlite.logstore.segments import lives_in
from hiqlite.node_book import kept_in
from hiqlite.node_generations import names_of
from hiqlite.node_group_storage import HINT_BACKUP, HINT_REFUSED
from hiqlite.node_healing import Healing
from hiqlite.node_survivors import UNSAID
from hiqlite.runtime.addresses import Address
from hiqlite.runtime.membership_record import memberships_in
from hiqlite.statemachine import trust
from hiqlite.statemachine.connection import ConnectionSettings


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one folder.

    Attributes:
        cluster_id: None where only the database says whose it is, by what it names, `cluster`.
        members: as this node knew them last, or as its config says.
        missing: a sentence each; empty: a start would go on with all of it.
    """

    cluster_id: bytes | None
    cluster: str
    members: Membership
    book: Mapping[int, Address]
    applied: tuple[int, int]  # index and term
    log: Recovered
    missing: tuple[str, ...]

    @property
    def readable_index(self) -> int:
        """The database, and behind it the log up to the first entry that is damaged."""
        index, _ = self.applied
        ends = [low - 1 for low, high in self.log.faulty if high > index]
        return max(index, min([self.log.last_index, *ends]))


def findings(config: NodeConfig, folder: DataFolder) -> Findings:
    """Looks. Blocks.

    Raises:
        UsageError: there are no data of a cluster. SnapshotCorruption: the database is damaged, and nothing here makes
        up for it. ConfigError: it is another node's folder. StorageError: the disk refuses.
    """
    try:
        with TemporaryDirectory(prefix="hiqlite-recover-") as place:
            return _Look(config, folder, Path(place)).findings()
    except OSError as error:
        what = error.filename or folder.path
        raise StorageError(f"cannot read {what}: {error.strerror}", hint=HINT_REFUSED) from error


class _Look:
    """One look; `copy` is a folder for the metadata."""

    def __init__(self, config: NodeConfig, folder: DataFolder, copy: Path) -> None:
        self._config = config
        self._folder = folder
        self._copy = copy
        self._missing: list[str] = []

    def findings(self) -> Findings:
        with closing(self._metadata()) as meta:
            if meta.node_id not in (None, self._config.node_id):
                raise ConfigError(f"the data folder is that of node {meta.node_id}", hint="check data_dir and node_id")
            log, members = self._log(meta)
            stand = self._database(meta, log)
            if members is None:
                members = self._unknown_members(stand)
            elif stand.index == 0 and not log.runs and self._missing:
                what = f"neither database nor log hold anything{self._lies_aside()}"
                raise SnapshotCorruption(what, hint=HINT_BACKUP)
            if meta.membership(CACHE) is not None and not self._config.cache:
                what = "this node has data of a cache group that its config switches off"
                raise UsageError(what, hint="set cache = true")
            if log.faulty and (found := [one for one in log.faulty if one[1] > stand.index]):
                self._missing.append(f"entries of its log from {found[0][0]} on: they are damaged")
            elif log.faulty:
                self._missing.append("entries of its log that are damaged; the database holds them")
            if self._missing and (aside := Aside(self._folder.path)).holds_anything:
                self._missing.append(f"what a start could not trust: it was moved to {aside.folder}")
            return Findings(
                meta.cluster_id, stand.cluster, members, kept_in(meta), (stand.index, stand.term), log,
                tuple(self._missing),
            )  # fmt: skip

    def _metadata(self) -> Meta:
        """A copy of them; where they cannot be trusted, empty ones."""
        original = self._folder.meta / "data.mdb"
        if original.is_file():
            (self._copy / "meta").mkdir()
            shutil.copyfile(original, self._copy / "meta" / "data.mdb")
        try:
            return Healing(self._config, self._folder).trusted(self._copy / "meta")
        except MetaDamaged:
            self._missing.append("its metadata: they cannot be trusted")
            return Meta.open(self._copy / "none")

    def _log(self, meta: Meta) -> tuple[Recovered, Membership | None]:
        """With the newest members that it, or the metadata, name."""
        folder, number = self._folder.log(DB), self._config.node_id
        lives = {life for one, life in lives_in(folder) if one == number}
        life = meta.incarnation(DB)
        if life is None and len(lives) == 1:
            life = lives.pop()
        known = [found for found in (meta.membership(DB),) if found is not None]
        if life is None or not folder.is_dir():
            log = Recovered(lost=True)
        else:
            log, records = look(folder, meta, DB, Identity(number, life))
            known += [one for record in records for one in memberships_in(record)]
        if not log.whole:
            why = log.corrupt or "its newest segment is missing or short"
            self._missing.append(f"a part of its log: {why}")
        return log, max(known, key=lambda one: one.index, default=None)

    def _database(self, meta: Meta, log: Recovered) -> trust.Stand:
        names = [name for name in (meta.generation(DB),) if name is not None]
        names = names or names_of(self._folder.databases, self._config.filename_db)
        if len(names) > 1:
            raise StorageError(f"{self._folder.databases} holds {len(names)} databases", hint=HINT_BACKUP)
        try:
            path = self._folder.databases / names[0] / self._config.filename_db if names else None
            stand = trust.Stand() if path is None else trust.stand_of(path, ConnectionSettings())
            if stand.index < log.base_index:
                raise SnapshotCorruption(f"the database ends at entry {stand.index}, its log begins behind that")
        except SnapshotCorruption as damage:
            if log.base_index > 0 or not log.whole or log.last_index == 0:
                raise SnapshotCorruption(f"{damage.message}{self._lies_aside()}", hint=HINT_BACKUP) from damage
            return trust.Stand()  # all of it is applied anew from the log
        return stand

    def _unknown_members(self, stand: trust.Stand) -> Membership:
        """Of data without a word about members; the config's nodes are taken for them."""
        if stand.index == 0:
            aside = Aside(self._folder.path)
            if aside.holds_anything:
                raise UsageError(f"no data are in place{self._lies_aside()}", hint=_hint_of(aside))
            raise UsageError(
                f"the data folder {self._folder.path} is that of no cluster: there is nothing to recover",
                hint="a node whose folder is empty joins its cluster when it is started",
            )
        self._missing.append("who the members were: the nodes of its config are taken for them")
        numbers = {self._config.node_id, *(one.id for one in self._config.nodes)}
        return Membership(0, tuple(Identity(number, UNSAID) for number in sorted(numbers)))

    def _lies_aside(self) -> str:
        aside = Aside(self._folder.path)
        return f"; a start moved what it could not trust to {aside.folder}" if aside.holds_anything else ""


def _hint_of(aside: Aside) -> str:
    """How to go on with what lies there: the newest of each kind, in a folder of its own."""
    newest: dict[str, tuple[int, str]] = {}
    for one in aside.folder.iterdir():
        number, _, name = one.name.partition("-")
        if number.isdigit():
            newest[name] = max(newest.get(name, (0, "")), (int(number), one.name))
    copies = [f"{name} as {kind.replace('-', '/')}" for kind, (_, name) in sorted(newest.items())]
    return f"copy from there into a new folder: {', '.join(copies)}; then `hiqlite recover --data-dir` with that one"
