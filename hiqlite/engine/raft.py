"""One Raft node of one group as a value that is stepped: inputs change it, `ready()` says what to do.

Must not know asyncio, threads, sockets, files, clocks or SQL: time, chance and completions are arguments. Entries are
ranges of indexes; their bytes pass beside it. Invariants: no input does anything but change state; whatever `ready()`
hands out may be done at once, in the order of its fields; after a broken promise (`Ready.fatal`) nothing is done any
more. A caller that steps several inputs before it calls `ready()` calls it until `has_ready()` is False, because one
Ready holds its writes in a fixed order.
"""

from __future__ import annotations

from hiqlite.config import RaftSettings
from hiqlite.errors import ProtocolError, UsageError

from . import election, follower, replication
from .membership import Configuration
from .model import (
    AppendReply,
    AppendRequest,
    Identity,
    Membership,
    Message,
    ProbeReply,
    ProbeRequest,
    Ready,
    Restored,
    Role,
    VoteReply,
    VoteRequest,
)
from .progress import Progress
from .role import resign
from .state import FAR_FUTURE_NS, State

NUMBER_MAX = 2**62  # a term or index above comes from a broken or hostile peer, never from counting


class Raft:
    """The engine's only face to the runtime.

    Args:
        identity: who this node is, in this group.
        settings: timeouts, windows and limits.
        restored: what survived; everything in it is durable.
        now_ns: monotonic time; every later `now_ns` is at or after it.
        seed: for randomised timeouts; equal inputs and seed give equal behaviour.
    """

    def __init__(
        self, identity: Identity, settings: RaftSettings, restored: Restored, now_ns: int, seed: int
    ) -> None:
        self.state: State = State(identity, settings, restored, now_ns, seed)
        election.start(self.state)
        self.state.dirty = True

    # ------------------------------------------------------------------ inputs

    def tick(self, now_ns: int) -> None:
        """Judge every deadline that has passed."""
        state = self.state
        if not self._enter(now_ns):
            return
        if state.leads:
            election.check_quorum(state)
        if state.leads:
            replication.tick(state)
        else:
            election.tick(state)

    def receive(self, message: Message, now_ns: int) -> None:
        """Step a message of a peer. Raises ProtocolError for one that no correct peer sends; nothing changed then."""
        state = self.state
        if not self._enter(now_ns):
            return
        if not 0 <= message.term < NUMBER_MAX or message.sender.id == state.own.id:
            raise ProtocolError(f"message of node {message.sender.id} in term {message.term} cannot be")
        if isinstance(message, AppendReply):
            replication.receive_append_reply(state, message)
        elif isinstance(message, AppendRequest):
            if message.last_index >= NUMBER_MAX:
                raise ProtocolError(f"append request of node {message.sender.id} ends at {message.last_index}")
            follower.receive_append(state, message)
        elif isinstance(message, ProbeReply):
            replication.receive_probe_reply(state, message)
        elif isinstance(message, ProbeRequest):
            follower.receive_probe(state, message)
        elif isinstance(message, VoteRequest):
            election.receive_request(state, message)
        elif isinstance(message, VoteReply):
            election.receive_reply(state, message)
        else:
            raise UsageError(f"not a message of consensus: {type(message).__name__}")

    def propose(self, count: int, size_bytes: int, now_ns: int) -> int:
        """Append `count` entries of `size_bytes` in all; their first index, or 0 when refused (nothing happened).

        Refused when this node does not lead, or when `memory_window_bytes` of proposals wait for commit already.
        More than one entry must fit into `frame_bytes_max` together.
        """
        if not self._enter(now_ns):
            return 0
        return replication.propose(self.state, count, size_bytes)

    def log_progress(self, written_io: int, synced_io: int, now_ns: int) -> None:
        """The log has written and synced everything up to these io sequences."""
        state = self.state
        if not self._enter(now_ns):
            return
        if synced_io > written_io or written_io > state.outbox.io_sequence:
            state.break_promise(f"the log says written {written_io}, synced {synced_io} of {state.outbox.io_sequence}")
            return
        state.outbox.progress(written_io, synced_io)
        if state.leads:
            replication.advance_commit(state)
        else:
            election.count_own_vote(state)

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to `index`."""
        if index > self.state.applied_index:
            self.state.applied_index = index

    def read(self) -> int:
        """Queue a linearizable read; its token, which comes back in `Ready.reads` or `Ready.failed_reads`.

        0 when this node does not lead.
        """
        state = self.state
        if not state.leads or state.fatal:
            return 0
        state.dirty = True
        return state.reads.queue()

    def peer_connected(self, peer_id: int, epoch: int, now_ns: int) -> None:
        """Log and control link to a peer are up, in a new session."""
        state = self.state
        peer = state.peers_by_id.get(peer_id)
        if not self._enter(now_ns) or peer is None:
            return
        peer.connect(epoch)
        election.peer_connected(state, peer_id)

    def peer_lost(self, peer_id: int, refused: bool, now_ns: int) -> None:
        """The links to a peer are gone; `refused`: a redial was answered by nobody listening (may come repeatedly)."""
        state = self.state
        peer = state.peers_by_id.get(peer_id)
        if not self._enter(now_ns) or peer is None:
            return
        peer.disconnect()
        election.peer_lost(state, peer_id, refused)

    def heard_beat(
        self, term: int, sender_id: int, incarnation: int, commit_bound: int, now_ns: int, heard_at_ns: int
    ) -> None:
        """A stamp of the heartbeat thread: node `sender_id` led in `term` at `heard_at_ns`."""
        if not self._enter(now_ns) or not 0 < term < NUMBER_MAX or not 0 <= commit_bound < NUMBER_MAX:
            return
        follower.heard_beat(self.state, term, sender_id, incarnation, commit_bound, heard_at_ns)

    def entries_fetched(self, peer_id: int, first: int, last: int, size_bytes: int, now_ns: int) -> None:
        """The one answer to a Fetch: bytes `[first, last]` are at hand until the next Ready; `last < first`: failed."""
        if self._enter(now_ns):
            replication.entries_fetched(self.state, peer_id, first, last, size_bytes)

    def window_starts_at(self, first_index: int) -> None:
        """Entries below `first_index` are no longer in the runtime's memory."""
        self.state.window.starts_at(first_index)

    def loop_stalled(self, now_ns: int) -> None:
        """The own loop stood still: judge nobody by that time (rule 17).

        A leader begins check-quorum's window anew and asks every peer at once; others give what waits in their
        sockets one heartbeat to be read before they campaign.
        """
        state = self.state
        if not self._enter(now_ns):
            return
        if state.leads:
            state.quorum_floor_ns = now_ns + state.election_max_ns
            replication.begin_round(state)
        else:
            state.election_deadline_ns = max(state.election_deadline_ns, now_ns + state.heartbeat_ns)

    def step_down(self, now_ns: int, reason: str) -> None:
        """Stop leading but keep the term; nothing if it does not lead. `reason` is for the log of whoever calls."""
        assert reason, "whoever makes a leader step down says why"
        if self._enter(now_ns):
            resign(self.state)

    # ------------------------------------------------------------------ what to do

    def has_ready(self) -> bool:
        """Whether `ready()` may have something to say."""
        return self.state.dirty or self.state.outbox.waits()

    def ready(self) -> Ready:
        """Everything that may be done now; see Ready for the order."""
        state = self.state
        outbox = state.outbox
        if state.fatal:
            state.dirty = False
            outbox.drop_all()
            return Ready(fatal=state.fatal, failed_reads=state.reads.take_failed(), lost_from=self._take_lost())
        hard_state, truncate, appends = outbox.take_writes()
        state.dirty = bool(outbox.writes)
        sends = []
        if not state.dirty:
            outbox.release(state.term)
            if state.leads:
                state.opening_taken = True
                replication.prepare(state)
            sends = outbox.take_sends()
        role_changed = state.role_changed
        state.role_changed = False
        return Ready(
            hard_state,
            truncate,
            appends,
            sends,
            outbox.take_fetches(),
            self._take_apply(),
            state.reads.take_confirmed(),
            state.reads.take_failed(),
            self._take_lost(),
            role_changed,
            "",
        )

    def next_deadline(self) -> int:
        """When `tick` has something to judge, in nanoseconds of the caller's clock."""
        state = self.state
        if state.fatal:
            return FAR_FUTURE_NS
        if not state.leads:
            return election.next_deadline_ns(state)
        return min(replication.next_deadline_ns(state), election.quorum_deadline_ns(state))

    def beat_word(self) -> tuple[int, bool]:
        """(term, whether this node leads it): what the heartbeat thread may say. Store it before sending anything."""
        return (self.state.term, self.state.leads and not self.state.fatal)

    # ------------------------------------------------------------------ views

    def progress(self, peer_id: int) -> Progress | None:
        """What is known of a peer, for metrics; never to be changed."""
        return self.state.peers_by_id.get(peer_id)

    @property
    def identity(self) -> Identity:
        return self.state.own

    @property
    def role(self) -> Role:
        return self.state.role

    @property
    def leads(self) -> bool:
        return self.state.leads

    @property
    def term(self) -> int:
        return self.state.term

    @property
    def vote(self) -> Identity | None:
        return self.state.vote

    @property
    def leader_id(self) -> int:
        """Who leads the term as far as this node knows, 0: nobody."""
        return self.state.leader_id

    @property
    def last_index(self) -> int:
        return self.state.log.last_index

    @property
    def last_term(self) -> int:
        return self.state.log.last_term

    @property
    def commit_index(self) -> int:
        return self.state.commit_index

    @property
    def applied_index(self) -> int:
        return self.state.applied_index

    @property
    def written_index(self) -> int:
        return self.state.outbox.written_index

    @property
    def synced_index(self) -> int:
        return self.state.outbox.synced_index

    @property
    def uncommitted_bytes(self) -> int:
        """Size of the own proposals that wait for commit."""
        return self.state.uncommitted_bytes

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`, which lies in this log."""
        return self.state.log.term_at(index)

    @property
    def opened(self) -> bool:
        """Whether this node leads and its term's first entry is committed: reads are answered from now on."""
        return self.state.leads and self.state.commit_index >= self.state.opened_index

    @property
    def membership(self) -> Membership:
        config: Configuration = self.state.config
        return config.membership

    # ------------------------------------------------------------------ parts

    def _enter(self, now_ns: int) -> bool:
        """Take the time; whether inputs still count."""
        state = self.state
        if state.fatal:
            return False
        if now_ns > state.now_ns:
            state.now_ns = now_ns
        state.dirty = True
        return True

    def _take_apply(self) -> tuple[int, int] | None:
        """The committed run that the own log has written and the state machine was not given yet."""
        state = self.state
        limit = min(state.commit_index, state.outbox.written_index)
        if state.faulty:
            limit = min(limit, state.faulty[0][0] - 1)
        if limit <= state.handed_index:
            return None
        first = state.handed_index + 1
        state.handed_index = limit
        return (first, limit)

    def _take_lost(self) -> int:
        lost_from = self.state.lost_from
        self.state.lost_from = 0
        return lost_from
