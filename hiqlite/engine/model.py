"""The words of consensus as values: identities, messages, what the engine is restored from.

Knows nothing but integers. Every index says which end it includes; all ranges of entries here are
closed, `[first, last]`, and empty when `last < first`.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """The voters and learners in force since `index` (effective when appended, thesis 4.1).

    With `outgoing` voters it is a joint configuration (thesis 4.3): whatever needs a majority needs one of `voters`
    and one of `outgoing`. A voter on its way to being a learner stands in `outgoing` and in `learners`. One id may
    stand here in two incarnations: the new one is reached, the old one is gone and only counted.

    `removed` are the ids of nodes that were members once and left by a change. They count nowhere: it is known of them
    so that they come back by command only.
    """

    index: int
    voters: tuple[Identity, ...]
    learners: tuple[Identity, ...] = ()
    outgoing: tuple[Identity, ...] = ()
    removed: tuple[int, ...] = field(default=(), compare=False)

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)


class ChangeKind(IntEnum):
    """What a change of members asks for."""

    ADD_LEARNER = 0  # members: (joining,)
    PROMOTE = 1  # members: (learner,)
    DEMOTE = 2  # members: (voter,)
    REMOVE = 3  # members: (voter or learner,)
    REPLACE = 4  # members: (leaving voter, learner that takes its place)
    SET_VOTERS = 5  # members: all voters from now on; who stops being one leaves


@dataclass(frozen=True, slots=True)
class Change:
    """A change of members as it is asked for; see `ChangeKind` for what `members` means."""

    kind: ChangeKind
    members: tuple[Identity, ...]


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
    # Closed ranges of which even the term is lost. `runs` gives for them the highest it can have been: the term of the
    # next record that holds, or else the hard state's.
    unknown: tuple[tuple[int, int], ...] = ()
    memberships: tuple[Membership, ...] = ()  # of the entries held, ascending; `membership` is the one before them


# --------------------------------------------------------------------------- messages
# `sender` is the identity of who sent it. Every message names its term.


@hot_value(frozen=True, slots=True)
class AppendRequest:
    """Entries `[previous_index + 1, last_index]`, or none when `last_index == previous_index`.

    `runs` are the terms of those entries, `memberships` what those of them say that are membership entries. The bytes
    travel beside it; the engine never sees them.
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
    memberships: tuple[Membership, ...] = ()


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
    transfer: bool = False  # the leader itself asked for it: who hears that leader answers all the same


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


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader of `term` hands over: campaign at once, without a pre-vote (thesis 3.10)."""

    term: int
    sender: Identity


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """Asks for entries `[first, last]`, damaged at the sender; `entry_term` is theirs, 0 when it was lost too."""

    term: int
    sender: Identity
    first: int
    last: int
    entry_term: int


@dataclass(frozen=True, slots=True)
class RepairReply:
    """Exactly the entries asked for, as `runs`; the runtime reads their bytes from its log and sends them beside it.

    It sends nothing if they were purged meanwhile, or are of other terms by now.

    `committed`: they are known to be committed here, so they are the entries at those indexes, whatever was lost.
    `previous_term`: of the entry before them, 0 when it was lost here.
    """

    term: int
    sender: Identity
    first: int
    last: int
    previous_term: int
    runs: tuple[TermRun, ...]
    committed: bool
    memberships: tuple[Membership, ...] = ()


Message = (
    AppendRequest
    | AppendReply
    | VoteRequest
    | VoteReply
    | ProbeRequest
    | ProbeReply
    | TimeoutNow
    | RepairRequest
    | RepairReply
)


# --------------------------------------------------------------------------- what the engine asks for


class AppendKind(IntEnum):
    PROPOSED = 0  # the bytes were handed to the runtime with the proposal
    NOOP = 1  # the runtime makes the one record that opens a term
    RECEIVED = 2  # the bytes came with the AppendRequest that was just stepped
    MEMBERSHIP = 3  # the runtime makes the one record that says `Append.membership`


@dataclass(frozen=True, slots=True)
class HardStateWrite:
    io_sequence: int
    term: int
    vote: Identity | None


@dataclass(frozen=True, slots=True)
class Truncate:
    io_sequence: int
    last_kept: int


@dataclass(frozen=True, slots=True)
class LogReset:
    """Begin an empty log behind `(base_index, base_term)`: an image was installed that the old log does not hold."""

    io_sequence: int
    base_index: int
    base_term: int


@dataclass(frozen=True, slots=True)
class Repair:
    """Write entries `[first, last]`, which came with the message just stepped, as repairs of what stands in the log."""

    io_sequence: int
    first: int
    last: int


@hot_value(frozen=True, slots=True)
class Append:
    """Write entries `[first, last]`, all of which the runtime holds in its window by now."""

    io_sequence: int
    first: int
    last: int
    kind: AppendKind
    term: int  # of the last one
    membership: Membership | None = None  # of an append of that kind


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


@dataclass(frozen=True, slots=True)
class SendImage:
    """`peer_id` needs entries that are gone here: send it an image of the database.

    Answered by `image_started`, then `image_finished` or `image_failed`. `resume_index`: that of the image which the
    peer was given last, of which it may hold a part (0: none); the log behind it is still there.
    """

    peer_id: int
    resume_index: int


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
    reset: LogReset | None = None  # between `truncate` and `appends`; never together with `truncate`
    repairs: Sequence[Repair] = ()  # behind `appends`
    images: Sequence[SendImage] = ()
    membership: Membership | None = None  # the configuration in force changed to this one


NOTHING = Ready()  # one object for all turns that ask for nothing, which are most of them; nobody changes it
