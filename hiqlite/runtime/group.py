"""One Raft instance of a node: turns the crank of the engine, once per loop turn.

Sees the ports of `engine/ports.py` only. It moves ranges of entries between the proposals, the window, the log, the
peers and the state machine, in the order that `Ready` gives. Must not know: SQL, apsw, LMDB, sockets.
Invariant: an entry is handed to the state machine once, in order, and only after the engine said it is committed and
written here; a write of this node is resolved once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hiqlite import observe
from hiqlite._accel.batch import Op
from hiqlite.clock import Clock
from hiqlite.config import RaftSettings
from hiqlite.engine.model import NOTHING, AppendRequest, Change, Identity, Membership, Message, Ready, RepairReply
from hiqlite.engine.ports import Judge, LogStore, StateMachine
from hiqlite.engine.raft import Raft
from hiqlite.errors import HiqliteError, ProtocolError, StorageError, with_outcome

from .alarm import Alarm
from .applier import Applier
from .changing import change_members
from .configurations import Configurations, Record
from .fetches import Fetches
from .group_time import GroupTime
from .links import Links
from .log_progress import LogProgress
from .orders import Orders
from .proposals import Proposals
from .proposing import Proposer
from .purging import Purger
from .repairs import Repairs
from .troubles import Troubles
from .waiting import AppliedWaiters, ReadTokens
from .window import Window
from .write_session import SessionTerms

log = observe.logger("runtime")
WITH_ENTRIES = (AppendRequest, RepairReply)


class Group:
    """The engine of one group with everything it drives.

    Args:
        record: puts a committed configuration into the metadata.
        on_change: called after the role, term or leader changed.
        on_failure: called once when this node can no longer take part (log or state machine failed).
        judge, sessions: see `Gate` and `WriteSession`.
    """

    engine: Raft

    def __init__(
        self,
        *,
        identity: Identity,
        settings: RaftSettings,
        log_store: LogStore,
        machine: StateMachine,
        links: Links,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        group_time: GroupTime,
        record: Record,
        on_change: Callable[[], None],
        on_failure: Callable[[StorageError], None],
        judge: Judge | None = None,
        sessions: SessionTerms | None = None,
    ) -> None:
        self.started = False
        self.identity = identity
        self.settings = settings
        self.log_store = log_store
        self.machine = machine
        self.links = links
        self.clock = clock
        self.group_time = group_time
        self.window = Window(settings.memory_window_bytes)
        self.waiters = AppliedWaiters()
        self.proposals = Proposals(
            settings, loop, send_forward=links.send_forward, when_applied=self.when_applied, wake=self._schedule,
            leads=lambda: self.leads, judge=judge, is_level=self._is_level, sessions=sessions, troubles=links.troubles,
        )  # fmt: skip
        self.troubles = Troubles(self.proposals)
        self.applier = Applier(
            machine, log_store, self.window, settings.apply_queue_bytes, loop,
            fail=self.fail, stopped=self.troubles.machine_stopped,
        )  # fmt: skip
        self.failure: HiqliteError | None = None
        self.changed = asyncio.Event()  # set whenever role, term, leader or members changed, or the group failed
        self._changing = asyncio.Lock()
        self._membership_index = 0  # of the configuration in force
        self._loop = loop
        self._on_change = on_change
        self._on_failure = on_failure
        self.fetches = Fetches(self.window, log_store, self._fetched, self.pump, loop)
        self.repairs = Repairs(log_store, links, loop)
        self.configurations = Configurations(record, self.applier, loop, fail=self.fail)
        self.purger = Purger(log_store, machine, settings.logs_until_snapshot)
        self.orders = Orders(
            log_store=log_store, links=links, window=self.window, fetches=self.fetches, repairs=self.repairs,
            group_time=group_time, clock=clock, truncated=self.proposals.truncated,
        )  # fmt: skip
        self._proposer = Proposer(self.proposals, self.window, group_time, clock, self.orders.seed)
        self._scheduled = self._pumping = self._telling = False
        self._log_progress = LogProgress(log_store, self.window, self.newest_group_time)
        self._alarm = Alarm(loop, self._deadline)
        self.reads = ReadTokens(loop)
        self.before_deadline: Callable[[], bool] = lambda: True
        self._connected: dict[int, int] = {}  # peer -> epoch of its links

    # -- life

    def start(self, engine: Raft) -> None:
        """Begin to turn `engine`, now that this node's membership is known. Nothing of the log is in memory yet."""
        self.engine = engine
        self.applier.begin(engine.term_at)
        self._membership_index = engine.membership.index
        self.configurations.recorded_index = engine.membership_at(0).index  # the oldest known: that of the metadata
        now_ns = self.clock.monotonic_ns()
        for peer_id, epoch in self._connected.items():
            engine.peer_connected(peer_id, epoch, now_ns)
        engine.window_starts_at(engine.last_index + 1)
        self.started = True
        self.log_store.on_progress(self.pump)
        self.machine.on_progress(self._machine_progress)
        self.pump()

    async def close(self, error: HiqliteError) -> None:
        """Stop turning; every waiting caller gets `error` with what is known of its write."""
        self.stop_turning(error)
        for part in (self.fetches, self.repairs, self.configurations, self.applier):
            await part.close()

    def stop_turning(self, error: HiqliteError) -> None:
        """The part of `close` that takes no time."""
        self.failure = self.failure or error
        self.changed.set()
        self._alarm.cancel()
        self._fail_waiting(error)

    def fail(self, error: StorageError) -> None:
        """This node's disk or state machine broke: it stops taking part, and says so."""
        if self.failure is not None:
            return
        self.failure = error
        self.changed.set()
        log.error("group stops: %s", error)
        if self.started:
            self.engine.step_down(self.clock.monotonic_ns(), str(error))
            self._tell_change()  # the heartbeat thread above all: beats of a dead leader would keep the others waiting
        self._fail_waiting(error)
        self._on_failure(error)

    def _tell_change(self) -> None:
        self.changed.set()
        self._on_change()

    def _broken(self, error: Exception) -> None:
        """A fault of our own: a turn was carried out by half, so nothing goes on from here."""
        log.error("a turn of the group failed", exc_info=error)
        self.fail(StorageError(f"internal error: {error!r}", hint="see the log; restart the node"))

    def _fail_waiting(self, error: HiqliteError) -> None:
        self.proposals.fail(error)
        self.reads.fail(error)
        self.waiters.fail(error)

    # -- writes

    @property
    def leads(self) -> bool:
        return self.started and self.failure is None and self.engine.leads

    @property
    def proposes(self) -> bool:
        """Whether a cheap write of this process may be proposed right here: it overtakes none of before."""
        proposals = self.proposals
        free = not proposals.forwarder.holds and not proposals.gate.closed and proposals.session.window.free
        return free and self.leads

    @property
    def leader_id(self) -> int:
        """Who leads as far as this node knows; 0 when it does not."""
        return self.engine.leader_id if self.started else 0

    @property
    def behind(self) -> bool:
        """Whether the database lacks entries of this leader's log, or proposals: its schema may be an older one."""
        return len(self.proposals.gate) > 0 or not self._is_level()

    def _is_level(self) -> bool:
        return not self.proposals.buffer and self.applier.applied_index >= self.engine.last_index

    def write(self, record: bytes, op: Op) -> None:
        """A complete record of this process, proposed here or through the leader."""
        self.proposals.write(record, op)

    def when_applied(self, index: int, callback: Callable[[], None]) -> None:
        """Run `callback` once this node has applied `index`; at once if it has."""
        if index <= self.applier.applied_index:
            callback()
        else:
            self.waiters.add(index, callback)
            self._schedule()  # somebody waits now: what is committed is applied without delay

    async def until_applied(self, index: int) -> None:
        """Wait until this node has applied `index`. Raises what this group fails or closes with."""
        if index > self.applier.applied_index:
            if self.failure is not None:
                raise with_outcome(self.failure, None)
            self._schedule()
            await self.waiters.future(index, self._loop)

    async def change_members(self, change: Change, timeout: float) -> Membership:
        """Through the log, one after the other; see `changing.change_members`."""
        async with self._changing:
            return await change_members(self, change, self.clock, timeout)

    # -- reads

    def read_index(self) -> asyncio.Future[int]:
        """A quorum round of this leader. Resolves with the index that a linearizable read must have applied."""
        taken = self.failure is None and self.started
        token = self.engine.read(self.clock.monotonic_ns()) if taken else 0
        if token:
            self._schedule()
        return self.reads.add(token)

    # -- events of the world

    def receive(self, message: Message, body: bytes | None) -> None:
        """One message of a peer. Entries are absorbed at once, while their bytes are at hand."""
        if self.failure is not None or not self.started:
            return
        now_ns = self.clock.monotonic_ns()
        try:
            if body and isinstance(message, WITH_ENTRIES):
                self.engine.receive(self.orders.absorb(message, body), now_ns)
                self._turn(now_ns)
            else:
                self.engine.receive(message, now_ns)
        except ProtocolError:
            raise  # the peer's fault, found before anything changed: its link is closed
        except Exception as error:
            self._broken(error)
        finally:
            self.orders.received = None

    def connected(self, peer_id: int, epoch: int) -> None:
        self._connected[peer_id] = epoch
        self.proposals.forwarder.arrived(peer_id)
        self.proposals.session.met()
        if self.started:
            self.engine.peer_connected(peer_id, epoch, self.clock.monotonic_ns())
            self._schedule()

    def lost(self, peer_id: int, refused: bool) -> None:
        self._connected.pop(peer_id, None)
        self.proposals.forwarder.lost(peer_id)
        if self.started:
            self.engine.peer_lost(peer_id, refused, self.clock.monotonic_ns())
            self._schedule()

    def forward_replied(self, peer_id: int, body: bytes) -> None:
        """Answers of the leader to writes of this node."""
        try:
            now_ns = self.clock.monotonic_ns()
            answered = self.proposals.forwarder.replied(peer_id, body, now_ns)
            if answered and self.started and peer_id == self.engine.leader_id:
                # What the leader has answered it has committed: a bound like that of a heartbeat, capped the same way,
                # so that this node need not wait for the next append to apply its own write.
                incarnation = self.engine.incarnation_of(peer_id)
                self.engine.heard_beat(self.engine.term, peer_id, incarnation, answered, now_ns, now_ns)
        finally:
            self._schedule()

    # -- the crank

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Everything that one turn has to do. Where tasks can be stepped, who waits for what it applied runs now."""
        if self._pumping:
            self._schedule()
            return
        self._crank()
        if self.applier.has_runs and not self._telling and asyncio.current_task(self._loop) is None:
            self._machine_progress()

    def _crank(self) -> None:
        self._scheduled = False
        if self.failure is not None or not self.started:
            return
        self._pumping = True
        try:
            now_ns = self.clock.monotonic_ns()
            if (broken := self.troubles.of_log(self.log_store)) is not None:
                self.fail(broken)
                return
            written_io = self._log_progress.tell(self.engine, now_ns)
            self.machine.set_synced_index(self.engine.synced_index)
            self._log_progress.shrink(self.engine)
            self._proposer.propose(self.engine, leads=self.leads, now_ns=now_ns)
            self._turn(now_ns)
            while self.log_store.written > written_io:  # within the call that asked for it: nothing wakes this loop
                written_io = self._log_progress.tell(self.engine, now_ns)
                self._turn(now_ns)
            self._alarm.arm(self.engine.next_deadline(), now_ns)
        except Exception as error:
            self._broken(error)
        finally:
            self._pumping = False

    def _turn(self, now_ns: int) -> None:
        """Until the engine asks for nothing more."""
        while self.engine.has_ready() and self.failure is None:
            if (ready := self.engine.ready()) is not NOTHING:
                self._handle(ready, now_ns)
        self.applier.feed(urgent=self.leads or len(self.waiters) > 0)
        if self.proposals.forwarder.holds:
            engine = self.engine
            if self.proposals.pass_on(self.leads, engine.leader_id, engine.term, now_ns):
                self._schedule()

    def _handle(self, ready: Ready, now_ns: int) -> None:
        """Carry out what the engine asks for, in the order in which `Ready` lists it."""
        if ready.fatal:
            self.fail(StorageError(ready.fatal, outcome=None))
            return
        if ready.role_changed:
            self._role_changed(now_ns)
        if ready.membership is not None:
            self._membership_index = ready.membership.index
            self._tell_change()
        self.orders.carry_out(ready, now_ns)
        if ready.apply is not None:
            first, last = ready.apply
            if self._membership_index >= first:
                self.configurations.committed(self.engine.memberships_of(first, last))
            self.applier.commit(last, answers=len(self.proposals.pending) > 0)
        self.reads.settle(ready)

    def _fetched(self, peer_id: int, first: int, last: int, size_bytes: int) -> None:
        if self.failure is None:
            self.engine.entries_fetched(peer_id, first, last, size_bytes, self.clock.monotonic_ns())

    def _role_changed(self, now_ns: int) -> None:
        """Role, term or leader changed; runs before anything that follows from it is sent (consensus.md rule 17)."""
        if self.leads:
            self.newest_group_time()
            self.group_time.elected(now_ns)  # before anybody is told: the beats carry this time
            self.proposals.gate.begin()
            self._schedule()
        self._tell_change()

    # -- progress of the state machine, and time

    def _machine_progress(self) -> None:
        if self.failure is not None:
            return
        self._telling = self._scheduled = True
        try:
            runs = self.applier.take()
            if runs:
                self.engine.applied(self.applier.applied_index)
            # The last act of the turn: waiters run now, and what they write next goes out with the crank below.
            for run in runs:
                self.proposals.applied(run)
            self.waiters.reached(self.applier.applied_index)
        except Exception as error:
            self._broken(error)
        finally:
            self._telling = self._scheduled = False
        self._crank()  # what that applies is told in a turn of its own: others are to have theirs

    def _deadline(self) -> bool:
        """False: the loop was stuck, so first what the network brought meanwhile is taken in, then judged."""
        if self.failure is not None:
            return True
        if not self.before_deadline():
            return False
        self.engine.disk_waits(self.log_store.waiting_since_ns)  # what was known before a stuck loop is over
        self.engine.tick(self.clock.monotonic_ns())
        self.pump()
        return True

    def newest_group_time(self) -> int:
        """Of what is applied and of what memory holds; noted before an election needs it or memory lets go of it."""
        self.group_time.saw(max(self.machine.applied_group_time_ns, self.window.group_time_ns))
        return self.group_time.newest_seen_ns
