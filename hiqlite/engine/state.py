"""Everything one node of one group knows: the state on which election, replication, follower and raft act.

Must not decide anything: it holds values, keeps those that depend on each other together, and draws chance. Invariants:
`base_index <= applied_index`, `handed_index <= commit_index <= last_index`; `leads` says what `role` says;
`verified_index` never exceeds what an append of the current term verified in this process life.
"""

from __future__ import annotations

from collections import deque

from hiqlite.config import RaftSettings
from hiqlite.errors import StorageError

from .change import members_of
from .log import Log
from .membership import Configuration
from .model import Identity, Membership, Restored, Role
from .progress import Progress
from .reads import Reads
from .ready import Outbox
from .window import Window

MILLISECOND_NS = 1_000_000
FAR_FUTURE_NS = 2**62
NOOP_BYTES = 64  # docs/formats.md section 2: a record without a payload is its header


class State:
    """Plain attributes; see state.pxd for what each means."""

    def __init__(
        self, identity: Identity, settings: RaftSettings, restored: Restored, now_ns: int, seed: int
    ) -> None:
        self.own: Identity = identity
        self.random_state: int = (seed * 2654435761 + identity.id * 40503 + identity.incarnation) % 2**61 + 1
        self.heartbeat_ns: int = settings.heartbeat_interval_ms * MILLISECOND_NS
        self.election_min_ns: int = settings.election_timeout_min_ms * MILLISECOND_NS
        self.election_max_ns: int = settings.election_timeout_max_ms * MILLISECOND_NS
        self.grace_ns: int = settings.link_loss_grace_ms * MILLISECOND_NS
        self.commit_delay_ns: int = settings.commit_delay_ms * MILLISECOND_NS
        self.resend_ns: int = max(self.election_min_ns // 2, self.heartbeat_ns)
        self.frame_bytes_max: int = settings.frame_bytes_max
        self.window_frames: int = settings.window_frames
        self.window_bytes: int = settings.window_bytes
        self.memory_window_bytes: int = settings.memory_window_bytes
        self.now_ns: int = now_ns

        self.term: int = restored.term
        self.vote: Identity | None = restored.vote
        self._restore_log(restored)
        self.outbox: Outbox = Outbox(identity, restored.io_sequence, self.log.last_index)
        self.reads: Reads = Reads()
        self.window: Window = Window(settings.memory_window_bytes)

        self.leads: bool = False
        self.leader_id: int = 0
        self.role: Role = Role.FOLLOWER
        self.links: dict[int, int] = {}
        self.peers: list[Progress] = []
        self.peers_by_id: dict[int, Progress] = {}
        self.history: list[Membership] = [restored.membership]
        for membership in restored.memberships:
            if restored.membership.index < membership.index <= self.log.last_index:
                self.history.append(membership)
        self._resolve()
        self.membership_changed: bool = False

        self.heard_ns: int = 0
        self.timeout_ns: int = self.draw_timeout_ns()
        self.election_deadline_ns: int = FAR_FUTURE_NS
        self.refused_since_ns: int = 0
        self.quorum_linked: bool = False

        self.opened_index: int = 0
        self.made_taken: bool = False
        self.transfer_id: int = 0
        self.transfer_deadline_ns: int = 0
        self.transfer_sent: bool = False
        self.handed_over: bool = False
        self.quorum_floor_ns: int = 0
        self.round_due_ns: int = 0
        self.commit_due_ns: int = 0
        self.uncommitted: deque[tuple[int, int]] = deque()
        self.uncommitted_bytes: int = 0

        self.disk_full: bool = False
        self.disk_waits_since_ns: int = 0
        self.installing: bool = False
        self.repair_due_ns: int = now_ns

        self.role_changed: bool = False
        self.lost_from: int = 0
        self.fatal: str = ""
        self.dirty: bool = False

    def _restore_log(self, restored: Restored) -> None:
        last = restored.runs[len(restored.runs) - 1].last if restored.runs else restored.base_index
        # An empty log behind a database may be one that was made so at an earlier start and was never confirmed.
        beyond = restored.applied_index > last or (not restored.runs and restored.base_index > 0)
        if not beyond and restored.applied_index > restored.base_index:
            # An image was installed, and the old log's end was not yet durable: what it holds there is another history.
            index = restored.applied_index
            held = [run.term for run in restored.runs if run.first <= index <= run.last]
            lost = [low for low, high in restored.unknown if low <= index <= high]
            beyond = not lost and held != [restored.applied_term]
        if restored.applied_index < restored.base_index:
            raise StorageError(
                f"the log begins after index {restored.base_index}, but the database ends at {restored.applied_index}",
                hint="the database folder was lost or replaced; this node has to be joined anew",
            )
        if beyond:
            self.log: Log = Log(restored.applied_index, restored.applied_term, ())
        else:
            self.log = Log(restored.base_index, restored.base_term, restored.runs)
        self.unconfirmed: bool = beyond
        damaged = [] if beyond else [*restored.faulty, *restored.unknown]
        self.faulty: list[tuple[int, int]] = sorted(damaged)
        self.unknown: list[tuple[int, int]] = []
        for low, high in [] if beyond else sorted(restored.unknown):
            # Between two entries of one term is no other. Behind the last one that can be read anything may stand: what
            # `runs` says there is a bound, and entries before it may be repairs of a later term.
            if high == self.log.last_index or self.log.term_at(low - 1) != self.log.term_at(high):
                self.unknown.append((low, high))
        self.commit_index: int = restored.applied_index
        self.handed_index: int = restored.applied_index
        self.applied_index: int = restored.applied_index
        self.verified_index: int = 0

    # ------------------------------------------------------------------ members

    def take_membership(self, membership: Membership) -> None:
        """A membership entry was appended: it is in force from now on (thesis 4.1). Or a damaged one came back."""
        place = len(self.history)
        while place > 0 and self.history[place - 1].index >= membership.index:
            place -= 1
        if place < len(self.history) and self.history[place].index == membership.index:
            return
        self.history.insert(place, membership)
        self._resolve()

    def cut_memberships(self, last_kept: int) -> None:
        """The log was cut: what stood above `last_kept` is in force no more."""
        known = len(self.history)
        while len(self.history) > 1 and self.history[len(self.history) - 1].index > last_kept:
            self.history.pop()
        if len(self.history) != known:
            self._resolve()

    def drop_memberships(self, base_index: int) -> None:
        """Entries up to `base_index` are gone: of their configurations the last one is kept."""
        while len(self.history) > 1 and self.history[1].index <= base_index:
            del self.history[0]

    def begin_memberships(self, membership: Membership) -> None:
        """An image brought the configuration; nothing is known of any before it, nor behind it. Only what the metadata
        named may be newer: it is committed, though a loss of power took its entry, and nobody goes back behind it."""
        oldest = self.history[0]
        self.history = [oldest if oldest.index > membership.index else membership]
        self._resolve()

    def memberships_of(self, first: int, last: int) -> tuple[Membership, ...]:
        """The configurations among the entries `[first, last]`."""
        return tuple([membership for membership in self.history if first <= membership.index <= last])

    def _resolve(self) -> None:
        """Slots and peers of the newest configuration; what is known of a peer that stays, stays."""
        count = len(self.history)
        newest = self.history[count - 1]
        departing: tuple[Identity, ...] = ()
        if count > 1:
            ids = {identity.id for identity in members_of(newest)}
            departing = tuple([identity for identity in members_of(self.history[count - 2]) if identity.id not in ids])
        self.config: Configuration = Configuration(newest, self.own, departing)
        before = {peer.identity: peer for peer in self.peers}
        self.peers = []
        for identity in self.config.peers:
            peer = before.get(identity)
            if peer is None:
                peer = Progress(identity, 0)
                if self.leads:
                    peer.lead_from(self.log.last_index + 1)
                if identity.id in self.links:
                    peer.connect(self.links[identity.id])
            peer.place(self.config.slot_of(identity), identity in self.config.learners)
            self.peers.append(peer)
        self.peers_by_id = {peer.peer_id: peer for peer in self.peers}
        self.values: list[int] = [0] * self.config.size()
        self.granted: list[int] = [0] * self.config.size()
        self.membership_changed = True
        if not self.leads:
            self.role = self.resting_role()
            self.role_changed = True

    def resting_role(self) -> Role:
        """What this node is when it neither leads nor campaigns."""
        return Role.FOLLOWER if self.config.is_voter else Role.LEARNER

    def can_campaign(self) -> bool:
        """A learner never does, nor a node that cannot give out what its log promises (consensus.md section 3).

        A voter whose newest entry says that it leaves still does until it knows that entry committed: it may be the
        only one whose log is long enough (thesis 4.2.2).
        """
        if self.faulty or self.fatal or self.installing:
            return False
        if self.config.is_voter:
            return True
        count = len(self.history)
        if count < 2 or self.history[count - 1].index <= self.commit_index:
            return False
        before = self.history[count - 2]
        return self.own in before.voters or self.own in before.outgoing

    # ------------------------------------------------------------------ parts

    def commit_to(self, index: int) -> bool:
        """Raise the commit index; whether it moved."""
        if index <= self.commit_index:
            return False
        assert index <= self.log.last_index, "commit beyond the log"
        self.commit_index = index
        return True

    def last_for_votes(self) -> int:
        """The highest index this node promised: damaged entries count, they were acknowledged."""
        last = self.log.last_index
        for _, faulty_last in self.faulty:
            last = max(last, faulty_last)
        return last

    def peer_of(self, identity: Identity) -> Progress | None:
        """The progress of exactly this identity: an earlier incarnation's answers count for nobody (rule 8)."""
        peer: Progress | None = self.peers_by_id.get(identity.id)
        if peer is None or peer.identity.incarnation != identity.incarnation:
            return None
        return peer

    def break_promise(self, text: str) -> None:
        """The world below or around broke a promise that safety rests on: stop for good."""
        if not self.fatal:
            self.fatal = text

    def draw_ns(self, below_ns: int) -> int:
        """A pseudo-random span in `[0, below_ns)` (a Lehmer generator over a Mersenne prime)."""
        self.random_state = self.random_state * 6364136223846793005 % 2305843009213693951
        return int(self.random_state % max(below_ns, 1))

    def draw_timeout_ns(self) -> int:
        """A randomised election timeout."""
        return self.election_min_ns + self.draw_ns(self.election_max_ns - self.election_min_ns + 1)
