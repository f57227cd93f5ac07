"""The node's metadata in LMDB: identity, votes, membership, and which files are the current ones.

Must not know the log or Raft's rules. Layout: docs/formats.md section 8. Every value carries a CRC of its own, because
LMDB checks nothing. Invariant: a put that returned is on disk (LMDB's default durable mode).

Before LMDB maps the file its length is checked against both meta pages: a file cut short is no error to LMDB but SIGBUS
to the process. The file is kept longer than all of it will ever need, its blocks reserved: so that check has no false
alarms (LMDB may leave pages at its end unwritten), and a full disk never keeps a vote from being recorded.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgpack

from hiqlite._accel.wal import crc32c
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import StorageError

from .folder import GROUP_NAMES, make_durable_folder, sync_folder
from .worker import Worker

T = TypeVar("T")

MAP_BYTES = 64 << 20
RESERVED_BYTES = 1 << 20
FORMAT = 3
_CRC = struct.Struct("<I")
_META_BYTES = 152
_META_MAGIC = 0xBEEFC0DE
_META_FLAG = 0x08
_OF_ONE_LIFE = ("hard_state", "membership", "recorded_set", "newest_segment", "purge_point")
_DAMAGE = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.VersionMismatchError)


class MetaDamaged(StorageError):
    """What is there cannot be trusted. An error of the disk is none of these: it says nothing about what is on it."""


@dataclass(frozen=True, slots=True)
class HardState:
    """Term and vote of one group as last recorded."""

    term: int = 0
    vote: Identity | None = None


class Meta:
    """The metadata of one node; use `open`.

    Reads and puts may come from any thread; a put takes as long as the disk does, so on the loop use `worker`.
    """

    def __init__(self, environment: Any, folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._closed = False
        self.worker = Worker("hiqlite-meta")
        try:
            found = self._checked_format()
            self.fresh = found is None
            if found not in (None, FORMAT):
                raise StorageError(
                    f"the metadata in {folder} have format {found}, this version reads {FORMAT}",
                    hint="start it with the version that wrote it",
                )
            # Damage of what only writing reads (which pages are free) shows now, before anything counts on it.
            self.put({"format": FORMAT})
            self._checked_format()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, folder: Path) -> Meta:
        """Opens or makes the environment in `folder`.

        Raises:
            MetaDamaged: the file is damaged or cut short, or something else lies in its place.
            StorageError: the disk refuses, or another version wrote it.
        """
        environment = None
        for path, is_right in ((folder, Path.is_dir), (folder / "data.mdb", Path.is_file)):
            if os.path.lexists(path) and not is_right(path):
                raise _damaged(folder, f"something else lies in the place of {path}")
        try:
            make_durable_folder(folder)
            _remove_lock_file(folder / "lock.mdb")
            if not (folder / "data.mdb").exists():
                make(folder)
            check_length(folder / "data.mdb")
            environment = open_environment(folder)
            reserve(folder / "data.mdb")
        except (lmdb.Error, OSError) as error:
            if environment is not None:
                environment.close()
            if isinstance(error, _DAMAGE):
                raise _damaged(folder, str(error)) from error
            # A disk that refuses says nothing about what is on it: nobody must be told to throw that away.
            raise StorageError(f"cannot open the metadata in {folder}: {error}", hint="check the disk") from error
        return cls(environment, folder)

    def _checked_format(self) -> int | None:
        """The format; every value of it was looked at. Raises MetaDamaged."""
        found = self._typed("format", int)
        if found is not None and found != FORMAT:
            return found
        try:
            with self._environment.begin() as transaction:
                stored = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
                said = transaction.stat()["entries"]
        except lmdb.Error as error:
            raise _damaged(self._folder, str(error)) from error
        if len(stored) != said or stored != sorted(stored):
            raise _damaged(self._folder, "values are missing")
        for key, value in stored:
            self._whole(key, value)
        return found

    # ------------------------------------------------------------------ the node

    @property
    def node_id(self) -> int | None:
        return self._typed("node_id", int)

    def set_node_id(self, node_id: int) -> None:
        self.put({"node_id": node_id})

    @property
    def cluster_id(self) -> bytes | None:
        return self._typed("cluster_id", bytes)

    # ------------------------------------------------------------------ one group

    def incarnation(self, group: int) -> int | None:
        return self._typed(_key(group, "incarnation"), int)

    def begin_incarnation(
        self, group: int, incarnation: int, *, in_memory: bool = False, returns: bool = False
    ) -> None:
        """The group begins anew on this node: what an earlier incarnation promised or belonged to is gone.

        Args:
            in_memory: its log will not outlive the process.
            returns: see `returns`.
        """
        begun: dict[str, Any] = {_key(group, "incarnation"): incarnation, _key(group, "in_memory"): in_memory}
        begun[_key(group, "returns")] = returns or None
        self.put({_key(group, name): None for name in _OF_ONE_LIFE} | begun)

    def token_mark(self, group: int) -> int:
        """No index of the group's log at or above this one has been in use on this node."""
        return self._typed(_key(group, "token_mark"), int) or 0

    def set_token_mark(self, group: int, mark: int) -> None:
        self.put({_key(group, "token_mark"): mark})

    def returns(self, group: int) -> bool:
        """Whether this node had data of the group before and lost them: it comes back to a group that has formed, and
        founds none. Until it has joined."""
        return self._typed(_key(group, "returns"), bool) or False

    def distrusted(self, group: int) -> str | None:
        """Name of a generation of the database that was found damaged while it was in use."""
        return self._typed(_key(group, "distrusted"), str)

    def set_distrusted(self, group: int, generation: str) -> None:
        self.put({_key(group, "distrusted"): generation})

    def in_memory(self, group: int) -> bool:
        """Whether the recorded incarnation had its log in memory only."""
        return self._typed(_key(group, "in_memory"), bool) or False

    def recorded_set(self, group: int) -> tuple[Identity, ...] | None:
        """The voters that formed, or are to form, the group."""
        key = _key(group, "recorded_set")
        pairs = self._typed(key, list)
        return None if pairs is None else self._identities(key, pairs)

    def set_formed(self, group: int, cluster_id: bytes, recorded: tuple[Identity, ...]) -> None:
        """Records the forming set, in one step with the cluster's id, which stays what it was if there is one."""
        values: dict[str, Any] = {_key(group, "recorded_set"): _pairs(recorded)}
        self.put(values if self.cluster_id is not None else {**values, "cluster_id": cluster_id})

    def set_joined(self, group: int, cluster_id: bytes, membership: Membership) -> None:
        """Records the membership of a group that formed elsewhere, and the cluster's id as `set_formed` does. A set
        that was recorded here to form another group never acts."""
        values = {**self._newer_membership(group, membership), _key(group, "recorded_set"): None}
        values[_key(group, "returns")] = None
        self.put(values if self.cluster_id is not None else {**values, "cluster_id": cluster_id})

    def hard_state(self, group: int) -> HardState:
        found = self._typed(_key(group, "hard_state"), list)
        if found is None:
            return HardState()
        if len(found) != 3 or not all(isinstance(part, int) for part in found):
            raise _damaged(self._folder, f"{_key(group, 'hard_state')} has another shape")
        term, vote, incarnation = found
        return HardState(term, Identity(vote, incarnation) if vote else None)

    def set_hard_state(self, group: int, term: int, vote: Identity | None) -> None:
        self.put({_key(group, "hard_state"): [term, vote.id if vote else 0, vote.incarnation if vote else 0]})

    def membership(self, group: int) -> Membership | None:
        key = _key(group, "membership")
        found = self._typed(key, list)
        if found is None:
            return None
        if len(found) not in (3, 4) or not isinstance(found[0], int):
            raise _damaged(self._folder, f"{key} has another shape")
        return Membership(found[0], *(self._identities(key, part) for part in found[1:]))

    def set_membership(self, group: int, membership: Membership) -> None:
        """The newest of those that were given stays: a committed one is never followed by an older one."""
        self.put(self._newer_membership(group, membership))

    def _newer_membership(self, group: int, membership: Membership) -> dict[str, Any]:
        known = self.membership(group)
        if known is not None and known.index > membership.index:
            return {}
        return {_key(group, "membership"): _membership_value(membership)}

    def newest_segment(self, group: int) -> int:
        """Number of the newest log segment that was in use; 0: none ever."""
        return self._typed(_key(group, "newest_segment"), int) or 0

    def set_newest_segment(self, group: int, number: int) -> None:
        self.put({_key(group, "newest_segment"): number})

    def purge_point(self, group: int) -> tuple[int, int]:
        """(index, term) of the last entry that was purged; (0, 0): none ever."""
        key = _key(group, "purge_point")
        found = self._typed(key, list)
        if found is None:
            return 0, 0
        if len(found) != 2 or not all(isinstance(part, int) for part in found):
            raise _damaged(self._folder, f"{key} has another shape")
        index, term = found
        return index, term

    def set_purge_point(self, group: int, index: int, term: int) -> None:
        self.put({_key(group, "purge_point"): [index, term]})

    def generation(self, group: int) -> str | None:
        """Name of the folder that holds the current database image."""
        return self._typed(_key(group, "generation"), str)

    def set_generation(self, group: int, name: str | None, membership: Membership | None = None) -> None:
        """The current database image from now on, and who was in force at its index, in one step.

        With a membership on the metadata's worker only, which puts memberships in their order.
        """
        newer = {} if membership is None else self._newer_membership(group, membership)
        self.put({_key(group, "generation"): name, **newer})

    # ------------------------------------------------------------------ all of it

    def put(self, values: Mapping[str, Any]) -> None:
        """Writes all of `values` in one durable transaction; None stands for a value that is not there."""
        try:
            with self._environment.begin(write=True) as transaction:
                for key, value in values.items():
                    name, packed = key.encode(), msgpack.packb(value)
                    transaction.put(name, packed + _CRC.pack(crc32c(name + packed)))
        except _DAMAGE as error:
            raise _damaged(self._folder, str(error)) from error
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"could not write metadata in {self._folder}: {error}", hint="check the disk") from error

    def close(self) -> None:
        """Finishes what the worker has, then closes. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.worker.close()
        self._environment.close()

    def _get(self, key: str) -> Any:
        try:
            with self._environment.begin() as transaction:
                stored = transaction.get(key.encode())
        except lmdb.Error as error:
            raise _damaged(self._folder, str(error)) from error
        if stored is None:
            return None
        return msgpack.unpackb(self._whole(key.encode(), stored))

    def _whole(self, key: bytes, stored: bytes) -> bytes:
        """A value without its checksum, which is right. Raises MetaDamaged."""
        packed = stored[: -_CRC.size]
        if len(stored) <= _CRC.size or crc32c(key + packed) != _CRC.unpack(stored[-_CRC.size :])[0]:
            raise _damaged(self._folder, f"the checksum of {key.decode('ascii', 'replace')} is wrong")
        return packed

    def _typed(self, key: str, kind: type[T]) -> T | None:
        value = self._get(key)
        if value is not None and not isinstance(value, kind):
            raise _damaged(self._folder, f"{key} has another type")
        found: T | None = value
        return found

    def _identities(self, key: str, pairs: Any) -> tuple[Identity, ...]:
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise _damaged(self._folder, f"{key} has another shape")
        return tuple(Identity(node_id, incarnation) for node_id, incarnation in pairs)


def _remove_lock_file(path: Path) -> None:
    """LMDB's lock file is of no use to a folder that has one owner, and whatever stands in it may be wrong."""
    if path.is_dir():
        path.rename(path.with_name(path.name + ".aside"))
    else:
        path.unlink(missing_ok=True)


