"""What the runtime needs from the rooms beside it, as protocols. It sees these and nothing else of them.

No port may block the loop. Callbacks are called on the loop's thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hiqlite.errors import StorageError

from .model import Identity, Membership, Message, TermRun


class LogPurged(StorageError):
    """What was asked for lies below the beginning of a log: it was there, and whoever needs it needs an image."""


class LogStore(Protocol):
    """The durable log of one group. Writes happen in the order of the calls, on a thread of its own.

    `io_sequence` is given by the engine, ascending by one per call over the four writing calls.
    """

    def append(self, io_sequence: int, first: int, last: int, records: bytes) -> None: ...
    def truncate(self, io_sequence: int, last_kept: int) -> None: ...
    def hard_state(self, io_sequence: int, term: int, vote: Identity | None) -> None: ...
    def append_repair(self, io_sequence: int, first: int, last: int, records: bytes) -> None:
        """Entries that this log holds and cannot read, as a peer sent them; readable once `synced` covers it."""
        ...

    def purge(self, index: int, term: int) -> None:
        """Forget everything up to entry `index` of `term`: the caller has it durable elsewhere, and knows that this log
        holds the entry. Asks for no io sequence and is never waited for; a crash at any moment leaves a log that begins
        somewhere up to there."""
        ...

    @property
    def base_index(self) -> int:
        """The last purged entry, 0 for none: the log begins behind it."""
        ...

    def on_progress(self, callback: Callable[[], None]) -> None:
        """`callback` runs once per completed flush (or failure); read `synced`, `written`, `failure` then."""

    @property
    def written(self) -> int:
        """Highest io sequence handed to the operating system; may be read at any time, needs no callback."""
        ...

    @property
    def synced(self) -> int:
        """Highest io sequence that is durable by the meaning of `log_sync`; everything below is too."""
        ...

    @property
    def queued_bytes(self) -> int: ...

    @property
    def disk_full(self) -> bool:
        """No space ahead: new work is to be refused. Turns false again by itself; `on_progress` tells of both."""
        ...

    @property
    def waiting_since_ns(self) -> int:
        """Boot clock since when work waits without any progress of the disk; 0 while none waits."""
        ...

    @property
    def failure(self) -> Exception | None:
        """Set for ever once a write or fsync failed: the node must stop (fsync errors are never retried)."""
        ...

    async def read(self, first: int, size_max: int) -> tuple[int, bytes]:
        """Records from index `first` on: (last index read, bytes); at least one record.

        Raises:
            LogPurged: it is gone.
            LogCorruption: it is there and unreadable: damaged is never absent.
            StorageError: it is not in this log, or the disk refuses.
        """
        ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """Frames to and from peers. Never waits: what cannot be sent now is dropped, the engine repeats it."""

    def send(self, peer_id: int, group: int, message: Message, body: bytes | None = None) -> bool: ...
    def send_forward(self, peer_id: int, body: bytes) -> bool: ...
    def send_forward_reply(self, peer_id: int, body: bytes) -> bool: ...
    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any: ...


class Run(Protocol):
    """A run of committed entries as it comes back from the state machine."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    def answer(self, index: int) -> bytes: ...


class StateMachine(Protocol):
    """Applies runs of committed entries in order and gives back their answers."""

    @property
    def applied_index(self) -> int: ...
    @property
    def applied_term(self) -> int: ...
    def submit(self, first: int, last: int, last_term: int, records: Sequence[bytes], answers: bool) -> None: ...
    def on_progress(self, callback: Callable[[], None]) -> None: ...
    def take(self) -> Sequence[Run]:
        """Runs that were applied since the last call, in order."""
        ...

    def set_synced_index(self, index: int) -> None:
        """This node's own log is durable up to `index`: a checkpoint may go as far, and no further."""
        ...

    @property
    def queued_bytes(self) -> int: ...
    @property
    def failure(self) -> Exception | None:
        """Why applying stopped by itself (a full disk, no memory): nothing is lost, `resume` tries again."""
        ...

    def resume(self) -> None: ...
    async def close(self) -> None: ...


__all__ = ["LogPurged", "LogStore", "Membership", "Run", "StateMachine", "TermRun", "Transport"]
