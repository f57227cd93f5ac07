"""What keeps a node from taking writes for a while: a full disk, a state machine that stopped by itself.

Neither ends the node: what was taken waits, new writes are refused with the reason, somebody else shall lead, and all
goes on once the cause is gone. Must not know disks or SQL. Invariant: writes are refused exactly while a trouble lasts.
"""

from __future__ import annotations

from collections.abc import Callable

from hiqlite import observe
from hiqlite.engine.ports import LogStore
from hiqlite.errors import DiskFull, SnapshotCorruption, StorageError

from .proposals import Proposals

log = observe.logger("runtime")


class Troubles:
    """The troubles of one group, told to its proposals. `on_damage` is told of a damaged state: no retry helps."""

    __slots__ = ("_log", "_machine", "_proposals", "_space", "_states", "on_damage")

    def __init__(self, proposals: Proposals) -> None:
        self._proposals = proposals
        self.on_damage: Callable[[SnapshotCorruption], None] = lambda _error: None
        self._log: StorageError | None = None
        self._space: StorageError | None = None
        self._machine: StorageError | None = None
        self._states: StorageError | None = None

    def of_log(self, log_store: LogStore) -> StorageError | None:
        """Looks whether the log has space ahead; what ends this node, if the log failed."""
        if log_store.failure is not None:
            return StorageError(f"the log failed: {log_store.failure}", hint="check the disk, then restart")
        full = log_store.disk_full
        if full is not (self._log is not None):
            error = DiskFull("this node's disk is full", hint="free some space; it goes on by itself")
            self._log = error if full else None
            self._changed(self._log, "the log has room again")
        return None

    def space_low(self, low: bool) -> None:
        """Whether the disk has room only for what was taken already."""
        if low is not (self._space is not None):
            hint = "free some space; it goes on by itself"
            error = DiskFull("this node's disk is nearly full: what is left is for writes under way", hint=hint)
            self._space = error if low else None
            self._changed(self._space, "the disk has room again")

    def states_differ(self, error: StorageError | None) -> None:
        """Why no node's state can be taken for right; None: some can."""
        if (error is None) is not (self._states is None):
            self._states = error
            self._changed(error, "a majority holds the same state again")

    @property
    def has_own(self) -> bool:
        """Whether there is a trouble that others need not have: one of them shall lead."""
        return (self._machine or self._log or self._space) is not None

    def machine_stopped(self, error: StorageError | None) -> None:
        """Why the state machine stopped by itself; None when it goes on."""
        if isinstance(error, SnapshotCorruption):
            self.on_damage(error)
        if str(error) != str(self._machine):
            self._machine = error
            self._changed(error, "entries are applied again")

    def _changed(self, error: StorageError | None, end: str) -> None:
        if error is None:
            log.warning("%s", end)
        else:
            log.error("no writes are taken for now: %s", error)
        self._proposals.refusal = self._states or self._machine or self._log or self._space