def open_environment(path: Path, *, alone: bool = False) -> Any:
    """Opens or makes the environment in a folder, or `alone` in a file."""
    return lmdb.open(str(path), map_size=MAP_BYTES, max_spare_txns=2, mode=0o600, lib_version=0, subdir=not alone)


def make(folder: Path) -> None:
    """An empty environment in `folder`, all of it or nothing.

    LMDB writes its first pages without a thought for a crash in between: what that leaves cannot be told from metadata
    that were damaged later, and the node would never start. So the file gets its name when all of it is on disk.
    """
    making = folder / "making.tmp"
    making.unlink(missing_ok=True)
    open_environment(making, alone=True).close()
    reserve(making)
    making.rename(folder / "data.mdb")
    making.with_name("making.tmp-lock").unlink(missing_ok=True)
    sync_folder(folder)


def reserve(path: Path) -> None:
    """Reserves the blocks of the file, durably."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(descriptor, 0, RESERVED_BYTES)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_length(path: Path) -> None:
    """Raises StorageError when the file is shorter than one of its two meta pages says, or they are none.

    Meta page of LMDB 0.9: header of 16 bytes (flags at 10), magic, version, ..., page size at 40, last page at 136.
    """
    if not path.exists():
        return
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(_META_BYTES)
        page_bytes = struct.unpack_from("<I", first, 40)[0] if len(first) == _META_BYTES else 0
        if page_bytes not in (4096, 8192, 16384, 32768, 65536):
            raise _damaged(path.parent, "its first page is damaged")
        file.seek(page_bytes)
        second = file.read(_META_BYTES)
    for name, page in (("first", first), ("second", second)):
        if len(page) < _META_BYTES:
            raise _damaged(path.parent, "the file was cut short")
        magic = struct.unpack_from("<I", page, 16)[0]
        if magic != _META_MAGIC or not struct.unpack_from("<H", page, 10)[0] & _META_FLAG:
            raise _damaged(path.parent, f"its {name} meta page is damaged")
        if (struct.unpack_from("<Q", page, 136)[0] + 1) * page_bytes > size_bytes:
            raise _damaged(path.parent, "the file was cut short")


def _damaged(folder: Path, reason: str) -> MetaDamaged:
    return MetaDamaged(f"the metadata in {folder} cannot be trusted: {reason}")


def _key(group: int, name: str) -> str:
    return f"{GROUP_NAMES[group]}/{name}"


def _membership_value(membership: Membership) -> list[Any]:
    value = [membership.index, _pairs(membership.voters), _pairs(membership.learners)]
    return [*value, _pairs(membership.outgoing)] if membership.joint else value


def _pairs(identities: tuple[Identity, ...]) -> list[list[int]]:
    return [[identity.id, identity.incarnation] for identity in identities]
