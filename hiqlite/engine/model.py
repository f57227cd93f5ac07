"""The words of consensus as values: identities, messages, what the engine is restored from.

Knows nothing but integers. Every index says which end it includes; all ranges of entries here are
closed, `[first, last]`, and empty when `last < first`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as hot_value
else:

    def hot_value(*, frozen: bool, slots: bool) -> Any:
        """`dataclass` for values made thousands of times a second.

        Frozen for mypy, which sees every write; at run time the guard of a frozen dataclass costs 200 ns per field
        (1.9 us against 0.35 for an AppendRequest), so here it is only hashable.
        """
        return dataclass(slots=slots, unsafe_hash=frozen)


class Role(IntEnum):
    """What a node is in one term of one group (Raft thesis 3.3; pre-candidate: 9.6; learner: 4.2.1)."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3
    LEARNER = 4


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """Who a vote, an acknowledgement or a place in a configuration belongs to.

    A node that lost its log or its metadata keeps its id and gets a new incarnation: its old promises are gone.
    """

    id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Membership:
    """The voters and learners in force since `index` (effective when appended, thesis 4.1)."""

    index: int
    voters: tuple[Identity, ...]
    learners: tuple[Identity, ...] = ()


@hot_value(frozen=True, slots=True)
class TermRun:
    """A closed range of log indexes `[first, last]` that all carry `term`."""

    term: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What survived of a node: the engine starts from this and from nothing else.

    `runs` is the trail of terms of the whole log, ascending and without gaps, starting at `base_index + 1`.
    `applied_index` may lie beyond the last log index (semantics.md section 3): then the log is empty at
    (applied_index, applied_term), and nothing is acknowledged until a leader's log confirms that entry. The same
    holds for an empty log with a base: it may have been made so at an earlier start.
    """

    term: int
    vote: Identity | None
    membership: Membership
    runs: tuple[TermRun, ...] = ()
    base_index: int = 0
    base_term: int = 0
    applied_index: int = 0
    applied_term: int = 0
    io_sequence: int = 0  # the highest one found in the log; the engine goes on from here
    faulty: tuple[tuple[int, int], ...] = ()  # closed ranges whose payload was damaged though it had been synced


# --------------------------------------------------------------------------- messages
# `sender` is the identity of who sent it. Every message names its term.


@hot_value(frozen=True, slots=True)
class AppendRequest:
    """Entries `[previous_index + 1, last_index]`, or none when `last_index == previous_index`.

    `runs` are the terms of those entries. The bytes travel beside it; the engine never sees them.
    """

    term: int
    sender: Identity
    previous_index: int
    previous_term: int
    commit_index: int
    last_index: int
    runs: tuple[TermRun, ...]
    epoch: int  # session epoch of the link; answers of an older one are dropped
    sequence: int  # per peer and epoch, ascending; the answer names it


@hot_value(frozen=True, slots=True)
class AppendReply:
    """`match_index`: highest index verified by that request and durable here. On refusal: where to probe next."""

    term: int
    sender: Identity
    accepted: bool
    match_index: int
    hint_index: int
    hint_term: int
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class VoteRequest:
    term: int  # for a pre-vote: the term it would campaign in (own term + 1)
    sender: Identity
    pre: bool
    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class VoteReply:
    term: int
    sender: Identity
    pre: bool
    granted: bool


@hot_value(frozen=True, slots=True)
class ProbeRequest:
    """Quorum round on the control link: confirms reads and leadership. Never sent by the heartbeat thread."""

    term: int
    sender: Identity
    token: int  # monotone in this leader's life


@hot_value(frozen=True, slots=True)
class ProbeReply:
    term: int
    sender: Identity
    token: int


Message = AppendRequest | AppendReply | VoteRequest | VoteReply | ProbeRequest | ProbeReply


# --------------------------------------------------------------------------- what the engine asks for


class AppendKind(IntEnum):
    PROPOSED = 0  # the bytes were handed to the runtime with the proposal
    NOOP = 1  # the runtime makes the one record that opens a term
    RECEIVED = 2  # the bytes came with the AppendRequest that was just stepped


@dataclass(frozen=True, slots=True)
class HardStateWrite:
    io_sequence: int
    term: int
    vote: Identity | None


@dataclass(frozen=True, slots=True)
class Truncate:
    io_sequence: int
    last_kept: int


@hot_value(frozen=True, slots=True)
class Append:
    """Write entries `[first, last]`, all of which the runtime holds in its window by now."""

    io_sequence: int
    first: int
    last: int
    kind: AppendKind
    term: int  # of the last one


@hot_value(frozen=True, slots=True)
class Send:
    peer_id: int
    message: Message


@hot_value(frozen=True, slots=True)
class Fetch:
    """Entries from `first` on, up to `size_max` bytes, are needed for `peer_id` and are no longer in the window."""

    peer_id: int
    first: int
    size_max: int


@hot_value(frozen=True, slots=True)
class ReadConfirmed:
    token: int
    read_index: int  # the read may be served once applied_index >= read_index


@dataclass(slots=True)
class Ready:
    """Everything the runtime has to do now, in this order of fields. The engine already holds back what must wait.

    A message stands in `sends` only when its release condition holds (its io sequence is durable), so the runtime
    sends at once, and may do so before it hands `appends` to the log: no send waits for a write of the same Ready.
    `apply` is `[first, last]`, committed and written to this node's own log.
    """

    hard_state: HardStateWrite | None = None
    truncate: Truncate | None = None
    appends: list[Append] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    apply: tuple[int, int] | None = None
    reads: list[ReadConfirmed] = field(default_factory=list)
    failed_reads: list[int] = field(default_factory=list)  # tokens; leadership was lost
    lost_from: int = 0  # proposals of this node at or above this index may never commit (0: none); outcome unknown
    role_changed: bool = False
    fatal: str = ""  # a broken promise of the world below (never reached in correct operation)
