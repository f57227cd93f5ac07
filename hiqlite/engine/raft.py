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

from . import election, follower, reconfiguration, repair, replication, shape, snapshot, transfer
from .model import (
    NOTHING,
    AppendReply,
    AppendRequest,
    Change,
    Identity,
    Membership,
    Message,
    ProbeReply,
    ProbeRequest,
    Ready,
    RepairReply,
    RepairRequest,
    Restored,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from .role import resign
from .state import FAR_FUTURE_NS, State
from .views import Views


class Raft(Views):
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
        super().__init__(State(identity, settings, restored, now_ns, seed))
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
            election.check_disk(state)
        if state.leads:
            replication.tick(state)
            transfer.tick(state)
        else:
            election.tick(state)
            repair.tick(state)

    def receive(self, message: Message, now_ns: int) -> None:
        """Step a message of a peer. Raises ProtocolError for one that no correct peer sends; nothing changed then."""
        state = self.state
        if not self._enter(now_ns):
            return
        shape.check(message)
        if message.sender.id == state.own.id:
            raise ProtocolError(f"node {message.sender.id} speaks to itself, or two nodes have its id")
        if isinstance(message, AppendReply):
            replication.receive_append_reply(state, message)
        elif isinstance(message, AppendRequest):
            follower.receive_append(state, message)
        elif isinstance(message, ProbeReply):
            replication.receive_probe_reply(state, message)
        elif isinstance(message, ProbeRequest):
            follower.receive_probe(state, message)
        elif isinstance(message, VoteRequest):
            election.receive_request(state, message)
        elif isinstance(message, VoteReply):
            election.receive_reply(state, message)
        elif isinstance(message, TimeoutNow):
            election.receive_timeout_now(state, message)
        elif isinstance(message, RepairRequest):
            repair.receive_request(state, message)
        elif isinstance(message, RepairReply):
            repair.receive_reply(state, message)
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

    def propose_membership(self, change: Change, now_ns: int) -> int:
        """Append the configuration that a change asks for; its index, or 0: not now, as `change_refusal` says.

        Joint if voters change; the engine leaves that by itself. The change is through when `membership` is no longer
        joint and its index is committed. Raises UsageError for a change that makes no sense.
        """
        if not self._enter(now_ns):
            return 0
        return reconfiguration.propose(self.state, change)

    def transfer_leadership(self, peer_id: int, now_ns: int) -> bool:
        """Hand leadership to a voter, 0: to the one with the longest log. False when that cannot be begun.

        It ends when another node leads, or after the upper election timeout: then this one takes proposals again.
        """
        return self._enter(now_ns) and transfer.begin(self.state, peer_id)

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

    def read(self, now_ns: int) -> int:
        """Queue a linearizable read; its token, which comes back in `Ready.reads` or `Ready.failed_reads`.

        0 when this node does not lead.
        """
        state = self.state
        if not state.leads or not self._enter(now_ns):
            return 0
        return state.reads.queue()

    def disk_waits(self, since_ns: int) -> None:
        """Since when work waits for the log's disk without any progress, 0: none waits. Judged by `tick` (rule 11)."""
        self.state.disk_waits_since_ns = since_ns

    def disk_full(self, full: bool, now_ns: int) -> None:
        """Whether the log has no room ahead: no proposals are taken, and leadership is handed over (rule 11)."""
        state = self.state
        if full != state.disk_full and self._enter(now_ns):
            state.disk_full = full
            if full:
                transfer.begin(state, 0)

    def peer_connected(self, peer_id: int, epoch: int, now_ns: int) -> None:
        """Log and control link to a node are up, in a new session; it need not be a member yet."""
        state = self.state
        state.links[peer_id] = epoch
        peer = state.peers_by_id.get(peer_id)
        if not self._enter(now_ns) or peer is None:
            return
        peer.connect(epoch)
        election.peer_connected(state, peer_id)

    def peer_lost(self, peer_id: int, refused: bool, now_ns: int) -> None:
        """The links to a peer are gone; `refused`: a redial was answered by nobody listening (may come repeatedly)."""
        state = self.state
        state.links.pop(peer_id, None)
        peer = state.peers_by_id.get(peer_id)
        if not self._enter(now_ns) or peer is None:
            return
        peer.disconnect()
        election.peer_lost(state, peer_id, refused)

    def heard_beat(
        self, term: int, sender_id: int, incarnation: int, commit_bound: int, now_ns: int, heard_at_ns: int
    ) -> None:
        """A stamp of the heartbeat thread: node `sender_id` led in `term` at `heard_at_ns`."""
        if not self._enter(now_ns) or not shape.known(max(term, sender_id, commit_bound)) or term <= 0:
            return
        if not 0 <= incarnation < shape.INCARNATION_MAX:
            return
        follower.heard_beat(self.state, term, sender_id, incarnation, commit_bound, heard_at_ns)

    def entries_fetched(self, peer_id: int, first: int, last: int, size_bytes: int, now_ns: int) -> None:
        """The one answer to a Fetch: bytes `[first, last]` are at hand until the next Ready; `last < first`: failed."""
        if self._enter(now_ns):
            replication.entries_fetched(self.state, peer_id, first, last, size_bytes)

    def purged(self, index: int) -> None:
        """Entries up to `index`, not above `purge_limit` unless a pin had to give way, are gone from the log."""
        self.state.dirty = True
        snapshot.purged(self.state, index)

    def image_started(self, peer_id: int, index: int, now_ns: int) -> bool:
        """An image at `index` is ready for a peer. False: do not send it. The log behind it is pinned from now on."""
        return self._enter(now_ns) and snapshot.started(self.state, peer_id, index)

    def image_progressed(self, peer_id: int, oldest_sent_ns: int) -> None:
        """When the oldest part that the peer did not confirm left, 0: all that left was confirmed (rule 17)."""
        snapshot.progressed(self.state, peer_id, oldest_sent_ns)

    def image_finished(self, peer_id: int, now_ns: int) -> None:
        """The peer says that the image is its database now, durably."""
        if self._enter(now_ns):
            snapshot.finished(self.state, peer_id)

    def image_failed(self, peer_id: int, resumable: bool, now_ns: int) -> None:
        """Sending an image ended early. `resumable`: the image is kept, and the next try goes on where it ended."""
        if self._enter(now_ns):
            snapshot.failed(self.state, peer_id, resumable)

    def begin_install(self, index: int, now_ns: int) -> bool:
        """Whether an image at `index` may become this node's database. If so, nothing is given to apply until
        `installed` or `install_failed`; what was given before is to be applied, or dropped with the old database."""
        return self._enter(now_ns) and snapshot.begin_install(self.state, index)

    def installed(self, index: int, term: int, membership: Membership, now_ns: int) -> None:
        """The image of (index, term), in which `membership` was in force, is the database, durably."""
        if self._enter(now_ns):
            snapshot.installed(self.state, index, term, membership)

    def install_failed(self, now_ns: int) -> None:
        """The database is as it was before `begin_install`."""
        if self._enter(now_ns):
            snapshot.end_install(self.state)

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
        """Everything that may be done now, or `NOTHING`; see Ready for the order."""
        state = self.state
        outbox = state.outbox
        if state.fatal:
            state.dirty = False
            outbox.drop_all()
            return Ready(fatal=state.fatal, failed_reads=state.reads.take_failed(), lost_from=self._take_lost())
        if state.leads and (state.config.is_joint or not state.config.is_voter):
            reconfiguration.advance(state)
        hard_state, truncate, reset, appends, repairs = outbox.take_writes()
        state.dirty = bool(outbox.writes)
        sends = []
        if not state.dirty:
            outbox.release(state.term)
            if state.leads:
                state.made_taken = True
                if state.transfer_id:
                    transfer.advance(state)
                replication.prepare(state)
            sends = outbox.take_sends()
        role_changed = state.role_changed
        state.role_changed = False
        apply = None if state.dirty else self._take_apply()  # what waits may be the repair of one of them
        fetches = outbox.take_fetches()
        confirmed = state.reads.take_confirmed()
        failed = state.reads.take_failed()
        lost_from = self._take_lost()
        said = hard_state or truncate or reset or appends or repairs or sends or fetches or apply
        if not (said or confirmed or failed or lost_from or role_changed or state.membership_changed or outbox.images):
            return NOTHING
        ready = Ready(
            hard_state, truncate, appends, sends, fetches, apply, confirmed, failed, lost_from, role_changed
        )  # fmt: skip
        # What is rare is set only when there is some: a Ready is made thousands of times a second.
        if reset is not None:
            ready.reset = reset
        if repairs:
            ready.repairs = repairs
        if outbox.images:
            ready.images = outbox.take_images()
        if state.membership_changed:
            state.membership_changed = False
            ready.membership = self.membership
        return ready

    def next_deadline(self) -> int:
        """When `tick` has something to judge, in nanoseconds of the caller's clock."""
        state = self.state
        if state.fatal:
            return FAR_FUTURE_NS
        if not state.leads:
            return min(election.next_deadline_ns(state), repair.deadline_ns(state))
        deadline = min(replication.next_deadline_ns(state), election.quorum_deadline_ns(state))
        return min(deadline, transfer.deadline_ns(state), election.disk_deadline_ns(state))

    def beat_word(self) -> tuple[int, bool]:
        """(term, whether this node leads it): what the heartbeat thread may say. Store it before sending anything."""
        return (self.state.term, self.state.leads and not self.state.fatal)

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
        if state.installing:
            return None
        limit = min(state.commit_index, state.outbox.written_index)
        for low, high in state.faulty:
            if high > state.handed_index:
                limit = min(limit, low - 1)
        if limit <= state.handed_index:
            return None
        first = state.handed_index + 1
        state.handed_index = limit
        return (first, limit)

    def _take_lost(self) -> int:
        lost_from = self.state.lost_from
        self.state.lost_from = 0
        return lost_from
