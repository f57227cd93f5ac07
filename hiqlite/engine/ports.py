"""What the runtime needs from the rooms beside it, as protocols. It sees these and nothing else of them.

No port may block the loop. Callbacks are called on the loop's thread only.

What the runtime owes the engine (`Raft` in raft.py; `Ready` in model.py says in which order its fields are done):
- *Start*: `Restored`, where `membership` is the one stored for the log's base and `memberships` are those of the
  entries held. Where `applied_index` lies beyond the log, the log on disk is begun anew there before the first append.
- *Entries it makes*: an append of kind NOOP or MEMBERSHIP is one record, made at once from `Append`; until the Ready
  with it was taken `propose` refuses. An AppendRequest or RepairReply is decoded with the `memberships` of its entries,
  so that the engine knows them without reading bytes.
- *Configuration*: `Ready.membership` is in force from now on, committed or not: dial and accept its members, go on
  answering those who left. A change asked for by `propose_membership` is through when `membership` is not joint and
  its index is committed; 0 means try again, `change_refusal` says why. The engine promotes nobody by itself: whether a
  learner wishes to become a voter (`learner_only` of its own settings) its join request says.
- *Images, leader*: for each of `Ready.images` call `image_started(peer, index)` when one is ready, and send it only if
  that is True; it names (index, `term_at(index)`, `membership_at(index)`), which lie in the log since `index` is at or
  above `base_index`. Tell `image_progressed` as parts are confirmed, then `image_finished` or `image_failed`. What
  cannot be begun now needs no answer, the engine asks again after the upper election timeout.
- *Images, peer*: when an image is complete and its checksum holds, `begin_install(index)`; True stops `Ready.apply`
  until `installed` (the new database is durable) or `install_failed`. If the log does not hold the image's entry
  `Ready.reset` follows: store the membership and begin the log anew behind it, as one durable step of its io sequence.
- *Purging*: up to `purge_limit` and no further than a durable checkpoint; store `membership_at(index)` for the new base
  first, then `LogStore.purge`, then `purged(index)`.
- *Repairs*: `Ready.repairs` are written with `append_repair` from the bytes of the message just stepped. A RepairReply
  to send is read from the own log, and dropped if that fails.
- *Disk*: `disk_waits(LogStore.waiting_since_ns)` at every change and before `tick`; `disk_full` at every change.
- *Refusals*: `receive` raises ProtocolError for what no correct peer sends: end that link, the engine is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from hiqlite.errors import StorageError

from .model import Identity, Membership, Message, TermRun


class LogPurged(StorageError):
    """What was asked for lies below the beginning of a log: it was there, and whoever needs it needs an image."""


class LogStore(Protocol):
    """The durable log of one group. Writes happen in the order of the calls, on a thread of its own.

    `io_sequence` is given by the engine, ascending by one per call over the five writing calls.
    """

    def append(self, io_sequence: int, first: int, last: int, records: bytes) -> None: ...
    def truncate(self, io_sequence: int, last_kept: int) -> None: ...
    def hard_state(self, io_sequence: int, term: int, vote: Identity | None) -> None: ...
    def append_repair(self, io_sequence: int, first: int, last: int, records: bytes) -> None:
        """Entries that this log holds and cannot read, as a peer sent them; readable once `synced` covers it."""
        ...

    def reset(self, io_sequence: int, index: int, term: int) -> None:
        """Begin anew, empty, behind entry `index` of `term`, which is not below `base_index`: the caller has all of it
        durable elsewhere."""
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
    def held_bytes(self) -> int:
        """About what the entries held take where they lie."""
        ...

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
    def send_forward(self, peer_id: int, group: int, body: bytes) -> bool: ...
    def send_forward_reply(self, peer_id: int, group: int, body: bytes) -> bool: ...
    async def request(self, peer_id: int, name: str, payload: Any, timeout: float) -> Any: ...


class Run(Protocol):
    """A run of committed entries as it comes back from the state machine."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def changed_schema(self) -> bool:
        """What was known of texts and their cost counts no longer."""
        ...

    @property
    def slow_texts(self) -> Sequence[str]:
        """Some of those that took long."""
        ...

    def answer(self, index: int) -> bytes: ...


class Cost(IntEnum):
    """What a leader knows of a write before it is proposed: once committed it has to be applied to its end."""

    CHEAP = 0
    CHANGES_SCHEMA = 1  # it may be proposed, but nothing behind it can be judged before it is applied
    UNKNOWN = 2  # it has to be tried


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of a trial. `passed`: the first of the writes, as they were tried and may be proposed. The one behind them may
    not, for the reason of `refusal`; None: it was not tried yet."""

    passed: Sequence[bytes]
    changes_schema: bool = False  # the last of those that passed
    refusal: Exception | None = None


class Judge(Protocol):
    """The leader's look at the cost of writes, by the schema of what is applied."""

    def cost(self, record: bytes) -> Cost: ...
    async def try_out(self, records: Sequence[bytes], deadlines_ns: Sequence[int]) -> Verdict:
        """Run writes, each on what those before it leave, and undo them all."""
        ...

    def applied(self, run: Run) -> None:
        """Before anybody is told of this run."""
        ...

    def forget(self) -> None:
        """What was learnt counts no longer."""


class StateMachine(Protocol):
    """Applies runs of committed entries in order and gives back their answers."""

    @property
    def applied_index(self) -> int: ...
    @property
    def applied_term(self) -> int: ...
    @property
    def applied_group_time_ns(self) -> int:
        """The newest group time among the entries that are applied, kept with them; it never goes back."""
        ...

    def submit(self, first: int, last: int, last_term: int, records: Sequence[bytes], answers: bool) -> bool:
        """Whether it was applied, or failed, within this call: `take` tells. The callback comes if nobody takes it."""
        ...

    def on_progress(self, callback: Callable[[], None]) -> None: ...
    def take(self) -> Sequence[Run]:
        """Runs that were applied since the last call, in order."""
        ...

    @property
    def durable_index(self) -> int:
        """Everything up to here survives a loss of power without the log; at most `applied_index`."""
        ...

    def make_durable(self) -> None:
        """Move `durable_index` on to what is applied, soon; it cannot pass what `set_synced_index` allows."""
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

    @property
    def broken(self) -> bool:
        """No retry after `failure` may be believed: a sync failed, and what it did not write may be lost."""
        ...

    def resume(self) -> None: ...
    async def close(self) -> None: ...


__all__ = [
    "Cost", "Judge", "LogPurged", "LogStore", "Membership", "Run", "StateMachine", "TermRun", "Transport", "Verdict",
]  # fmt: skip
