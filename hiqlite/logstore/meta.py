"""The node's metadata in LMDB: identity, votes, membership, and which files are the current ones.

Must not know the log or Raft's rules. Layout: docs/formats.md section 8. Every value carries a CRC of its own, because
LMDB checks nothing. Invariant: a put that returned is on disk (LMDB's default durable mode).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgpack

from hiqlite._accel import forks
from hiqlite._accel.wal import crc32c
from hiqlite.engine.model import Identity, Membership
from hiqlite.errors import StorageError, UsageError

from .folder import DB, GROUP_NAMES
from .meta_file import DAMAGE, damaged, open_folder
from .worker import Worker

T = TypeVar("T")

FORMAT = 4
_CRC = struct.Struct("<I")
_OF_ONE_LIFE = (
    "hard_state", "membership", "recorded_set", "joins", "renounced", "replaced", "newest_segment", "purge_point",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HardState:
    """Term and vote of one group as last recorded."""

    term: int = 0
    vote: Identity | None = None


class Meta:
    """The metadata of one node; use `open`.

    Reads and puts may come from any thread; a put takes as long as the disk does, so on the loop use `worker`.
    """

    def __init__(self, environment: Any, folder: Path, first: Mapping[str, Any]) -> None:
        self._environment = environment
        self._folder = folder
        self._closed = False
        self._left = False  # to the parent of this process
        forks.watch(self)
        self.worker = Worker("hiqlite-meta")
        try:
            found = self._checked_format()
            if found not in (None, FORMAT):
                raise StorageError(
                    f"the metadata in {folder} have format {found}, this version reads {FORMAT}",
                    hint="start it with the version that wrote it",
                )
            # Damage of what only writing reads (which pages are free) shows now, before anything counts on it.
            self.put({"format": FORMAT, **(first if found is None else {})})
            self._checked_format()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, folder: Path, first: Mapping[str, Any] | None = None) -> Meta:
        """Opens or makes the environment in `folder`.

        Args:
            first: what new metadata say from the first moment on, see `first_of`.

        Raises:
            MetaDamaged: the file is damaged or cut short, or something else lies in its place.
            StorageError: the disk refuses, or another version wrote it.
        """
        return cls(open_folder(folder), folder, first or {})

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
            raise damaged(self._folder, str(error)) from error
        if len(stored) != said or stored != sorted(stored):
            raise damaged(self._folder, "values are missing")
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

    def addresses(self) -> list[Any]:
        """Where nodes are, as this node heard."""
        return self._typed("addresses", list) or []

    def set_addresses(self, entries: list[Any]) -> None:
        self.put({"addresses": entries})

    # ------------------------------------------------------------------ one group

    def incarnation(self, group: int) -> int | None:
        return self._typed(_key(group, "incarnation"), int)

    def begin_incarnation(
        self, group: int, incarnation: int, *, in_memory: bool = False, returns: bool = False, renounced: bytes = b""
    ) -> None:
        """The group begins anew on this node: what an earlier incarnation promised or belonged to is gone.

        Args:
            in_memory: its log will not outlive the process.
            returns: see `returns`.
            renounced: the set that an earlier incarnation left.
        """
        begun: dict[str, Any] = {_key(group, "incarnation"): incarnation, _key(group, "in_memory"): in_memory}
        begun |= {_key(group, "returns"): returns or None, _key(group, "renounced"): renounced or None}
        self.put({_key(group, name): None for name in _OF_ONE_LIFE} | begun)

    def begin_to_return(self, incarnations: Mapping[int, int]) -> None:
        """This node had data and lost its metadata: it comes back to each group, by number, in one step."""
        values: dict[str, Any] = {}
        for group, incarnation in incarnations.items():
            values |= {_key(group, name): None for name in _OF_ONE_LIFE}
            values |= {_key(group, "incarnation"): incarnation, _key(group, "returns"): True}
        self.put(values)

    def token_mark(self, group: int) -> int:
        """No index of the group's log at or above this one has been in use on this node."""
        return self._typed(_key(group, "token_mark"), int) or 0

    def set_token_mark(self, group: int, mark: int) -> None:
        self.put({_key(group, "token_mark"): mark})

    def returns(self, group: int) -> bool:
        """Whether this node had data of the group before and lost them: it comes back to a group that has formed, and
        founds none. Until it has joined or formed, or forgets the group."""
        return self._typed(_key(group, "returns"), bool) or False

    def replaced(self, group: int) -> bool:
        """Whether the members have this node in another incarnation than the recorded one, which is over."""
        return self._typed(_key(group, "replaced"), bool) or False

    def set_replaced(self, group: int) -> None:
        self.put({_key(group, "replaced"): True})

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
        """Records the forming set, in one step with the cluster's id, which stays what it was if there is one. Whoever
        is one of it comes back to nothing."""
        values: dict[str, Any] = {_key(group, "recorded_set"): _pairs(recorded), _key(group, "returns"): None}
        self.put(values if self.cluster_id is not None else {**values, "cluster_id": cluster_id})

    def set_joined(self, group: int, cluster_id: bytes, membership: Membership) -> None:
        """Records the membership of a group that formed elsewhere, and the cluster's id as `set_formed` does. A set
        that was recorded here to form another group never acts."""
        values = {**self._newer_membership(group, membership), _key(group, "recorded_set"): None}
        values[_key(group, "returns")] = None
        self.put(values if self.cluster_id is not None else {**values, "cluster_id": cluster_id})

    def joins(self, group: int) -> bool:
        """Whether this node asked to join the group by itself and is no voter yet: it goes on asking."""
        return self._typed(_key(group, "joins"), bool) or False

    def set_joins(self, group: int, joins: bool) -> None:
        self.put({_key(group, "joins"): joins})

    def renounced(self, group: int) -> bytes:
        """Id of the recorded set that this node renounced last."""
        return self._typed(_key(group, "renounced"), bytes) or b""

    def set_renounced(self, group: int, set_id: bytes) -> None:
        self.put({_key(group, "renounced"): set_id})

    def hard_state(self, group: int) -> HardState:
        found = self._typed(_key(group, "hard_state"), list)
        if found is None:
            return HardState()
        if len(found) != 3 or not all(isinstance(part, int) for part in found):
            raise damaged(self._folder, f"{_key(group, 'hard_state')} has another shape")
        term, vote, incarnation = found
        return HardState(term, Identity(vote, incarnation) if vote else None)

    def set_hard_state(self, group: int, term: int, vote: Identity | None) -> None:
        self.put({_key(group, "hard_state"): [term, vote.id if vote else 0, vote.incarnation if vote else 0]})

    def membership(self, group: int) -> Membership | None:
        key = _key(group, "membership")
        found = self._typed(key, list)
        if found is None:
            return None
        if len(found) not in (3, 4, 5) or not isinstance(found[0], int):
            raise damaged(self._folder, f"{key} has another shape")
        removed = found.pop() if len(found) == 5 else []
        if not isinstance(removed, list) or not all(isinstance(one, int) for one in removed):
            raise damaged(self._folder, f"{key} has another shape")
        voters, learners, *outgoing = (self._identities(key, part) for part in found[1:])
        return Membership(found[0], voters, learners, outgoing[0] if outgoing else (), tuple(removed))

    def set_membership(self, group: int, membership: Membership) -> None:
        """The newest of those that were given stays: a committed one is never followed by an older one."""
        self.put(self._newer_membership(group, membership))

    def _newer_membership(self, group: int, membership: Membership) -> dict[str, Any]:
        known = self.membership(group)
        if known is not None and known.index > membership.index:
            return {}
        return {_key(group, "membership"): _membership_value(membership)}

    def begin_cluster(self, cluster_id: bytes, memberships: Mapping[int, Membership]) -> None:
        """This node belongs to another cluster from now on, with these members by group, and with what it has."""
        values: dict[str, Any] = {"cluster_id": cluster_id}
        for group, membership in memberships.items():
            values |= {_key(group, "membership"): _membership_value(membership), _key(group, "recorded_set"): None}
            ended = {_key(group, "joins"): False, _key(group, "replaced"): None, _key(group, "returns"): None}
            values |= ended
        self.put(values)

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
            raise damaged(self._folder, f"{key} has another shape")
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
        self._check_process()
        try:
            with self._environment.begin(write=True) as transaction:
                for key, value in values.items():
                    name, packed = key.encode(), msgpack.packb(value)
                    transaction.put(name, packed + _CRC.pack(crc32c(name + packed)))
        except DAMAGE as error:
            raise damaged(self._folder, str(error)) from error
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"could not write metadata in {self._folder}: {error}", hint="check the disk") from error

    def close(self) -> None:
        """Finishes what the worker has, then closes. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.worker.close()
        self._environment.close()
        forks.forget(self)

    def left_to_parent(self) -> None:
        """In a forked child: LMDB's readers and locks are the parent's."""
        self._left = self._closed = True

    def _check_process(self) -> None:
        if self._left:
            raise UsageError("these metadata were opened before a fork; only the parent may use them")

    def _get(self, key: str) -> Any:
        self._check_process()
        try:
            with self._environment.begin() as transaction:
                stored = transaction.get(key.encode())
        except lmdb.Error as error:
            raise damaged(self._folder, str(error)) from error
        if stored is None:
            return None
        return msgpack.unpackb(self._whole(key.encode(), stored))

    def _whole(self, key: bytes, stored: bytes) -> bytes:
        """A value without its checksum, which is right. Raises MetaDamaged."""
        packed = stored[: -_CRC.size]
        if len(stored) <= _CRC.size or crc32c(key + packed) != _CRC.unpack(stored[-_CRC.size :])[0]:
            raise damaged(self._folder, f"the checksum of {key.decode('ascii', 'replace')} is wrong")
        return packed

    def _typed(self, key: str, kind: type[T]) -> T | None:
        value = self._get(key)
        if value is not None and not isinstance(value, kind):
            raise damaged(self._folder, f"{key} has another type")
        found: T | None = value
        return found

    def _identities(self, key: str, pairs: Any) -> tuple[Identity, ...]:
        if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise damaged(self._folder, f"{key} has another shape")
        return tuple(Identity(node_id, incarnation) for node_id, incarnation in pairs)


def first_of(node_id: int, generation: str, *, returns: bool = False) -> dict[str, Any]:
    """For `Meta.open`: the metadata of a node whose database is there already; see `Meta.returns`."""
    return {"node_id": node_id, _key(DB, "generation"): generation, _key(DB, "returns"): returns or None}


def _key(group: int, name: str) -> str:
    return f"{GROUP_NAMES[group]}/{name}"


def _membership_value(membership: Membership) -> list[Any]:
    value = [membership.index, _pairs(membership.voters), _pairs(membership.learners)]
    if membership.removed:
        return [*value, _pairs(membership.outgoing), list(membership.removed)]
    return [*value, _pairs(membership.outgoing)] if membership.joint else value


def _pairs(identities: tuple[Identity, ...]) -> list[list[int]]:
    return [[identity.id, identity.incarnation] for identity in identities]
